"""How long nodes took to come and to go, read from the rows of nodes.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ablate.learn.report.document import duration, plural

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Ramps:
    """Delays in seconds, as fine as the rows; each list in the order of events.

    `came`: from when trials began to wait to the arrival of a node. `replaced`: from the loss of a
    node to the arrival of the next. `went`: from the last end of a trial to an idle node's going.
    `lost`: nodes that went while trials ran on all of them or waited.
    """

    came: tuple[float, ...]
    replaced: tuple[float, ...]
    went: tuple[float, ...]
    lost: int


def ramps(executions: Sequence[Sequence[Sample]]) -> Ramps:
    """The delays of a study's executions, each of which is its rows, oldest first."""
    came: list[float] = []
    replaced: list[float] = []
    went: list[float] = []
    lost = 0
    for rows in executions:
        waiting = rows[0]["time"]
        missing: list[float] = []
        freed: float | None = None
        for row, after in pairwise(rows):
            now, change = after["time"], after["nodes"] - row["nodes"]
            # A lost node's trial counts as running until it begins again.
            if after["running"] < row["running"] and not after["pending"]:
                freed = now
            if not row["pending"] and after["pending"]:
                waiting = now
            for _ in range(change):
                if missing:
                    replaced.append(now - missing.pop(0))
                else:
                    came.append(now - waiting)
            if change < 0 and freed is not None:
                went += [now - freed] * -change
            elif change < 0:
                lost -= change
                missing += [now] * -change
            if change:
                freed = None
    return Ramps(tuple(came), tuple(replaced), tuple(went), lost)


def told(found: Ramps) -> str:
    """The delays as sentences; empty when no node came or went."""
    parts = []
    if found.came:
        many = len(found.came)
        most = f", at most {duration(max(found.came))} for one of {many}" if many > 1 else ""
        parts.append(f"Trials waited {duration(found.came[0])} for the first new node{most}.")
    if found.lost:
        after = f"; the next came {_range(found.replaced)} later" if found.replaced else ""
        parts.append(f"{plural(found.lost, 'node')} went while there was work{after}.")
    if found.went:
        parts.append(f"Idle nodes went {_range(found.went)} after a trial had ended.")
    return " ".join(parts)


def _range(seconds: Sequence[float]) -> str:
    low, high = duration(min(seconds)), duration(max(seconds))
    return low if low == high else f"{low} to {high}"
