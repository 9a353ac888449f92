"""Two metrics against each other: a dot per cell, and the names of those that one asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.learn.report.figures import NARROW, WIDE, Figure, both
from ablate.learn.report.svg import CHARACTER, circle, drawing, fit, line, path, scale, text

LEFT, RIGHT, TOP, BOTTOM = 56.0, 24.0, 26.0, 48.0
RADIUS = 5.0
LETTER, LINE = CHARACTER * 0.88, 11.0
"""Width and height in px to allow for a character and a line of a dot's label."""
LONGEST = 340.0
PLACES = (
    (8, -5, "start"), (8, 13, "start"), (-8, -5, "end"), (-8, 13, "end"), (10, 4, "start"),
    (-10, 4, "end"), (0, -10, "middle"), (0, 19, "middle"), (8, -18, "start"), (8, 26, "start"),
    (-8, -18, "end"), (-8, 26, "end"),
)  # fmt: skip
"""Where a label may stand: px from its dot to its anchor, the best place first."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """A cell's place; `words` are shown on pointing at it."""

    name: str
    words: str
    x: float
    y: float
    around: tuple[float, float]
    """Half lengths of the bars across and up, drawn on the front."""
    front: bool
    """Filled and joined by the front's line (true), or hollow (false)."""

    @property
    def mark(self) -> str:
        """The number of the cell, which stands for its name where there is little room."""
        return self.name.partition(" ")[0]


def scatter(
    name: str, caption: str, label: str, dots: Sequence[Dot], across: str, up: str
) -> Figure:
    """The dots with the front through the filled ones. `label` is for screen readers."""
    return both(name, caption, lambda narrow: _scatter(dots, label, across, up, narrow))


def named(dots: Sequence[Dot]) -> list[Dot]:
    """Those that get a label: the front, and the lowest in either metric."""
    front = sorted((dot for dot in dots if dot.front), key=lambda dot: dot.x)
    lowest = (min(dots, key=lambda dot: dot.x), min(dots, key=lambda dot: dot.y))
    return list(dict.fromkeys((*front, *lowest)))


def _scatter(dots: Sequence[Dot], label: str, across: str, up: str, narrow: bool) -> str:
    width, height = (NARROW, 320.0) if narrow else (WIDE, 400.0)
    reach = {dot: dot.around if dot.front else (0.0, 0.0) for dot in dots}
    x = scale([end for d in dots for end in _ends(d.x, reach[d][0])], LEFT, width - RIGHT)
    y = scale([end for d in dots for end in _ends(d.y, reach[d][1])], height - BOTTOM, TOP)
    parts = [text(2, 14, fit(up, width), style="soft")]
    for value, words in y.tick_text(6):
        parts.append(line(LEFT, y(value), width - RIGHT, y(value), "grid"))
        parts.append(text(LEFT - 6, y(value) + 4, words, "end", "soft num"))
    for value, words in x.tick_text(4 if narrow else 8):
        parts.append(line(x(value), TOP, x(value), height - BOTTOM, "grid"))
        parts.append(text(x(value), height - BOTTOM + 16, words, "middle", "soft num"))
    parts.append(text((LEFT + width) / 2, height - 8, across, "middle", "soft"))
    front = sorted((dot for dot in dots if dot.front), key=lambda dot: dot.x)
    parts.append(path([(x(dot.x), y(dot.y)) for dot in front], "mark m1 open"))
    for dot in front:
        (left, right), (low, high) = _ends(dot.x, dot.around[0]), _ends(dot.y, dot.around[1])
        parts.append(line(x(left), y(dot.y), x(right), y(dot.y), "range faint"))
        parts.append(line(x(dot.x), y(low), x(dot.x), y(high), "range faint"))
    for dot in sorted(dots, key=lambda dot: dot.front):
        tone = "solid" if dot.front else "hollow"
        parts.append(circle(x(dot.x), y(dot.y), RADIUS, f"dot {tone}", dot.words))
    spots = {dot: (x(dot.x), y(dot.y)) for dot in dots}
    room = (LEFT, TOP - 12, width, height - BOTTOM)
    return drawing(width, height, label, [*parts, *_labels(spots, room, narrow)])


def _labels(spots: dict[Dot, tuple[float, float]], room: Box, narrow: bool) -> list[str]:
    """Labels where they cover neither each other nor a dot; what finds no place has none."""
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in spots.values()]
    parts = []
    for dot in named(list(spots)):
        x, y = spots[dot]
        words = dot.mark if narrow else fit(dot.name, LONGEST)
        for dx, dy, anchor in PLACES:
            box = _box(x + dx, y + dy, words, anchor)
            if _within(box, room) and not any(_touch(box, other) for other in taken):
                style = "small num strong" if dot.front else "small num soft"
                parts.append(text(x + dx, y + dy, words, anchor, style, dot.words))
                taken.append(box)
                break
    return parts


def _box(x: float, y: float, words: str, anchor: str) -> Box:
    width = LETTER * len(words)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - LINE + 2, left + width, y + 2


def _within(box: Box, room: Box) -> bool:
    return room[0] <= box[0] and room[1] <= box[1] and box[2] <= room[2] and box[3] <= room[3]


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ends(middle: float, half: float) -> tuple[float, float]:
    return middle - half, middle + half
