"""The memory of a process that runs one trial after another."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While the block runs, no garbage is looked for: it imports or builds what will stay."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def give_memory_back() -> None:
    """Return what a trial freed to the system: glibc keeps a quarter of a gigabyte otherwise,
    and the process that ran it waits for the next trial."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def settle() -> None:
    """From the first call on, take it that what the process holds by then will stay: half a
    million objects, of imports above all, that a collection between two trials need not visit."""
    if not gc.get_freeze_count():
        gc.freeze()
