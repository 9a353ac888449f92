"""Why a trial ended without a result: in one line, and whether to try again would help."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from trainables.errors import InvalidInput

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "low on memory")
_PEER_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "tcpstore")
_SETTINGS = ("optim.chunk_size", "optim.batch_size", "encoder.passage_length")


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
    if type(error).__name__ == "StoreUnreachable":
        return False
    text = str(error).lower()
    return not (isinstance(error, RuntimeError) and any(words in text for words in _PEER_LOST))


def reason_of(error: BaseException, spec: Mapping[str, Any]) -> str:
    """One line that says why a trial of `spec` failed, with what would help where that is known."""
    if is_out_of_memory(error):
        return out_of_memory(spec)
    if isinstance(error, InvalidInput):
        return "; ".join(str(problem) for problem in error.problems)
    name = type(error).__name__
    first = next(iter(str(error).splitlines()), "")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk of {error.filename or 'the run folder'}"
    return first if name == "TrainingFailed" else f"{name}: {first}"


def out_of_memory(spec: Mapping[str, Any]) -> str:
    """The reason of a trial that ran out of memory: the settings that decide, as they are."""
    chunk, batch, length = (spec.get(key) for key in _SETTINGS)
    smaller = "set optim.chunk_size" if chunk is None else f"lower optim.chunk_size ({chunk})"
    return (
        f"out of memory; {smaller}, which changes no result, or lower optim.batch_size ({batch}) "
        f"or encoder.passage_length ({length})"
    )
