"""What a report holds, before it is HTML or Markdown: sections of text, tables and figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

from ablate.learn.report.figures import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph. `**bold**` and `` `code` `` are the only marks."""

    words: str


@dataclass(frozen=True)
class Points:
    """A list; a point may begin with a `**title**`."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """What one table cell shows, and what it is sorted by."""

    shown: str
    sort: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; `numeric` names the columns that are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    numeric: frozenset[str] = frozenset()
    folded: str = ""
    """What stands in its place until a reader opens it; Markdown leaves such a table out."""


LOST = "Failed or stopped"
"""Column of the trials that gave a cell no result."""

Block = Union[Text, Points, Code, Table, Figure]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    left_out: str = ""
    """Why there are no blocks, where a reader may miss them."""


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    question: str
    answer: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """Name and value of what a reader wants at a glance."""
    sections: tuple[Section, ...] = field(default_factory=tuple)


def value(shown: object, sort: float | None = None) -> Value:
    """A table cell; a number sorts by itself."""
    if sort is None and isinstance(shown, (int, float)) and not isinstance(shown, bool):
        sort = float(shown)
    return Value("–" if shown is None else scalar(shown), sort)


def scalar(shown: object) -> str:
    """A setting's value as YAML writes it: null, true, 0.05, text."""
    if shown is None:
        return "null"
    if isinstance(shown, bool):
        return str(shown).lower()
    return f"{shown:.10g}" if isinstance(shown, (int, float)) else str(shown)


def number(amount: float | None, digits: int = 3) -> str:
    """A metric's value, zero without a sign; a dash where there is none."""
    return "–" if amount is None else f"{round(amount, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(amount: float, digits: int = 3) -> str:
    """A difference, always with its sign."""
    return f"{amount:+.{digits}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 3) -> str:
    """A 95 % interval."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def difference(effect: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{signed(effect)} [{signed(low)}, {signed(high)}]"


def probability(p: float) -> str:
    """A p-value to three places, never zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def listing(items: Sequence[str], limit: int = 6) -> str:
    """`a, b and c`; the rest is counted beyond `limit`."""
    shown = list(items) if len(items) <= limit else [*items[:limit], f"{len(items) - limit} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def moment(seconds: float) -> str:
    """A point in time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def duration(seconds: float) -> str:
    """A length of time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plural(count: int, word: str) -> str:
    """`1 seed`, `3 seeds`, `2 queries`."""
    many = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count:,} {word if count == 1 else many}"
