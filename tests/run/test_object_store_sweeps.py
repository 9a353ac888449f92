"""Whole sweeps whose run folder is on an S3 server: shared, killed, cut off, and the same result.

python -m pytest -m cluster tests/run/test_object_store_sweeps.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablate.cli import CLUSTER_CANNOT, DONE
from ablate.run.lease import CLAIMS, DRIVERS
from ablate.run.ledger import Ledger
from ablate.run.store import TEMPORARY
from tests.run.s3_server import Line, at
from tests.run.test_execution import findings, plan_of, written

pytestmark = pytest.mark.cluster

SECONDS = 400
"""More than any of these sweeps takes."""


def ablate(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ablate.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )


def said(*words: str, cwd: Path) -> str:
    """What a command that ends well says."""
    process = ablate(*words, cwd=cwd)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == DONE, out + err
    assert "Traceback" not in err
    return out


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what comes to hold while the process runs."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def attempts(ledger: Ledger, state: str = "finished") -> dict[str, int]:
    return {r.trial_id: r.attempts for r in ledger.records() if r.state == state}


def once(study: Path, ledger: Ledger) -> dict[str, int]:
    """The attempts that the study takes when nothing is repeated."""
    chosen = ledger.study("machinery").openings()[0]["trials"]
    assert chosen
    # A chosen trial of the first seed comes back for its test scores.
    first = {trial.trial_id for trial in plan_of(study).choose()}
    return {
        r.trial_id: 1 + (r.trial_id in chosen and r.trial_id in first) for r in ledger.records()
    }


def left_behind(ledger: Ledger) -> list[str]:
    """What only belongs in a run folder while a driver is at it."""
    store = ledger.store
    found = [
        f"{place}/{n}" for place in (CLAIMS, DRIVERS, TEMPORARY) for n in store.children(place)
    ]
    trials = [f"trials/{trial}/resume" for trial in store.children("trials")]
    return found + [path for path in trials if store.exists(path)]


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_collection: str, tiny_backbone: str
) -> Path:
    return written(tmp_path_factory.mktemp("study"), tiny_collection, tiny_backbone)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, study: Path) -> Path:
    """The run folder, on local disk, of the same sweep."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said("run", str(study), cwd=folder)
    return folder / "runs"


@pytest.fixture
def line(
    s3_port: int, s3_keys: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Line]:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    with Line(s3_port) as made:
        yield made


@pytest.fixture
def ledger(s3_port: int, line: Line, request: pytest.FixtureRequest) -> Ledger:
    """A ledger of its own for each test, as this process reads it: past the line."""
    bucket = "sweeps-" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-40:].strip("-")
    made = Ledger(f"s3://{bucket}/runs?{at(s3_port)}")
    made.store.files.create_dir(bucket)
    return made


@pytest.fixture
def runs(ledger: Ledger, line: Line) -> str:
    """The same run folder as the commands name it: over the line."""
    return f"{ledger.store.uri.partition('?')[0]}?{at(line.port)}"


def test_a_sweep_ends_as_on_a_local_disk_and_the_commands_work_from_it(
    study: Path, undisturbed: Path, ledger: Ledger, runs: str, tmp_path: Path
) -> None:
    said("run", str(study), "--runs", runs, cwd=tmp_path)
    assert findings(ledger.store.uri) == findings(undisturbed)
    same_files(Ledger(undisturbed), ledger, tmp_path)
    assert attempts(ledger) == once(study, ledger) == attempts(Ledger(undisturbed))
    assert left_behind(ledger) == []

    rows = json.loads(said("status", "machinery", "--runs", runs, "--json", cwd=tmp_path))["trials"]
    assert len(rows) == 6 and {row["state"] for row in rows} == {"finished"}
    said("status", "machinery", "--runs", runs, cwd=tmp_path)
    said("report", str(study), "--runs", runs, cwd=tmp_path)
    assert list((tmp_path / "machinery-report").glob("*.html"))
    for where, place in (("here", str(undisturbed)), ("there", runs)):
        said("export", str(study), "--runs", place, "--out", f"{where}.csv", cwd=tmp_path)
    here, there = (pd.read_csv(tmp_path / f"{where}.csv") for where in ("here", "there"))
    assert len(here) == 6
    metrics = [name for name in here.columns if "/" in name]
    assert metrics
    pd.testing.assert_frame_equal(here[["trial_id", *metrics]], there[["trial_id", *metrics]])
    said("fetch", "machinery", "--from", runs, "--runs", "fetched", cwd=tmp_path)
    assert findings(tmp_path / "fetched") == findings(undisturbed)
    said("report", str(study), "--runs", "fetched", cwd=tmp_path)
    assert "Nothing to train" in said("run", str(study), "--runs", runs, cwd=tmp_path)


