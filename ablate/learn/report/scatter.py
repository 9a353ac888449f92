"""Two metrics against each other: a dot per cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.learn.report.figures import NARROW, WIDE, Figure, both
from ablate.learn.report.svg import circle, drawing, fit, line, path, scale, text

LEFT, BOTTOM = 56.0, 48.0


@dataclass(frozen=True)
class Dot:
    """A cell's place; `mark` stands beside it, `name` is shown on pointing at it."""

    mark: str
    name: str
    x: float
    y: float
    around: tuple[float, float]
    """Half lengths of the bars across and up."""
    front: bool
    """Filled and joined by the front's line (true), or hollow (false)."""


def scatter(
    name: str, caption: str, label: str, dots: Sequence[Dot], across: str, up: str
) -> Figure:
    """The dots with the front through the filled ones. `label` is for screen readers."""
    return both(name, caption, lambda narrow: _scatter(dots, label, across, up, narrow))


def _scatter(dots: Sequence[Dot], label: str, across: str, up: str, narrow: bool) -> str:
    width, height = (NARROW, 320.0) if narrow else (WIDE, 400.0)
    x = scale([end for d in dots for end in _ends(d.x, d.around[0])], LEFT, width - 24)
    y = scale([end for d in dots for end in _ends(d.y, d.around[1])], height - BOTTOM, 26)
    parts = [text(2, 14, fit(up, width), style="soft")]
    for value, words in y.tick_text(6):
        parts.append(line(LEFT, y(value), width - 24, y(value), "grid"))
        parts.append(text(LEFT - 6, y(value) + 4, words, "end", "soft num"))
    for value, words in x.tick_text(4 if narrow else 8):
        parts.append(line(x(value), 26, x(value), height - BOTTOM, "grid"))
        parts.append(text(x(value), height - BOTTOM + 16, words, "middle", "soft num"))
    parts.append(text((LEFT + width) / 2, height - 8, across, "middle", "soft"))
    front = sorted((dot for dot in dots if dot.front), key=lambda dot: dot.x)
    parts.append(path([(x(dot.x), y(dot.y)) for dot in front], "mark m1 open"))
    for dot in sorted(dots, key=lambda dot: dot.front):
        tone = "solid" if dot.front else "hollow"
        low, high = _ends(dot.x, dot.around[0])
        parts.append(line(x(low), y(dot.y), x(high), y(dot.y), "range faint"))
        low, high = _ends(dot.y, dot.around[1])
        parts.append(line(x(dot.x), y(low), x(dot.x), y(high), "range faint"))
        parts.append(circle(x(dot.x), y(dot.y), 5, f"dot {tone}", dot.name))
        style = "small num strong" if dot.front else "small num soft"
        parts.append(text(x(dot.x) + 7, y(dot.y) - 6, dot.mark, style=style, full=dot.name))
    return drawing(width, height, label, parts)


def _ends(middle: float, half: float) -> tuple[float, float]:
    return middle - half, middle + half
