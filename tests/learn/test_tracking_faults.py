"""MLflow comes out the same however often and badly it is filled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.door import TrackingUnavailable
from ablate.learn.tracking.guards import one_at_a_time
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.tracked import (
    DIGEST,
    FILES,
    KEY,
    PARENT,
    PLAN,
)
from ablate.run.ledger import Ledger
from tests.learn import fake
from tests.learn.tracked import (
    SMALL,
    by_level,
    content,
    filled,
    runs_of,
)

pytest.importorskip("mlflow")


WRITES = ("create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated", "set_tag")


class Faults:
    """Breaks the n-th write to MLflow of every attempt, by turns before and after its effect."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.breaks_at = self.seen = 0
        self.error = MlflowException("gone")
        for name in WRITES:
            patch.setattr(MlflowClient, name, self.breaking(getattr(MlflowClient, name)))

    def breaking(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*args: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen == self.breaks_at and self.breaks_at % 2:
                raise self.error
            done = write(*args, **options)
            if self.seen == self.breaks_at:
                raise self.error
            return done

        return broken

    def next_attempt(self) -> None:
        self.breaks_at += 1
        self.seen = 0


def test_a_broken_sync_ends_like_an_undisturbed_one(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str], monkeypatch: Any
) -> None:
    name, other = names(), names()
    plan, ledger = filled(tmp_path / "a", name, only=lambda trial: trial.seed == 0)
    results = collect(plan, ledger)
    attempts = 0
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        while True:
            faults.next_attempt()
            try:
                broken = sync(results, ledger, store)
                break
            except TrackingUnavailable:
                attempts += 1
    assert attempts >= len(WRITES)
    twin, twin_ledger = filled(tmp_path / "b", other, only=lambda trial: trial.seed == 0)
    whole = sync(collect(twin, twin_ledger), twin_ledger, store)
    found = neutral(content(client, broken.experiment_id), name, tmp_path / "a")
    assert found == neutral(content(client, whole.experiment_id), other, tmp_path / "b")


def neutral(found: dict[str, Any], name: str, root: Path) -> Any:
    """Content without what must differ: the study's name, the folder, and what hashes of both."""
    for one in found.values():
        one["tags"] = {k: v for k, v in one["tags"].items() if k not in {KEY, PLAN, DIGEST, FILES}}
        one["kind"] = one.pop("parent") and one["tags"]["level"]
    text = repr(sorted(map(repr, found.values()))).replace(name, "NAME")
    plans = {key.removeprefix("execution/") for key in found if key.startswith("execution/")}
    for plan in plans:
        text = text.replace(plan, "PLAN")
    return text.replace(str(root), "ROOT")


def test_doubles_of_an_interrupted_answer_go(
    study: tuple[Results, Ledger], summary: SyncSummary, store: str, client: Any
) -> None:
    run = client.get_run(next(iter(summary.cells.values())))
    double = client.create_run(
        summary.experiment_id, start_time=run.info.start_time + 1, tags=dict(run.data.tags)
    )
    again = sync(*study, store)
    assert (again.created, again.updated) == (0, 0)
    assert client.get_run(double.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_changed_plan_takes_over_what_it_shares(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    name = names()
    plan, ledger = filled(tmp_path, name, only=lambda trial: trial.seed == 0)
    first = sync(collect(plan, ledger), ledger, store)
    wider = fake.plan_of(SMALL.replace("[0.02, 0.1]", "[0.02, 0.1, 0.5]"), name)
    fake.fill(wider, ledger, only=lambda trial: trial.seed == 0)
    second = sync(collect(wider, ledger), ledger, store)
    assert second.execution != first.execution
    assert second.created == 3
    runs = runs_of(client, second.experiment_id)
    cells = by_level(runs, "cell")
    assert [run.info.run_name for run in cells] == [
        "01 joint_lh 0.02",
        "02 joint_lh 0.1",
        "03 joint_lh 0.5",
    ]
    assert {run.data.tags[PARENT] for run in cells} == {second.execution}
    assert len(by_level(runs, "trial")) == 3


def test_a_dead_server_is_told_in_seconds(study: tuple[Results, Ledger]) -> None:
    began = time.monotonic()
    with pytest.raises(TrackingUnavailable) as caught:
        sync(*study, "http://user:secret@127.0.0.1:9")
    assert time.monotonic() - began < 20
    words = str(caught.value)
    assert "http://***@127.0.0.1:9" in words
    assert "connection refused" in words
    assert "secret" not in words


def test_a_store_that_cannot_be_opened_is_told(
    study: tuple[Results, Ledger], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        sync(*study, f"sqlite:///{tmp_path}/file/mlflow.db")


def test_settings_of_the_process_are_as_before(
    study: tuple[Results, Ledger], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    sync(*study, store)
    assert dict(os.environ) == before


def test_a_sync_says_nothing_on_its_own(
    tmp_path: Path, names: Callable[[], str], store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, ledger = filled(tmp_path, names(), only=lambda trial: trial.seed == 0)
    sync(collect(plan, ledger), ledger, store)
    assert capfd.readouterr() == ("", "")


def test_two_syncs_at_once_make_one_of_each(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    plan, ledger = filled(tmp_path, names(), only=lambda trial: trial.seed == 0)
    results = collect(plan, ledger)
    found: list[SyncSummary] = []
    threads = [
        threading.Thread(target=lambda: found.append(sync(results, ledger, store)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.created for one in found) == [0, 0, 5]
    assert len(runs_of(client, found[0].experiment_id)) == 5


def test_a_held_run_folder_is_waited_for_and_then_told(tmp_path: Path) -> None:
    held = pytest.raises(TimeoutError, match="has held")
    with one_at_a_time(tmp_path, 1.0), held, one_at_a_time(tmp_path, 0.2):
        pass
    with one_at_a_time(tmp_path, 0.2):
        pass


def test_a_deleted_experiment_comes_back(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    plan, ledger = filled(tmp_path, names(), only=lambda trial: trial.seed == 0)
    results = collect(plan, ledger)
    first = sync(results, ledger, store)
    client.delete_experiment(first.experiment_id)
    sync(results, ledger, store)
    assert client.get_experiment(first.experiment_id).lifecycle_stage == "active"
    assert len(runs_of(client, first.experiment_id)) == 5


def test_a_note_of_ones_own_stays(
    study: tuple[Results, Ledger], summary: SyncSummary, store: str, client: Any
) -> None:
    note = client.get_experiment(summary.experiment_id).tags["mlflow.note.content"]
    assert study[0].study.question in note
    client.set_experiment_tag(summary.experiment_id, "mlflow.note.content", "mine")
    again = sync(*study, store)
    assert again.updated == 0
    tags = client.get_experiment(summary.experiment_id).tags
    assert tags["mlflow.note.content"] == "mine"