def same_files(one: Ledger, other: Ledger, tmp_path: Path) -> None:
    """Scores per query, histories and weights are the same, bit by bit."""
    records = list(one.records())
    assert records
    for record in records:
        assert one.history(record.trial_id) == other.history(record.trial_id)
        assert record.evaluated
        for label in record.evaluated:
            ids, scores = one.per_query(record.trial_id, label)
            ids_there, scores_there = other.per_query(record.trial_id, label)
            assert ids == ids_there and scores.keys() == scores_there.keys()
            for name in scores:
                np.testing.assert_array_equal(scores[name], scores_there[name])
        here, copy = one.checkpoint(record.trial_id, tmp_path / "no"), tmp_path / "checkpoint"
        there = other.checkpoint(record.trial_id, copy)
        assert here is not None and there is not None
        files = sorted(path.relative_to(here) for path in here.rglob("*.safetensors"))
        assert files
        assert all((here / file).read_bytes() == (there / file).read_bytes() for file in files)
        shutil.rmtree(copy)


def test_two_drivers_run_each_trial_once(
    study: Path, undisturbed: Path, ledger: Ledger, runs: str, tmp_path: Path
) -> None:
    drivers = [ablate("run", str(study), "--runs", runs, cwd=tmp_path) for _ in range(2)]
    for driver in drivers:
        out, err = driver.communicate(timeout=SECONDS)
        assert driver.returncode == DONE, out + err
    assert findings(ledger.store.uri) == findings(undisturbed)
    assert attempts(ledger) == once(study, ledger)
    done = ledger.study("machinery").executions()
    assert len(done) == 2 and sum(execution["trained"] for execution in done) == 8
    assert left_behind(ledger) == []


def test_a_killed_driver_is_resumed_without_repeating_what_was_finished(
    study: Path, undisturbed: Path, ledger: Ledger, runs: str, tmp_path: Path
) -> None:
    process = ablate("run", str(study), "--runs", runs, cwd=tmp_path)
    until(lambda: len(attempts(ledger)) > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = attempts(ledger)
    assert 0 < len(finished) < 6
    said("run", str(study), "--runs", runs, cwd=tmp_path)
    assert findings(ledger.store.uri) == findings(undisturbed)
    ended, expected = attempts(ledger), once(study, ledger)
    assert {trial: ended[trial] for trial in finished} == {t: expected[t] for t in finished}
    assert all(expected[trial] <= ended[trial] <= expected[trial] + 1 for trial in ended)
    assert left_behind(ledger) == []


OUTAGES: dict[str, tuple[Callable[[Ledger], bool], float | None]] = {
    "while it prepares": (
        lambda ledger: ledger.store.exists("studies/machinery/plan.json"), None,
    ),
    "at the first trial": (lambda ledger: bool(attempts(ledger, "running")), 20.0),
    "between trials": (lambda ledger: bool(attempts(ledger)), None),
    "at the baselines": (lambda ledger: len(attempts(ledger)) == 6, 20.0),
}  # fmt: skip
"""When the server goes away, and for how many seconds; None for until the driver has ended."""


@pytest.mark.parametrize("when", OUTAGES)
def test_a_server_that_is_killed_and_comes_back(
    when: str,
    study: Path,
    undisturbed: Path,
    ledger: Ledger,
    runs: str,
    line: Line,
    tmp_path: Path,
) -> None:
    moment, seconds = OUTAGES[when]
    process = ablate("run", str(study), "--runs", runs, cwd=tmp_path)
    until(lambda: moment(ledger), process)
    line.cut()
    if seconds is not None:
        time.sleep(seconds)
        line.mend()
    out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in out + err, out + err
    print(when, process.returncode, out, err, sep="\n")
    # An outage that is shorter than the patience of a sweep is waited for.
    assert process.returncode == (CLUSTER_CANNOT if seconds is None else DONE), out + err
    if seconds is None:
        assert "cannot be reached" in err and "once it answers, the same command goes on" in err
        line.mend()
    finished = attempts(ledger)
    said("run", str(study), "--runs", runs, cwd=tmp_path)
    assert findings(ledger.store.uri) == findings(undisturbed)
    ended, expected = attempts(ledger), once(study, ledger)
    assert {trial: ended[trial] for trial in finished} == {t: expected[t] for t in finished}
    assert left_behind(ledger) == []
