"""Folders on a node's own disk that are of use to one process only."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import uuid
from pathlib import Path

_PREFIX = "ablate-"


_FIRST_NAMESPACE = "pid:[4026531836]"
"""Linux's name of the namespace in which all processes of a machine are seen."""


@functools.lru_cache
def host() -> str:
    """The name of those who see each other's processes: this host, or this container of it.

    Containers may share the host's name and each have a process 1.
    """
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
        if namespace != _FIRST_NAMESPACE:
            return f"{socket.gethostname()}-{namespace.strip('pid:[]')}"
    return socket.gethostname()


def own_name() -> str:
    """A name HOST.PID.ANYTHING that no other folder has, by which `process_lives` can tell."""
    return f"{host()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"


def fresh() -> Path:
    """A path in the system's folder for temporary files, not yet created.

    Its maker removes it; when that process is killed, the next `sweep` on this host does.
    """
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{own_name()}"


def sweep() -> None:
    """Remove what `fresh` gave to processes of this host that no longer live."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{host()}.*.*"):
        if not process_lives(folder.name.removeprefix(_PREFIX)):
            shutil.rmtree(folder, ignore_errors=True)


def process_lives(name: str) -> bool:
    """Whether the process of a name HOST.PID.ANYTHING lives; True for those of other hosts."""
    place, pid, _ = name.rsplit(".", 2)
    if place != host():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
