"""MLflow: the layout of a study, and what each of its runs holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.files import artifact_folder, default_uri
from ablate.learn.tracking.names import COLOUR, COLOURS
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.tracked import (
    DIGEST,
    PARENT,
    REVISION,
    tracked_runs,
)
from ablate.run.ledger import Ledger
from ablate.run.store import mask
from tests.learn import fake
from tests.learn.tracked import (
    FAILED,
    PRIMARY,
    REASON,
    SMALL,
    by_level,
    content,
    files_of,
    filled,
    runs_of,
)

pytest.importorskip("mlflow")


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


def test_stopped_trials_are_not_failed_ones(tmp_path: Path, names: Callable[[], str]) -> None:
    plan, ledger = filled(tmp_path, names())
    for record in list(ledger.records()):
        if record.spec["loss.temperature"] == 0.02:
            ledger.write(replace(record, state="stopped", reason="asha", metrics={}, evaluated={}))
    runs = {run.name: run for run in tracked_runs(collect(plan, ledger), {})}
    assert runs[FAILED].status == runs[f"{FAILED} s1"].status == "KILLED"
    assert runs["02 joint_lh 0.1"].status == "FINISHED"


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
        ("s3://key:sec/ret@bucket/a", "s3://***@bucket/a"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("http://127.0.0.1:5000/a@b", "http://127.0.0.1:5000/a@b"),
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
