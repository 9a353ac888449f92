"""Small plots in rows: shares of a whole, beside those that were predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.learn.report.figures import NARROW, WIDE, Figure, both
from ablate.learn.report.svg import CHARACTER, Scale, diamond, drawing, fit, line, rect, text

HEIGHT, HEADING = 122.0, 22.0
WIDEST = 300.0


@dataclass(frozen=True)
class Mark:
    """One bar: its value, the lowest and highest single value, and the predicted one."""

    label: str
    value: float
    low: float
    high: float
    expected: float | None


@dataclass(frozen=True)
class Share:
    """One small plot of shares between 0 and 1."""

    title: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Panels:
    """Rows of small plots by the row's title."""

    rows: Mapping[str, Sequence[Share]]


def share_panels(name: str, caption: str, label: str, panels: Panels) -> Figure:
    """Bars with diamonds where theory puts them. `label` is the text for screen readers."""
    return both(name, caption, lambda narrow: _share_panels(panels, label, narrow))


def _share_panels(panels: Panels, label: str, narrow: bool) -> str:
    width = NARROW if narrow else WIDE
    longest = max(len(row) for row in panels.rows.values())
    across = min(longest, 3) if narrow else longest
    side = min(width / across, WIDEST)
    parts: list[str] = []
    y = 0.0
    for title, row in panels.rows.items():
        parts.append(text(2, y + 15, fit(title, width), style="strong", full=title))
        y += HEADING
        for start in range(0, len(row), across):
            for place, share in enumerate(row[start : start + across]):
                parts += _share(share, title, side * place, y, side - 12)
            y += HEIGHT
    return drawing(width, y, label, parts)


def _share(share: Share, row: str, x: float, y: float, width: float) -> list[str]:
    left, bottom = x + 30, y + HEIGHT - 24
    up = Scale(0.0, 1.0, bottom, y + 20)
    parts = [text(left, y + 12, fit(share.title, width), style="small soft", full=share.title)]
    for tick in (0.0, 0.5, 1.0):
        parts.append(line(left, up(tick), x + width, up(tick), "grid"))
        parts.append(text(left - 4, up(tick) + 4, f"{tick:g}", "end", "small soft num"))
    step = (x + width - left) / len(share.marks)
    for place, mark in enumerate(share.marks):
        middle = left + step * (place + 0.5)
        half = min(step * 0.34, 22.0)
        words = f"{row}, {share.title}, {mark.label}: {mark.value:.3f}"
        if mark.expected is not None:
            words += f", theory {mark.expected:.3f}"
        parts.append(rect(middle - half, up(mark.value), 2 * half, bottom - up(mark.value), "bar"))
        if mark.high > mark.low:
            parts.append(line(middle, up(mark.low), middle, up(mark.high), "whisker"))
        if mark.expected is not None:
            parts.append(diamond(middle, up(mark.expected), 4.5, "expected", words))
        parts.append(text(middle, bottom + 14, fit(mark.label, step + 6), "middle", "small soft"))
    return parts


def share_bars(name: str, caption: str, label: str, bars: Sequence[tuple[str, float]]) -> Figure:
    """Horizontal bars of shares between 0 and 1, in the order given."""
    return both(name, caption, lambda narrow: _share_bars(bars, label, narrow))


def _share_bars(bars: Sequence[tuple[str, float]], label: str, narrow: bool) -> str:
    width, height = (NARROW, 40.0) if narrow else (WIDE, 26.0)
    longest = CHARACTER * max(len(words) for words, _ in bars)
    left = 4.0 if narrow else min(longest, 340.0) + 14
    across = Scale(0.0, max(max(share for _, share in bars), 0.05), left, width - 60)
    parts = []
    for place, (words, share) in enumerate(bars):
        y = height * place
        if narrow:
            parts.append(text(4, y + 13, fit(words, width - 8), full=words))
        else:
            parts.append(text(left - 10, y + 17, fit(words, left - 12), "end", full=words))
        top = y + (19 if narrow else 5)
        parts.append(rect(left, top, max(across(share) - left, 1.0), 16, "bar"))
        parts.append(text(across(share) + 6, top + 12, f"{share:.1%}", style="num"))
    return drawing(width, height * len(bars) + 4, label, parts)
