"""Between executions: how a study stands, what failed and why, what can go."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from filelock import FileLock

from ablate.cli import WRONG_INPUT
from ablate.cli.commands import plan_of
from ablate.cli.upkeep import _again
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study, narrow
from ablate.plan.written import write_study
from ablate.run.lease import CLAIMS, DRIVERS, Leases
from ablate.run.ledger import Ledger, Record
from ablate.run.store import TEMPORARY
from ablate.run.upkeep import find_trial, known_plan, leftovers, put_back, statuses
from tests.tiny import TWO_LOSSES
from trainables.errors import InvalidInput
from trainables.scratch import host


def ablate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def ledger(tmp_path: Path, tiny_collection: str, tiny_backbone: str) -> Ledger:
    """A run folder with one trial finished, one failed, one interrupted, one still planned."""
    text = TWO_LOSSES.format(train=tiny_collection, test=tiny_collection, backbone=tiny_backbone)
    (tmp_path / "standing.yaml").write_text(text, encoding="utf-8")
    plan = make_plan(load_study(str(tmp_path / "standing.yaml")))
    ledger = Ledger(tmp_path / "runs")
    folder = ledger.study("standing")
    folder.write("plan.json", plan.to_json())
    folder.write("study.yaml", write_study(plan.study))
    folder.write("choices.json", {cell.name: 0 for cell in plan.cells})
    done, failed, stopped, _ = plan.trials()
    for trial, state in ((done, "finished"), (failed, "failed"), (stopped, "running")):
        record = Record(trial.trial_id, trial.flat, {}, started=1.0, finished=11.0, attempts=1)
        ledger.write(replace(record, state=state, seconds={"train": 8.0}))  # type: ignore[arg-type]
    broken = ledger.record(failed.trial_id)
    assert broken is not None
    reason = "the loss is not finite at step 3"
    ledger.write(replace(broken, reason=reason, own_fault=True, log_tail=("line 1", "line 2")))
    return ledger


def ids(ledger: Ledger) -> dict[str, str]:
    found = statuses(known_plan(ledger, "standing"), ledger)
    return {each.state: each.trial.trial_id for each in found}


def test_a_trial_that_no_living_driver_runs_is_interrupted(ledger: Ledger) -> None:
    states = ids(ledger)
    assert set(states) == {"finished", "failed", "interrupted", "planned"}
    with Leases(ledger.store) as leases:
        assert leases.claim(states["interrupted"])
        assert set(ids(ledger)) == {"finished", "failed", "running", "planned"}


def test_status_says_states_reasons_and_the_time_left(ledger: Ledger, tmp_path: Path) -> None:
    done = ablate("status", "standing", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert "1 finished, 1 failed, 1 interrupted, 1 planned, of 4; about " in first
    assert "the loss is not finite at step 3" in done.stdout
    rows = json.loads(ablate("status", "standing.yaml", "--json", cwd=tmp_path).stdout)["trials"]
    assert {row["state"]: row["attempts"] for row in rows}["failed"] == 1 and len(rows) == 4


def test_logs_show_the_last_lines_and_the_files(ledger: Ledger, tmp_path: Path) -> None:
    failed = ids(ledger)["failed"]
    done = ablate("logs", failed[:8], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (failed, "the loss is not finite", "line 2", f"{tmp_path}/runs/trials/{failed}/"):
        assert said in done.stdout


def test_retry_puts_back_only_what_failed(ledger: Ledger, tmp_path: Path) -> None:
    states = ids(ledger)
    wrong = ablate("retry", "standing", states["finished"], cwd=tmp_path)
    assert wrong.returncode == WRONG_INPUT and "did not fail" in wrong.stderr
    done = ablate("retry", "standing", "--failed", cwd=tmp_path)
    assert done.returncode == 0 and "ablate run standing.yaml --runs runs" in done.stdout
    record = ledger.record(states["failed"])
    assert record is not None and record.attempts == 1
    assert (record.state, record.reason, record.own_fault) == ("planned", None, False)


@pytest.mark.parametrize("narrowed", [{}, {"loss.name": "lse_pair"}])
def test_what_retry_prints_plans_the_study_as_it_was_run(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrowed: dict[str, str]
) -> None:
    """A study that was changed by --set is neither its file nor the preset of its name."""
    monkeypatch.chdir(tmp_path)
    study = narrow(load_study("standing.yaml", {"optim.steps": "7"}), narrowed)
    plan, folder = make_plan(study), ledger.study("standing")
    folder.write("plan.json", plan.to_json())
    folder.write("study.yaml", write_study(plan.study))
    said = _again(known_plan(ledger, "standing"), ledger, "standing", "runs")
    copy, _, run = said.partition(" && ")
    assert subprocess.run(copy, shell=True, check=False).returncode == 0
    words = shlex.split(run)
    source, options = words[2], words[3:]
    only = options[options.index("--only") + 1 :][:1] if "--only" in options else []
    assert words[:2] == ["ablate", "run"] and options[-2:] == ["--runs", "runs"]
    again = plan_of(source, None, only)
    assert again.study.name == "standing"
    assert [t.trial_id for t in again.trials()] == [t.trial_id for t in plan.trials()]


def test_retry_says_what_a_run_folder_elsewhere_needs(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "standing.yaml").unlink()
    plan = known_plan(ledger, "standing")
    elsewhere = SimpleNamespace(
        store=SimpleNamespace(shown="s3://b/r"),
        study=lambda name: SimpleNamespace(
            local=None, path=f"studies/{name}", read=lambda _: plan.to_json()
        ),
    )
    said = _again(plan, cast(Ledger, elsewhere), "standing", "s3://b/r")
    assert said.startswith("copy s3://b/r/studies/standing/study.yaml to standing.yaml, then ")
    assert said.endswith("ablate run standing.yaml --runs s3://b/r")


def test_mistakes_name_the_nearest(ledger: Ledger, tmp_path: Path) -> None:
    failed = ids(ledger)["failed"]
    for words in (["status", "standng"], ["retry", "standng", "--failed"]):
        done = ablate(*words, cwd=tmp_path)
        assert done.returncode == WRONG_INPUT and "did you mean 'standing'" in done.stderr
    wrong = failed[:-1] + ("0" if failed[-1] != "0" else "1")
    done = ablate("logs", wrong, cwd=tmp_path)
    assert done.returncode == WRONG_INPUT and f"did you mean '{failed}'" in done.stderr
    done = ablate("retry", "standing", cwd=tmp_path)
    assert done.returncode == WRONG_INPUT and "--stopped or both, or the ids" in done.stderr
    done = ablate("gc", "--runs", "nowhere", cwd=tmp_path)
    assert done.returncode == WRONG_INPUT and not (tmp_path / "nowhere").exists()
    with pytest.raises(InvalidInput, match="begins the id of 3 trials"):
        find_trial(ledger, "")


def test_a_trial_that_another_driver_runs_is_not_put_back(ledger: Ledger) -> None:
    record = find_trial(ledger, ids(ledger)["failed"])
    with Leases(ledger.store) as leases:
        assert leases.claim(record.trial_id)
        with pytest.raises(InvalidInput, match="is running"):
            put_back(ledger, [record])
    assert ledger.record(record.trial_id) == record


def test_gc_takes_what_nothing_needs_and_nothing_else(ledger: Ledger, tmp_path: Path) -> None:
    states, runs = ids(ledger), tmp_path / "runs"
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = host()
    making = runs / "cache" / "tokens" / ".making"
    (runs / "cache" / "tokens" / ".locks").mkdir(parents=True)
    garbage = [
        runs / ".tmp" / f"{here}.{gone.pid}.abc" / "record.json",
        runs / CLAIMS / f"t@{here}.{gone.pid}.abc",
        runs / DRIVERS / f"{here}.{gone.pid}.abc",
        runs / "trials" / states["finished"] / "resume" / "state.json",
        runs / ".train" / states["finished"] / "checkpoint",
        making / "dead.xyz" / "part",
    ]
    needed = [
        runs / ".tmp" / f"{here}.{os.getpid()}.abc" / "record.json",
        runs / "trials" / states["finished"] / "checkpoint" / "model.safetensors",
        runs / "trials" / states["interrupted"] / "resume" / "state.json",
        runs / ".train" / states["interrupted"] / "checkpoint",
        runs / "cache" / "tokens" / "0123" / "key.json",
        making / "alive.xyz" / "part",
    ]
    for file in (*garbage, *needed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
    with FileLock(runs / "cache" / "tokens" / ".locks" / "alive"):
        done = ablate("gc", "--dry-run", cwd=tmp_path)
        assert "Would free 4 kB." in done.stdout, done.stderr
        assert all(file.exists() for file in (*garbage, *needed))
        done = ablate("gc", cwd=tmp_path)
        assert done.returncode == 0 and "Freed 4 kB." in done.stdout, done.stderr
        assert list(leftovers(ledger)) == []
    assert [file for file in garbage if file.exists()] == []
    assert [file for file in needed if not file.exists()] == []


def test_gc_spares_encoders_until_told(ledger: Ledger, tmp_path: Path) -> None:
    states = ids(ledger)
    for state in ("finished", "failed"):
        folder = tmp_path / "runs" / "trials" / states[state] / "checkpoint"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x")
    ledger.study("standing").open_test({"trials": [states["finished"]]}, "0000")
    assert list(leftovers(ledger)) == []
    (only,) = leftovers(ledger, unchosen=True)
    assert only.path == f"trials/{states['failed']}/checkpoint"


def left_a_week_ago(runs: Path, name: str) -> str:
    """Its place below the run folder."""
    folder = runs / TEMPORARY / name
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(b"x")
    when = time.time() - 7 * 86_400
    for path in (folder / "part", folder):
        os.utime(path, (when, when))
    return f"{TEMPORARY}/{name}"


def test_gc_spares_the_living_of_this_host_however_old(ledger: Ledger, tmp_path: Path) -> None:
    """A trial's scratch is as old as the trial; `ablate train` has no driver that tells of it."""
    runs = tmp_path / "runs"
    left_a_week_ago(runs, f"{host()}.{os.getpid()}.abc")
    assert list(leftovers(ledger)) == []
    done = ablate("gc", cwd=tmp_path)
    assert done.returncode == 0 and len(list((runs / TEMPORARY).iterdir())) == 1, done.stderr


def test_gc_spares_scratch_of_other_hosts_while_any_driver_lives(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Trials run on nodes that no driver is named after."""
    runs = tmp_path / "runs"
    old = left_a_week_ago(runs, "another-host.1.abc")
    (runs / TEMPORARY / "another-host.1.new").mkdir()
    for driver in ("driver-host.1.abcd", f"{host()}.{os.getpid()}.abcd"):
        ledger.store.write(f"{DRIVERS}/{driver}", b"")
        assert list(leftovers(ledger)) == []
        ledger.store.delete(f"{DRIVERS}/{driver}")
        assert [left.path for left in leftovers(ledger)] == [old]
