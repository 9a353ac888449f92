"""MLflow: the layout, and that it comes out the same however often and badly it is filled."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.door import TrackingUnavailable
from ablate.learn.tracking.files import artifact_folder, default_uri, mask
from ablate.learn.tracking.guards import one_at_a_time
from ablate.learn.tracking.names import COLOUR, COLOURS, set_names
from ablate.learn.tracking.plots import figures, page
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.tracked import (
    DIGEST,
    FILES,
    KEY,
    PARENT,
    PLAN,
    REVISION,
    tracked_runs,
)
from ablate.learn.tracking.views import compare_url, saved_views, server_command, view_url
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import fake

pytest.importorskip("mlflow")

SMALL = fake.STUDY.replace("[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]", "[joint_lh]")
FAILED, REASON = "01 joint_lh 0.02", "the loss is not finite at step 31; lower optim.lr"
PRIMARY = "pydocs/test/ndcg_at_10"


@pytest.fixture
def names() -> Iterator[Callable[[], str]]:
    """Names of studies that no other test of the module has."""
    return lambda: f"study-{time.monotonic_ns()}"


def filled(root: Path, name: str, text: str = SMALL, **options: Any) -> tuple[Plan, Ledger]:
    plan, ledger = fake.plan_of(text, name), Ledger(root)
    fake.fill(plan, ledger, **options)
    return plan, ledger


def runs_of(client: Any, experiment: str) -> dict[str, Any]:
    """Key -> run; no key twice."""
    runs = list(client.search_runs([experiment], max_results=1000))
    found = {run.data.tags[KEY]: run for run in runs}
    assert len(found) == len(runs)
    return found


def content(client: Any, experiment: str) -> dict[str, Any]:
    """Everything that a sync should leave alike, by key; ids as keys."""
    runs = runs_of(client, experiment)
    keys = {run.info.run_id: key for key, run in runs.items()}
    found = {}
    for key, run in runs.items():
        tags = {k: v for k, v in run.data.tags.items() if k != PARENT}
        points = Counter(
            (metric, point.step, point.value)
            for metric in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, metric)
        )
        found[key] = {
            "parent": keys.get(run.data.tags.get(PARENT, "")),
            "tags": tags,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "points": points,
            "status": (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name),
            "inputs": sorted(one.dataset.name for one in run.inputs.dataset_inputs),
            "files": files_of(client, run.info.run_id),
        }
    return found


def files_of(client: Any, run_id: str, path: str | None = None) -> list[str]:
    found: list[str] = []
    for file in client.list_artifacts(run_id, path):
        found += files_of(client, run_id, file.path) if file.is_dir else [file.path]
    return sorted(found)


@pytest.fixture(scope="module")
def study(store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Ledger]:
    root = tmp_path_factory.mktemp("runs")
    plan, ledger = filled(root, "layout", failed={f"{FAILED} 1": REASON})
    (root / "studies/layout/report.html").write_text("<html></html>")
    return collect(plan, ledger), ledger


@pytest.fixture(scope="module")
def summary(study: tuple[Results, Ledger], store: str) -> SyncSummary:
    return sync(*study, store)


@pytest.fixture(scope="module")
def runs(summary: SyncSummary, client: Any) -> dict[str, Any]:
    return runs_of(client, summary.experiment_id)


def by_level(runs: dict[str, Any], level: str) -> list[Any]:
    found = [run for run in runs.values() if run.data.tags["level"] == level]
    return sorted(found, key=lambda run: str(run.info.run_name))


def test_layout_is_execution_cell_trial(runs: dict[str, Any], summary: SyncSummary) -> None:
    (execution,), cells, trials = (by_level(runs, x) for x in ("execution", "cell", "trial"))
    assert [run.info.run_name for run in cells] == ["01 joint_lh 0.02", "02 joint_lh 0.1"]
    assert len(trials) == 6
    assert summary.created == 9
    assert execution.info.run_id == summary.execution
    assert PARENT not in execution.data.tags
    for cell in cells:
        assert cell.data.tags[PARENT] == execution.info.run_id
        own = [trial for trial in trials if trial.data.tags[PARENT] == cell.info.run_id]
        assert {trial.data.tags["cell"] for trial in own} == {cell.info.run_name}
        assert sorted(trial.data.tags["seed"] for trial in own) == ["0", "1", "2"]
        assert summary.cells[cell.info.run_name] == cell.info.run_id


def test_the_execution_has_the_study(
    runs: dict[str, Any], client: Any, study: tuple[Results, Ledger]
) -> None:
    (execution,) = by_level(runs, "execution")
    assert execution.info.status == "FINISHED"
    assert execution.data.params == {
        "fixed.data.train": "pydocs",
        "fixed.data.machine_labels": "minilm-l6",
        "fixed.data.human_fraction": "0.5",
        "fixed.encoder.backbone": "packaged/all-MiniLM-L6-v2",
        "fixed.encoder.layers": "2",
        "fixed.optim.lr": "0.0001",
        "fixed.optim.batch_size": "32",
        "fixed.optim.steps": "60",
        "compare.loss.name": "joint_lh",
        "compare.loss.temperature": "0.02, 0.1",
        "repeat.seed": "0, 1, 2",
        "evaluate": "pydocs/test",
        "select.maximize": "pydocs/dev/ndcg_at_10",
    }
    assert execution.data.tags["trials"] == "5 of 6 finished"
    assert execution.data.tags[REVISION] == fake.REVISION
    assert study[0].study.question in execution.data.tags["mlflow.note.content"]
    assert files_of(client, execution.info.run_id) == [
        "choices.json",
        "data.json",
        "environment.txt",
        "executions/1790000000000.json",
        "figures.html",
        "plan.json",
        "report.html",
    ]


def test_a_cell_has_mean_spread_and_interval(
    runs: dict[str, Any], study: tuple[Results, Ledger]
) -> None:
    dev = "pydocs/dev/ndcg_at_10"
    selected = max(study[0].cells, key=lambda cell: cell.metrics[dev].mean).name
    for cell in study[0].cells:
        run = next(run for run in by_level(runs, "cell") if run.info.run_name == cell.name)
        summary, gain = study[0].primary_of(cell), cell.gains["untrained"]
        metrics, tags = run.data.metrics, run.data.tags
        assert metrics[PRIMARY] == summary.mean
        assert metrics[f"{PRIMARY}.sd"] == summary.sd
        assert metrics[f"{PRIMARY}.low"] == summary.low
        assert metrics[f"{PRIMARY}.high"] == summary.high
        assert metrics[f"{PRIMARY}.gain"] == gain.mean
        assert metrics["n/seeds"] == summary.seeds
        assert metrics["n/queries pydocs/test"] == 300
        assert metrics["n/failed"] == cell.failed
        assert tags["ndcg_at_10"] == f"{summary.mean:.3f} ± {summary.sd:.3f}"
        assert tags["interval"] == f"{summary.low:.3f}–{summary.high:.3f}"
        assert tags["gain"] == f"{gain.mean:+.3f}"
        assert (tags["loss"], tags["verdict"]) == ("joint_lh", cell.verdict)
        assert tags["selected"] == ("yes" if cell.name == selected else "no")
        assert max(map(len, (tags["ndcg_at_10"], tags["interval"], tags["verdict"]))) <= 13
        assert run.data.params == {
            "loss.name": "joint_lh",
            "loss.temperature": str(cell.values["loss.temperature"]),
        }


def test_a_trial_has_params_history_inputs_and_files(
    runs: dict[str, Any], client: Any, study: tuple[Results, Ledger]
) -> None:
    results, ledger = study
    trial = next(trial for trial in results.trials if trial.state == "finished")
    run = runs[f"trial/{trial.trial_id}"]
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.temperature"] == "0.02"
    assert run.data.params["encoder.dropout"] == "null"
    assert set(run.data.params) == set(trial.planned.flat)
    assert run.data.metrics[PRIMARY] == trial.metrics[PRIMARY]
    assert run.data.metrics["seconds/train"] == 31.0
    points = client.get_metric_history(run.info.run_id, "train/loss")
    logged = [(point.step, point.value) for point in points]
    rows = [(row["step"], row["train/loss"]) for row in results.scores.history(trial)]
    # The value at the end, a mean over late steps, is what the run shows.
    end = trial.metrics["train/loss"]
    assert end not in {value for _, value in rows}
    assert logged == [*rows, (rows[-1][0], end)]
    assert run.data.metrics["train/loss"] == end
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("pydocs", fake.FINGERPRINT[:36])
    assert json.loads(used.dataset.source)["fingerprint"] == fake.FINGERPRINT
    assert used.tags[0].value == "training, evaluation on dev, evaluation on test"
    assert files_of(client, run.info.run_id) == [
        f"evaluations/pydocs__{split}/{name}"
        for split in ("dev", "test")
        for name in ("metrics.json", "per_query.parquet", "run.trec")
    ]
    home = f"{ledger.store.uri}/trials/{trial.trial_id}"
    tags = run.data.tags
    assert (tags["folder"], tags["checkpoint"]) == (home, f"{home}/checkpoint")
    assert (tags["state"], tags["selected"], tags["draw"]) == ("finished", "yes", "0")
    (verdict,) = (cell.verdict for cell in results.cells if cell.name == trial.cell)
    assert (tags["loss"], tags["verdict"]) == ("joint_lh", verdict)
    for split in ("dev", "test"):
        score = trial.metrics[f"pydocs/{split}/ndcg_at_10"]
        assert tags[f"{split} ndcg_at_10"] == f"{score:.3f}"
    cell = next(run for run in by_level(runs, "cell") if run.info.run_name == trial.cell)
    assert tags[COLOUR] == cell.data.tags[COLOUR] == COLOURS[0]


def test_a_failed_trial_is_a_failed_run(runs: dict[str, Any]) -> None:
    (failed,) = [run for run in runs.values() if run.info.status == "FAILED"]
    assert (failed.data.tags["cell"], failed.data.tags["seed"]) == (FAILED, "1")
    assert (failed.data.tags["state"], failed.data.tags["reason"]) == ("failed", REASON)
    assert PRIMARY not in failed.data.metrics


def test_a_second_sync_changes_nothing(
    study: tuple[Results, Ledger], summary: SyncSummary, store: str, client: Any
) -> None:
    before = content(client, summary.experiment_id)
    tags = client.get_experiment(summary.experiment_id).tags
    again = sync(collect(fake.plan_of(SMALL, "layout"), study[1]), study[1], store)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 9)
    assert (again.execution, again.cells) == (summary.execution, summary.cells)
    assert content(client, summary.experiment_id) == before
    assert client.get_experiment(summary.experiment_id).tags == tags


def test_what_was_added_is_all_that_changes(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    name = names()
    plan, ledger = filled(tmp_path, name, only=lambda trial: trial.seed < 2)
    first = sync(collect(plan, ledger), ledger, store)
    before = runs_of(client, first.experiment_id)
    assert Counter(run.info.status for run in before.values()) == {"RUNNING": 3, "FINISHED": 4}
    trial = next(trial for trial in plan.repeat() if trial.seed == 2)
    fake.write_trial(ledger, trial, ["pydocs/dev", "pydocs/test"], {})
    second = sync(collect(plan, ledger), ledger, store)
    after = runs_of(client, first.experiment_id)
    assert (second.created, second.created + second.updated + second.unchanged) == (1, 8)
    for key in (key for key in before if key.startswith("trial/")):
        old, new = before[key].data, after[key].data
        assert (old.params, old.metrics) == (new.params, new.metrics)
        fresh = {name for name in new.tags if old.tags.get(name) != new.tags[name]}
        assert fresh <= {"verdict", DIGEST}
    assert set(after) - set(before) == {f"trial/{trial.trial_id}"}
    changed = after[next(key for key in after if after[key].info.run_name == trial.cell)]
    assert changed.info.status == "FINISHED"
    assert changed.data.metrics["n/seeds"] == 3
    expected = next(cell for cell in collect(plan, ledger).cells if cell.name == trial.cell)
    assert changed.data.metrics[PRIMARY] == expected.metrics[PRIMARY].mean


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


def test_saved_views_find_their_runs(
    study: tuple[Results, Ledger], summary: SyncSummary, client: Any
) -> None:
    tags = client.get_experiment(summary.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    expected = {"cells": 2, "losses": 1, "temperature": 2, "trials": 6, "failed": 1}
    for view in saved_views(study[0]):
        tag = json.loads(tags[f"mlflow.sharedViewState.{view.key}"])
        assert tag["name"] == view.name
        assert len(tags[f"mlflow.sharedViewState.{view.key}"]) < 20_000
        packed = base64.b64decode(tag["state"].removeprefix("deflate;"))
        state = json.loads(zlib.decompress(packed))
        direction = "ASC" if state["orderByAsc"] else "DESC"
        found = client.search_runs(
            [summary.experiment_id],
            state["searchFilter"],
            order_by=[f"{state['orderByKey']} {direction}"],
        )
        assert len(found) == expected.pop(view.key)
        first = found[0].data
        held = {f"params.`{key}`" for key in first.params} | {f"tags.`{key}`" for key in first.tags}
        held |= {f"metrics.`{key}`" for key in first.metrics}
        assert set(state["selectedColumns"]) <= held
        shown = [name for name in state["columnOrder"] if name in held]
        assert shown == state["selectedColumns"] != []
        assert set(shown) < set(state["columnWidths"])
        assert state["columnWidths"].get("tags.`reason`", 480) > 400
        if "compareRunCharts" in state:
            own, *closed = state["compareRunSections"]
            assert own["display"] and not any(section["display"] for section in closed)
            names = {section["name"] for section in closed}
            assert names == {name.rpartition("/")[0] for name in first.metrics}
            lines = [one for one in state["compareRunCharts"] if one["type"] == "PARALLEL"]
            assert all(one["selectedMetrics"][-1] == PRIMARY for one in lines)
    assert expected == {}


def test_cells_without_a_score_are_not_in_the_comparison(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    """MLflow compares what all its runs have, so one of them would hide the scores of the rest."""
    failed = {f"{FAILED} {seed}": REASON for seed in range(3)}
    plan, ledger = filled(tmp_path, names(), failed=failed)
    results = collect(plan, ledger)
    summary = sync(results, ledger, store)
    assert len(summary.cells) == 2 and len(results.scored) == 1
    for name, run_id in summary.cells.items():
        assert (run_id in summary.compare_url) == (name != FAILED)
    asked = sync(results, ledger, store, compared=[FAILED])
    assert summary.cells[FAILED] in asked.compare_url
    nothing, empty = filled(tmp_path / "b", names(), failed=failed | {
        f"02 joint_lh 0.1 {seed}": REASON for seed in range(3)
    })  # fmt: skip
    none = sync(collect(nothing, empty), empty, store)
    assert all(run_id in none.compare_url for run_id in none.cells.values())


def test_stopped_trials_are_not_failed_ones(tmp_path: Path, names: Callable[[], str]) -> None:
    plan, ledger = filled(tmp_path, names())
    for record in list(ledger.records()):
        if record.spec["loss.temperature"] == 0.02:
            ledger.write(replace(record, state="stopped", reason="asha", metrics={}, evaluated={}))
    runs = {run.name: run for run in tracked_runs(collect(plan, ledger), {})}
    assert runs[FAILED].status == runs[f"{FAILED} s1"].status == "KILLED"
    assert runs["02 joint_lh 0.1"].status == "FINISHED"


def test_a_view_keeps_the_time_it_was_made(study: tuple[Results, Ledger]) -> None:
    view = saved_views(study[0])[0]
    assert json.loads(view.tag(5))["createdAt"] == 5
    assert view.tag(5) == view.tag(5)


def test_addresses_and_command(summary: SyncSummary, study: tuple[Results, Ledger]) -> None:
    url = compare_url("http://127.0.0.1:5000/", "7", ["a", "b"])
    assert unquote(url) == ('http://127.0.0.1:5000/#/compare-runs?runs=["a","b"]&experiments=["7"]')
    assert view_url("http://h", "7", "cells") == (
        "http://h/#/experiments/7/runs?viewStateShareKey=cells"
    )
    command = server_command("sqlite:////runs/mlflow.db", Path("/runs/my artifacts"), 5001)
    assert "--host 127.0.0.1 --port 5001" in command
    assert "--artifacts-destination '/runs/my artifacts'" in command
    assert summary.server_command is not None
    assert summary.uri in summary.server_command
    assert all(run_id in summary.compare_url for run_id in summary.cells.values())


def test_the_default_store_lies_in_the_run_folder(study: tuple[Results, Ledger]) -> None:
    ledger = study[1]
    assert default_uri(ledger) == f"sqlite:///{ledger.store.local}/mlflow.db"
    assert artifact_folder(ledger) == Path(f"{ledger.store.local}/mlartifacts")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://***@host/db"),
        ("https://token@host:80/x", "https://***@host:80/x"),
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("mysql://h/db?password=pw&x=1", "mysql://h/db?password=***&x=1"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_secrets_are_hidden(uri: str, shown: str) -> None:
    assert mask(uri) == shown


def test_digests_follow_the_content(study: tuple[Results, Ledger]) -> None:
    results = study[0]
    digests = {run.key: run.digest for run in tracked_runs(results, {"plan.json": "1"})}
    assert {run.key: run.digest for run in tracked_runs(results, {"plan.json": "1"})} == digests
    other = {run.key: run.digest for run in tracked_runs(results, {"plan.json": "2"})}
    assert [key for key in digests if digests[key] != other[key]] == [next(iter(digests))]


def test_figures_show_the_results(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "figures", fake.STUDY)
    results = collect(plan, ledger)
    drawn = figures(results)
    ranked, heat, lines, training = drawn.values()
    order = ranked["layout"]["yaxis"]["categoryarray"]
    assert order[-1] == results.cells[0].name and len(order) == 10
    for trace in ranked["data"]:
        for name, mean, up in zip(trace["y"], trace["x"], trace["error_x"]["array"], strict=True):
            (cell,) = (cell for cell in results.cells if cell.name == name)
            summary = results.primary_of(cell)
            assert (mean, mean + up) == pytest.approx((summary.mean, summary.high))
    (tiles,) = heat["data"]
    assert (len(tiles["z"]), tiles["x"]) == (5, ["0.02", "0.1"])
    best = results.cells[0].values
    shown = tiles["z"][tiles["y"].index(best["loss.name"])]
    value = shown[tiles["x"].index(str(best["loss.temperature"]))]
    assert value == results.primary_of(results.cells[0]).mean
    assert {trace["name"] for trace in lines["data"]} == set(fake.LOSS_EFFECT)
    assert len(training["data"]) == 30 and training["layout"]["yaxis"]["title"]["text"]
    html = page(drawn)
    assert html.count("plotly.js v") == 1 and all(escape(name) in html for name in drawn)
    assert re.search(r"<script[^>]*\ssrc=", html) is None


def test_a_study_of_one_cell_has_the_figures_that_make_sense(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "one", SMALL.replace("[0.02, 0.1]", "[0.1]"))
    assert len(figures(collect(plan, ledger))) == 2


def test_several_test_sets_have_a_view_of_their_own(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "sets")
    results = collect(plan, ledger)
    refs = ("beir/nfcorpus/test", "beir/scifact/test")
    keys = [f"{ref}/{metric}" for ref in refs for metric in ("ndcg_at_10", "mrr_at_10")]
    several = replace(results, test_refs=refs, primary=keys[0], metric_keys=tuple(keys))
    assert "sets" not in {view.key for view in saved_views(results)}
    (view,) = (view for view in saved_views(several) if view.key == "sets")
    assert view.columns == ("tags.`loss`", "tags.`ndcg_at_10`", "tags.`scifact ndcg_at_10`")
    assert [chart["metricKey"] for chart in view.charts] == [keys[0], keys[2]]
    twice = replace(several, test_refs=("a/test", "b/a/test"))
    assert list(set_names(twice).values()) == ["nfcorpus", "a/test", "b/a/test"]
