"""The process that fills MLflow beside a study: behind at times, never wrong, never in the way."""

from __future__ import annotations

import multiprocessing
import socket
import time
from pathlib import Path

import pytest

from ablate.learn.results import collect
from ablate.learn.tracking import door
from ablate.learn.tracking import filler as module
from ablate.learn.tracking.door import TrackingUnavailable
from ablate.learn.tracking.filler import Behind, Filler
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.tracked import KEY
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from ablate.run.store import StoreUnreachable
from tests.learn import fake
from tests.learn.slow import Store

pytest.importorskip("mlflow")

SMALL = fake.STUDY.replace("[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]", "[joint_lh]")


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Plan, Ledger]:
    """A study of six trials, the first seed's finished."""
    plan, ledger = fake.plan_of(SMALL, "begun"), Ledger(tmp_path / "runs")
    fake.fill(plan, ledger, only=lambda trial: trial.seed == 0)
    return plan, ledger


def keys(uri: str) -> list[str]:
    """The keys of every trial's run in the store, doubles included."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("begun")
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], "tags.level = 'trial'")
    return sorted(run.data.tags[KEY] for run in found)


def test_it_fills_while_the_study_runs_and_ends_with_everything(
    begun: tuple[Plan, Ledger],
) -> None:
    plan, ledger = begun
    uri = f"sqlite:///{ledger.store.local}/mlflow.db"
    with Filler(plan, str(ledger.store.local), None) as filler:
        filler.changed()
        until = time.monotonic() + 60
        while time.monotonic() < until and not (Path(uri[10:]).exists() and len(keys(uri)) == 2):
            time.sleep(0.5)
        assert len(keys(uri)) == 2
        for trial in plan.repeat():
            if trial.seed:
                fake.write_trial(ledger, trial, ["pydocs/dev", "pydocs/test"], {})
                filler.changed()
        found = filler.finish()
    assert isinstance(found, SyncSummary), found
    assert keys(uri) == sorted(f"trial/{trial.trial_id}" for trial in plan.repeat())
    again = sync(collect(plan, ledger), ledger)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 9)
    assert multiprocessing.active_children() == []


def test_a_dead_server_neither_blocks_nor_grows(begun: tuple[Plan, Ledger]) -> None:
    plan, ledger = begun
    with Filler(plan, str(ledger.store.local), "http://me:secret@127.0.0.1:9", 0.0) as filler:
        # More than the pipe between the two holds: what does not fit is not kept anywhere.
        began = time.monotonic()
        for _ in range(100_000):
            filler.changed()
        assert time.monotonic() - began < 30
        found = filler.finish()
    assert isinstance(found, Behind)
    assert "connection refused" in found.reason and "secret" not in found.reason
    assert found.done == 0


def test_the_end_is_waited_for_no_longer_than_it_is_told(begun: tuple[Plan, Ledger]) -> None:
    plan, ledger = begun
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Filler(plan, str(ledger.store.local), uri) as filler:
            began = time.monotonic()
            found = filler.finish(seconds=1.0)
            assert time.monotonic() - began < 1.0 + module.LAST_SECONDS + 10
    assert isinstance(found, Behind) and "longer than 1 s" in found.reason
    assert multiprocessing.active_children() == []


def test_a_slow_store_is_behind_by_what_it_says_and_then_filled(
    begun: tuple[Plan, Ledger], tmp_path: Path
) -> None:
    plan, ledger = begun
    told: list[tuple[int, int]] = []
    with Store(tmp_path / "artifacts", seconds=0.2) as store:
        with Filler(plan, str(ledger.store.local), store.url) as filler:
            filler.changed()
            until = time.monotonic() + 60
            while time.monotonic() < until and len(store.runs) < 2:
                time.sleep(0.05)
            found = filler.finish(0.8, lambda done, total: told.append((done, total)))
        assert isinstance(found, Behind), found
        # One run each of the study and of two cells, and those of the two trials that ended.
        assert 0 < found.done < found.total == 5
        assert told and all(done <= found.done for done, _ in told)
        store.seconds = 0.0
        sync(collect(plan, ledger), ledger, store.url)
        again = sync(collect(plan, ledger), ledger, store.url)
        assert (again.created, again.updated, again.unchanged) == (0, 0, 5)
        assert len(store.runs) == 5


def test_a_run_that_was_made_but_not_answered_is_not_made_again(
    begun: tuple[Plan, Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger = begun
    monkeypatch.setitem(door.QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with Store(tmp_path / "artifacts") as store:
        store.late["create"] = 2.0
        with pytest.raises(TrackingUnavailable, match="no answer in time"):
            sync(collect(plan, ledger), ledger, store.url)
        assert store.calls["runs/create"] == 1
        store.late.clear()
        summary = sync(collect(plan, ledger), ledger, store.url)
        assert (summary.created, summary.updated) == (4, 1)
        assert len(store.runs) == 5


def test_what_breaks_in_the_process_is_told_at_the_end(begun: tuple[Plan, Ledger]) -> None:
    plan, ledger = begun
    lost = ledger.store.local / "trials" / next(plan.repeat()).trial_id / "evaluations"
    lost.rename(lost.with_name("elsewhere"))
    with Filler(plan, str(ledger.store.local), None) as filler:
        filler.changed()
        found = filler.finish()
    assert isinstance(found, Behind) and "has lost its scores" in found.reason


def test_a_run_folder_that_is_away_is_waited_for_like_a_server(
    begun: tuple[Plan, Ledger], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lost(*_: object) -> None:
        raise StoreUnreachable("s3://bucket/runs cannot be reached: timeout")

    plan, ledger = begun
    monkeypatch.setattr("ablate.learn.results.collect", lost)
    found = module._pass(plan, str(ledger.store.local), f"sqlite:///{tmp_path}/db", [0, 0], True)
    assert found == "s3://bucket/runs cannot be reached: timeout"


def test_a_remote_run_folder_without_a_server_is_left_to_track(begun: tuple[Plan, Ledger]) -> None:
    with Filler(begun[0], "mock:///bucket/runs", None) as filler:
        filler.changed()
        found = filler.finish()
    assert isinstance(found, Behind) and "--tracking-uri" in found.reason
