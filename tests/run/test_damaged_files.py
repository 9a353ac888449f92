"""A damaged file of a run folder is named, with what to do; nothing else is lost for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.plan.written import write_study
from ablate.run.ledger import Ledger, Record
from trainables.errors import InvalidInput


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with three begun trials of `quickstart`."""
    monkeypatch.chdir(tmp_path)
    plan, ledger = make_plan(load_study("quickstart")), Ledger(tmp_path / "runs")
    folder = ledger.study("quickstart")
    folder.write("plan.json", plan.to_json())
    folder.write("study.yaml", write_study(plan.study))
    for trial in list(plan.trials())[:3]:
        ledger.write(Record(trial.trial_id, dict(trial.flat), dict(trial.fingerprints), "failed"))
    return tmp_path / "runs"


def said(*words: str, runs: Path) -> str:
    error = CliRunner().invoke(app, [*words, "--runs", str(runs)]).exception
    assert isinstance(error, InvalidInput), error
    return str(error)


@pytest.mark.parametrize("content", ["{", "[]", "null", "{}", "\xff"])
def test_a_damaged_record_is_named_with_the_command_that_makes_it_anew(
    runs: Path, content: str
) -> None:
    record = sorted(runs.glob("trials/*/record.json"))[1]
    record.write_text(content, encoding="latin-1")
    trial = record.parent.name
    for words in (
        ["status", "quickstart"],
        ["logs", trial],
        ["report", "quickstart"],
        ["export", "quickstart", "--out", "trials.csv"],
        ["gc"],
        ["plan", "quickstart"],
    ):
        text = said(*words, runs=runs)
        assert str(record) in text and "is damaged" in text and "`ablate run`" in text, words


def test_all_damaged_records_are_named_after_the_whole_ones(runs: Path) -> None:
    records = sorted(runs.glob("trials/*/record.json"))
    for record in records[:2]:
        record.write_text("{")
    found = []
    with pytest.raises(InvalidInput) as caught:
        for record in Ledger(runs).records():
            found.append(record.trial_id)
    assert len(caught.value.problems) == 2
    assert found == [records[2].parent.name]


def test_a_damaged_history_or_plan_is_named(runs: Path) -> None:
    trial = next(runs.glob("trials/*"))
    (trial / "history.jsonl").write_text('{"step": 1}\n{')
    assert str(trial / "history.jsonl") in said("logs", trial.name, runs=runs)
    plan = runs / "studies" / "quickstart" / "plan.json"
    plan.write_text("{")
    for command in ("status", "report"):
        text = said(command, "quickstart", runs=runs)
        assert str(plan) in text and "ablate run quickstart" in text


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for root in (file, file / "below" / "it"):
        with pytest.raises(InvalidInput, match="must be a folder") as caught:
            Ledger(root)
        (problem,) = caught.value.problems
        assert problem.key == "--runs" and problem.nearest == str(tmp_path / "runs")
    assert file.read_text() == "kept"
    Ledger(tmp_path / "not" / "yet")
