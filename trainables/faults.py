"""Why a trial ended without a result: in one line, and whether to try again would help."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from trainables.errors import InvalidInput

_NO_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "low on memory",
    "bad_alloc", "cublas_status_alloc_failed",
)  # fmt: skip
_PEER_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "tcpstore")
_DEVICE_LOST = (
    "uncorrectable ecc", "busy or unavailable", "fallen off the bus", "no cuda-capable device",
)  # fmt: skip
_DISK = ("no space left on device", "disk quota exceeded", "file too large", "failed writing file")
"""What libraries say in errors of their own when a file cannot be written."""
_LOST_TYPES = ("StoreUnreachable", "DistBackendError", "DistNetworkError", "DistStoreError")
"""Errors of a network or a store, named rather than imported: their modules are heavy, or not for
this one to know."""
_SETTINGS = ("optim.chunk_size", "optim.batch_size", "encoder.passage_length")


class Lost(RuntimeError):
    """Machines failed a trial more often than it is started again; the message says how."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, on the machine or on its accelerator."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(words in str(error).lower() for words in _NO_MEMORY)


def is_own(error: BaseException) -> bool:
    """Whether the trial itself is at fault, so that the same trial would end so again.

    The others are faults of the machines: files, network, a process or node that was lost.
    """
    if isinstance(error, InvalidInput) or is_out_of_memory(error):
        return True
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("ray", "pyarrow"):
        return False
    if isinstance(error, Lost) or type(error).__name__ in _LOST_TYPES:
        return False
    text = str(error).lower()
    if any(words in text for words in _DISK):
        return False
    machines = (*_PEER_LOST, *_DEVICE_LOST)
    return not (isinstance(error, RuntimeError) and any(words in text for words in machines))


def reason_of(error: BaseException, spec: Mapping[str, Any]) -> str:
    """One line that says why a trial of `spec` failed, with what would help where that is known."""
    if is_out_of_memory(error):
        return out_of_memory(spec)
    if isinstance(error, InvalidInput):
        return "; ".join(str(problem) for problem in error.problems)
    first = first_line(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk of {error.filename or 'the run folder'}"
    name = type(error).__name__
    return first if name in ("TrainingFailed", "Lost") else f"{name}: {first}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; empty when it says nothing."""
    return next(iter(str(error).splitlines()), "")


def out_of_memory(spec: Mapping[str, Any]) -> str:
    """The reason of a trial that ran out of memory: the settings that decide, as they are."""
    chunk, batch, length = (spec.get(key) for key in _SETTINGS)
    others = f"lower optim.batch_size ({batch}) or encoder.passage_length ({length})"
    if chunk == 1:
        return f"out of memory; {others}"
    smaller = "set optim.chunk_size" if chunk is None else f"lower optim.chunk_size ({chunk})"
    return f"out of memory; {smaller}, which changes no result, or {others}"
