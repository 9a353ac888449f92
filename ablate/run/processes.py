"""The processes below this one, where the system shows them as files (Linux); its own threads."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from trainables.cpus import usable
from trainables.errors import InvalidInput, Problem

THREADS = "OMP_NUM_THREADS"
"""Environment variable that limits the CPU threads of one process."""


def threads() -> int:
    """CPU threads of work in this very process: OMP_NUM_THREADS if set, else one for each CPU
    that the process may use. Raises InvalidInput when the variable is no whole number from 1 on.
    """
    given = os.environ.get(THREADS, "").strip()
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise InvalidInput([Problem(THREADS, "must be a whole number of at least 1", given)])
        return int(given)
    return usable()


def descendants(of: int) -> dict[int, str]:
    """Living processes below one, in whatever session -> their command; empty without /proc."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                commands[int(folder.name)] = command.decode(errors="replace").strip()
    found, more = {of}, {of}
    while more:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
    return {pid: commands[pid] for pid in found - {of}}


def end_descendants() -> None:
    """Kill every process below this one: Ray's agents outlive it by half a minute otherwise."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
