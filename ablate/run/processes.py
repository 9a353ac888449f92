"""The processes below this one, where the system shows them as files (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


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
