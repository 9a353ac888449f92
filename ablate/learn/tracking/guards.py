"""What must hold while MLflow is filled: settings of the process, and no second filler."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

LOCK_NAME = ".mlflow.lock"


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold inside the block, and are as before after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def one_at_a_time(folder: Path | None, seconds: float) -> Iterator[None]:
    """Only one process or thread at a time enters with the same local folder.

    Two at once would both create what is missing. Waits `seconds`, then raises TimeoutError. The
    lock goes with the process that holds it.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("w") as lock:
        until = time.monotonic() + seconds
        while not _locked(lock.fileno()):
            if time.monotonic() > until:
                raise TimeoutError(
                    f"another process has held {folder / LOCK_NAME} for {seconds:g} s"
                )
            time.sleep(0.1)
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
