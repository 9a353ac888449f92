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
    """Delays in seconds, as fine as the rows; each in the order of events.

    `came`: from when trials began to wait to the arrival of a node. `replaced`: from the loss of a
    node to the arrival of the next. `went`: from the end of a trial, with none waiting, to the
    going of a node; the earliest such end for the first node that goes. `lost`: nodes that went
    though no trial had ended.
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
        waiting: float = rows[0]["time"]
        missing: list[float] = []
        freed: list[float] = []
        for row, after in pairwise(rows):
            now, change = after["time"], after["nodes"] - row["nodes"]
            if after["pending"]:
                freed = []
                waiting = waiting if row["pending"] else now
            else:
                freed += [now] * (row["running"] - after["running"])
            for _ in range(change):
                if missing:
                    replaced.append(now - missing.pop(0))
                elif row["pending"]:
                    # Others come for the baselines, which no row counts.
                    came.append(now - waiting)
            for _ in range(-change):
                if freed:
                    went.append(now - freed.pop(0))
                else:
                    lost, missing = lost + 1, [*missing, now]
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
        parts.append(f"Idle nodes went {_range(found.went)} after their trial had ended.")
    return " ".join(parts)


def _range(seconds: Sequence[float]) -> str:
    low, high = duration(min(seconds)), duration(max(seconds))
    return low if low == high else f"{low} to {high}"
