"""Commands that read a run folder, asked for another plan than the one that it ran."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study, narrow
from ablate.run.ledger import Ledger, Record
from trainables.errors import InvalidInput

COMMANDS = {"report": [], "track": [], "compare": [], "export": ["--out", "trials.csv"]}


def hold(root: Path, sets: dict[str, str], only: dict[str, str] | None = None) -> None:
    """Leave what `ablate run quickstart` with these settings leaves, one trial begun."""
    study = load_study("quickstart", sets)
    plan, ledger = make_plan(narrow(study, only) if only else study), Ledger(root)
    folder = ledger.study("quickstart")
    folder.write("plan.json", plan.to_json())
    folder.write("report.html", "the report of the run")
    trial = next(plan.trials())
    ledger.write(Record(trial.trial_id, dict(trial.flat), dict(trial.fingerprints), "failed"))


def asked(root: Path, *words: str) -> BaseException | None:
    command, *rest = words
    line = [command, "quickstart", "--runs", str(root), *rest]
    return CliRunner().invoke(app, line).exception


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("run", [{}, {"optim.steps": "31"}])
def test_another_plan_is_refused_and_the_report_stays(
    tmp_path: Path, command: str, run: dict[str, str]
) -> None:
    hold(tmp_path, run)
    said = asked(tmp_path, command, *COMMANDS[command], "--set", "optim.steps=30")
    assert isinstance(said, InvalidInput)
    first, *rest = map(str, said.problems)
    assert "none of the 20 trials" in first and "holds 1 of" in first
    assert len(rest) == 1 and rest[0].startswith("optim.steps: was ") and "(got 30)" in rest[0]
    held = Ledger(tmp_path).study("quickstart").local / "report.html"
    assert held.read_text() == "the report of the run"


def test_without_the_settings_of_the_run_nothing_is_replaced_either(tmp_path: Path) -> None:
    hold(tmp_path, {"optim.steps": "30"})
    said = asked(tmp_path, "report")
    assert isinstance(said, InvalidInput) and "was 30 in the run" in str(said)


def test_a_narrowed_run_is_reported_by_the_whole_study(tmp_path: Path) -> None:
    hold(tmp_path, {}, {"loss.name": "lse_pair"})
    assert asked(tmp_path, "report") is None


def test_a_study_that_was_never_run_is_not_exported(tmp_path: Path) -> None:
    said = asked(tmp_path, "export", "--out", "trials.csv")
    assert isinstance(said, InvalidInput) and "has not been run" in str(said)
    assert not (tmp_path / "trials.csv").exists()
