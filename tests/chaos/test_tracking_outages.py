"""Real sweeps whose MLflow server is killed over and over, answers late, or never: nothing is lost.

    python -m pytest -m cluster tests/chaos/test_tracking_outages.py -s

The store is SQLite, or the one that ABLATE_TEST_STORE names (such as postgresql://…).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate.run.ledger import Ledger
from tests.chaos.verdict import tracked, untracked
from tests.learn.browser import Server
from tests.learn.slow import Door

pytest.importorskip("mlflow")

STUDY = """
question: Does MLflow end up with everything?
fixed:
  data.train: {collection}
  data.machine_labels: weak
  data.human_fraction: 0.5
  encoder.backbone: {backbone}
  encoder.query_length: 8
  encoder.passage_length: 16
  optim.batch_size: 6
  optim.steps: 40
  optim.lr: 1.0e-3
compare:
  loss.name: [joint_lh, lse_pair, sum_marg_lh, rand1_lh]
  loss.temperature: [0.05, 0.1, 0.3]
repeat: {{seed: [0, 1, 2]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
resources: {{max_concurrent_trials: 2}}
"""
CELLS, TRIALS = 12, 36
SMALL = STUDY.replace("[0.05, 0.1, 0.3]", "[0.05]")
SMALL_CELLS, SMALL_TRIALS = 4, 12
DELAY = 2.0
"""Seconds for which a slow server's every answer is held back."""
KILLS, UP, DOWN = 4, 4.0, 4.0
"""How often the server is killed; seconds for which it answers, and for which it is away."""


def ablate(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ablate.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.cluster
def test_a_server_that_comes_and_goes(
    tmp_path: Path, tiny_collection: str, tiny_backbone: str
) -> None:
    study, runs = tmp_path / "outages.yaml", tmp_path / "runs"
    study.write_text(STUDY.format(collection=tiny_collection, backbone=tiny_backbone))
    store = os.environ.get("ABLATE_TEST_STORE", f"sqlite:///{tmp_path}/store.db")
    server = Server(store, tmp_path / "artifacts")
    server.start()
    sweep = ablate("run", str(study), "--runs", str(runs), "--tracking-uri", server.url)
    kills = 0
    try:
        while sweep.poll() is None:
            time.sleep(UP)
            if kills < KILLS and (runs / "trials").exists():
                server.kill()
                kills += 1
                time.sleep(DOWN)
                server.start()
        out, _ = sweep.communicate()
        assert sweep.returncode == 0, out
        tallies = {"after the run": tracked(server.url, Ledger(runs), "outages", CELLS)}
        for name in ("after track", "after track again"):
            track = ablate("track", str(study), "--runs", str(runs), "--tracking-uri", server.url)
            assert track.wait() == 0
            tallies[name] = tracked(server.url, Ledger(runs), "outages", CELLS)
        print(f"\n{kills} kills", *(f"{name}: {tallies[name]}" for name in tallies), sep="\n")
        print("\n".join(out.splitlines()[-4:]))
        counts = tallies["after track"]
        assert kills >= 3 and counts["expected"] == 1 + CELLS + TRIALS
        assert list(untracked(counts)) == []
        assert tallies["after track again"] == counts
    finally:
        sweep.kill()
        server.kill()


def seconds_of(ledger: Ledger) -> float:
    """From the first trial's start to the last one's end."""
    records = list(ledger.records())
    assert len(records) == SMALL_TRIALS
    assert {record.state for record in records} == {"finished"}
    started = min(record.started or 0.0 for record in records)
    return max(record.finished or 0.0 for record in records) - started


def run(study: Path, runs: Path, *words: str) -> tuple[str, float]:
    """What `ablate run` says, and how many seconds it stays after the last trial."""
    sweep = ablate("run", str(study), "--runs", str(runs), *words)
    out, _ = sweep.communicate()
    over = time.time()
    assert sweep.returncode == 0, out
    return out, over - max(record.finished or 0.0 for record in Ledger(runs).records())


def go_on(out: str) -> None:
    """Type in the command that the run says goes on."""
    assert "MLflow does not hold everything yet" in out, out
    found = re.search(r"To go on: ablate (track .+)", out)
    assert found is not None, out
    track = ablate(*shlex.split(found[1]))
    said, _ = track.communicate()
    assert track.returncode == 0, said


@pytest.mark.cluster
@pytest.mark.parametrize("answers", ["late", "never"])
def test_a_server_that_answers_late_or_never(
    answers: str, tmp_path: Path, tiny_collection: str, tiny_backbone: str
) -> None:
    study, runs = tmp_path / "outages.yaml", tmp_path / "runs"
    study.write_text(SMALL.format(collection=tiny_collection, backbone=tiny_backbone))
    server = Server(f"sqlite:///{tmp_path}/store.db", tmp_path / "artifacts")
    server.start()
    try:
        with Door(server.port if answers == "late" else None, DELAY) as door:
            out, stayed = run(study, runs, "--tracking-uri", door.url)
            behind = re.search(r"does not hold .*", out)
            spent = f"{seconds_of(Ledger(runs)):.1f} s of trials, then {stayed:.1f} s"
            print(f"\nanswers {answers}: {spent}; held back for {door.held:.0f} s; {behind}")
            door.target, door.seconds = server.port, 0.0
            if behind or answers == "never":
                go_on(out)
            counts = tracked(server.url, Ledger(runs), "outages", SMALL_CELLS)
            print(counts)
        assert counts["expected"] == 1 + SMALL_CELLS + SMALL_TRIALS
        assert list(untracked(counts)) == []
        alone = tmp_path / "alone"
        run(study, alone)
        print(f"the same without a server: {seconds_of(Ledger(alone)):.1f} s of trials")
    finally:
        server.kill()
