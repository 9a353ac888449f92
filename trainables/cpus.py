"""How many CPUs this process may use, which is not how many the machine has."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable() -> int:
    """Cores that this process is allowed to run on, within the quota of its container; at least 1.

    A quota of a part of a core is rounded down, as Ray does.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, int(min(cores, _quota())))


def _quota(groups: Path = _GROUPS) -> float:
    """CPUs' worth of time that the control group grants; infinite where it sets no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (groups / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            (groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return int(quota) / int(period) if int(quota) > 0 else float("inf")
    return float("inf")
