"""Scratch of a process goes when that process is gone; CPUs are those that may be used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is in a pid namespace of its own."""
    monkeypatch.setattr(Path, "readlink", lambda path: Path("pid:[4026532999]"))
    scratch.host.cache_clear()
    yield
    scratch.host.cache_clear()


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.usefixtures("container")
def test_in_a_container_only_its_own_processes_are_judged() -> None:
    """Containers may share the host's name, and their processes numbers."""
    plain, ended = socket.gethostname(), gone()
    assert scratch.host() == f"{plain}-4026532999"
    assert scratch.process_lives(f"{plain}.{ended}.abc")
    assert scratch.process_lives(f"{plain}-4026532111.{ended}.abc")
    assert not scratch.process_lives(f"{scratch.host()}.{ended}.abc")
    assert scratch.own_name().startswith(f"{plain}-4026532999.{os.getpid()}.")
    assert scratch.process_lives(scratch.own_name())


@pytest.mark.usefixtures("container")
def test_scratch_of_another_container_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places, ended = [socket.gethostname(), scratch.host()], gone()
    for place in places:
        (tmp_path / f"ablate-{place}.{ended}.abc").mkdir()
    scratch.sweep()
    assert [path.name for path in tmp_path.iterdir()] == [f"ablate-{places[0]}.{ended}.abc"]


@pytest.mark.parametrize("namespace", ["pid:[4026531836]", None], ids=["the first", "unknown"])
def test_outside_containers_a_host_has_its_plain_name(
    monkeypatch: pytest.MonkeyPatch, namespace: str | None
) -> None:
    def readlink(path: Path) -> Path:
        if namespace is None:
            raise FileNotFoundError(path)
        return Path(namespace)

    monkeypatch.setattr(Path, "readlink", readlink)
    scratch.host.cache_clear()
    try:
        assert scratch.host() == socket.gethostname()
    finally:
        scratch.host.cache_clear()


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
