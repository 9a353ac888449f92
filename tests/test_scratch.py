"""Scratch of a process goes when that process is gone; CPUs are those that may be used."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainables import cpus, scratch


def test_scratch_outlives_only_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "from trainables import scratch; path = scratch.fresh(); path.mkdir(); print(path)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert child.stdout is not None
    theirs, mine = Path(child.stdout.readline().strip()), scratch.fresh()
    (mine / "inner").mkdir(parents=True)
    (tmp_path / "ablate-another-host.1.x").mkdir()
    scratch.sweep()
    assert len(list(tmp_path.iterdir())) == 3
    child.kill()
    child.communicate()
    scratch.sweep()
    assert not theirs.exists() and mine.exists() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_a_containers_quota_is_read(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus._quota(tmp_path) == quota


def test_usable_cpus_are_within_both_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = cpus.usable()
    monkeypatch.setattr(cpus, "_quota", lambda: 0.5)
    assert cpus.usable() == 1 <= cores
