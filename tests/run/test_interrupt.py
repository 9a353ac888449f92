"""Ctrl-C at a running study: once it stops in order and says how to go on, twice at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate.cli import INTERRUPTED
from ablate.run.lease import CLAIMS, DRIVERS
from ablate.run.ledger import Ledger
from ablate.run.processes import descendants

STUDY = """
question: Does it stop?
fixed:
  data.train: {collection}
  encoder.backbone: {backbone}
  loss.temperature: 0.1
  optim.lr: 1.0e-3
  optim.batch_size: 6
  optim.steps: 100000
compare: {{loss.name: [joint_lh, lse_pair]}}
repeat: {{seed: [0]}}
evaluate: [{collection}/test]
"""


def living(pids: dict[int, str]) -> dict[int, str]:
    """Those that still run; what only waits to be reaped does not."""
    states = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return {pid: pids[pid] for pid, state in states.items() if state != "Z"}


def kept(ledger: Ledger) -> list[str]:
    """Trials with a training checkpoint."""
    trials = ledger.store.children("trials")
    return [trial for trial in trials if ledger.store.exists(f"trials/{trial}/resume")]


@pytest.mark.cluster
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(times: int, tmp_path: Path, tiny_collection: str, tiny_backbone: str) -> None:
    text = STUDY.format(collection=tiny_collection, backbone=tiny_backbone)
    (tmp_path / "endless.yaml").write_text(text, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "ablate.cli", "run", "endless.yaml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    ledger = Ledger(tmp_path / "runs")
    deadline = time.monotonic() + 120
    while not kept(ledger):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    started = descendants(process.pid)
    assert len(started) > 3
    # A terminal sends the signal to every process of the foreground group.
    os.killpg(process.pid, signal.SIGINT)
    if times == 2:
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said and "Ctrl-C again" in said
    deadline = time.monotonic() + 30
    while living(started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert living(started) == {}
    assert {record.state for record in ledger.records()} == {"running"}
    assert kept(ledger)
    if times == 1:
        assert "to go on: ablate run endless.yaml" in said
        assert list(ledger.store.children(CLAIMS)) == list(ledger.store.children(DRIVERS)) == []
