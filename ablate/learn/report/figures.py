"""The report's figures, each in a wide form (screen, paper) and a narrow one (phone)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ablate.learn.report.svg import (
    CHARACTER,
    Scale,
    circle,
    diamond,
    drawing,
    fit,
    line,
    path,
    rect,
    scale,
    text,
)

WIDE, NARROW = 920.0, 350.0
ROW, STACKED_ROW = 24.0, 44.0
WIDEST_LABEL = 350.0
"""Room for a row's name beside its interval."""
SERIES = 7
"""Line styles that the style sheet knows, `s0` to `s6`."""


@dataclass(frozen=True)
class Figure:
    """A figure in both forms; `name` is its file name and its anchor."""

    name: str
    caption: str
    wide: str
    narrow: str


@dataclass(frozen=True)
class Row:
    """One row of a row plot: an interval with its middle, and single values below it."""

    label: str
    middle: float
    low: float
    high: float
    note: str
    solid: bool = True
    """Filled (true) or hollow (false) middle."""
    singles: tuple[float, ...] = ()
    expected: float | None = None
    """Where a rule puts the middle."""


@dataclass(frozen=True)
class Rows:
    """A row plot: one interval per row on a common axis."""

    rows: tuple[Row, ...]
    axis: str
    lines: Mapping[str, float] = field(default_factory=dict)
    """Vertical reference lines by name."""
    band: tuple[float, float] | None = None
    """A shaded range, such as what seeds alone explain."""


def both(name: str, caption: str, draw: Callable[[bool], str]) -> Figure:
    """A figure of which `draw` makes the narrow form (true) and the wide one (false)."""
    return Figure(name, caption, draw(False), draw(True))


def row_plot(name: str, caption: str, label: str, plot: Rows) -> Figure:
    """Intervals in rows (a forest plot). `label` is the text for screen readers."""
    return both(name, caption, lambda narrow: _row_plot(plot, label, narrow))


def _row_plot(plot: Rows, label: str, narrow: bool) -> str:
    width, height = (NARROW, STACKED_ROW) if narrow else (WIDE, ROW)
    widest = CHARACTER * max(len(row.label) for row in plot.rows)
    left = 6.0 if narrow else min(widest, WIDEST_LABEL) + 14
    right = width - 6 if narrow else width - CHARACTER * max(len(row.note) for row in plot.rows) - 8
    values = [value for row in plot.rows for value in (row.low, row.high, *row.singles)]
    values += [*plot.lines.values(), *(plot.band or ())]
    values += [row.expected for row in plot.rows if row.expected is not None]
    axis = scale(values, left, right)
    top = 12.0 + 15 * len(plot.lines)
    bottom = top + height * len(plot.rows)
    parts = _ground(plot, axis, top, bottom, narrow)
    for index, row in enumerate(plot.rows):
        y = top + height * index
        if narrow:
            parts.append(text(6, y + 14, fit(row.label, 185), full=row.label))
            parts.append(text(right, y + 14, row.note, "end", "num"))
        else:
            parts.append(text(left - 12, y + 16, fit(row.label, left - 14), "end", full=row.label))
            parts.append(text(width - 2, y + 16, row.note, "end", "num"))
        parts.append(_interval(row, axis, y + (30 if narrow else 12)))
    parts.append(text((left + right) / 2, bottom + 36, plot.axis, "middle", "soft"))
    return drawing(width, bottom + 44, label, parts)


def _ground(plot: Rows, axis: Scale, top: float, bottom: float, narrow: bool) -> list[str]:
    """Band, grid, tick texts and named lines, drawn before the rows."""
    parts = []
    if plot.band is not None:
        start, end = axis(plot.band[0]), axis(plot.band[1])
        parts.append(rect(start, top, end - start, bottom - top, "band"))
    for tick, words in axis.tick_text(4 if narrow else 8):
        parts.append(line(axis(tick), top, axis(tick), bottom + 4, "grid"))
        parts.append(text(axis(tick), bottom + 18, words, "middle", "soft num"))
    for index, (words, value) in enumerate(plot.lines.items()):
        x, y = axis(value), 12.0 + 15 * index
        ends = x > (axis.start + axis.end) / 2
        parts.append(line(x, y - 8, x, bottom, f"mark m{index}"))
        parts.append(text(x + (-5 if ends else 5), y, words, "end" if ends else "start", "soft"))
    return parts


def _interval(row: Row, axis: Scale, y: float) -> str:
    tone = "solid" if row.solid else "hollow"
    parts = [line(axis(row.low), y, axis(row.high), y, f"range {tone}")]
    parts += [
        line(axis(end), y - 4, axis(end), y + 4, f"range {tone}") for end in (row.low, row.high)
    ]
    parts += [circle(axis(value), y + 6, 2.2, "single") for value in row.singles]
    parts.append(circle(axis(row.middle), y, 4.6, f"dot {tone}", f"{row.label}: {row.note}"))
    if row.expected is not None:
        parts.append(diamond(axis(row.expected), y, 4.5, "expected"))
    return "".join(parts)


@dataclass(frozen=True)
class Heat:
    """A heat map: `values[(row, column)]`; pairs that are absent stay empty."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Mapping[tuple[str, str], float]
    row_key: str
    column_key: str
    title: str = ""


def heat_maps(name: str, caption: str, label: str, maps: Sequence[Heat]) -> Figure:
    """Heat maps one below the other, on one colour scale."""
    return both(name, caption, lambda narrow: _heat_maps(maps, label, narrow))


def _heat_maps(maps: Sequence[Heat], label: str, narrow: bool) -> str:
    values = [value for heat in maps for value in heat.values.values()]
    low, high = min(values), max(values)
    widest = CHARACTER * max(len(row) for heat in maps for row in (*heat.rows, heat.row_key))
    left = min(widest, 110.0 if narrow else 220.0) + 12
    columns = max(len(heat.columns) for heat in maps)
    width = NARROW if narrow else WIDE
    side = min((width - left - 8) / columns, 46.0 if narrow else 120.0)
    parts: list[str] = []
    y = 4.0
    for heat in maps:
        y = _heat_map(heat, parts, y, left, side, (low, high))
    return drawing(width, y + 2, label, parts)


def _heat_map(
    heat: Heat, parts: list[str], y: float, left: float, side: float, span: tuple[float, float]
) -> float:
    """Draws one map from `y` down; returns where the next begins."""
    height = 34.0
    middle = left + side * len(heat.columns) / 2
    if heat.title:
        parts.append(text(2, y + 13, heat.title, style="strong"))
        y += 22
    parts.append(text(left - 8, y + 14, fit(heat.row_key, left - 10), "end", "soft"))
    for column, words in enumerate(heat.columns):
        x = left + side * (column + 0.5)
        parts.append(text(x, y + 14, fit(words, side - 2), "middle", "soft num", words))
    y += 20
    for index, row in enumerate(heat.rows):
        top = y + height * index
        parts.append(text(left - 8, top + 21, fit(row, left - 10), "end", full=row))
        for column, words in enumerate(heat.columns):
            value = heat.values.get((row, words))
            x = left + side * column
            parts.append(_tile(value, x, top, side, height, span))
    y += height * len(heat.rows)
    parts.append(text(middle, y + 17, heat.column_key, "middle", "soft"))
    return y + 30


def _tile(
    value: float | None, x: float, y: float, side: float, height: float, span: tuple[float, float]
) -> str:
    if value is None:
        empty = rect(x + 1, y + 1, side - 2, height - 2, "empty")
        return empty + text(x + side / 2, y + 21, "–", "middle", "soft")
    share = 0.5 if span[1] <= span[0] else (value - span[0]) / (span[1] - span[0])
    fill, dark = _shade(share)
    number = f"{value:.3f}" if side >= 44 else f"{value:.2f}"
    tile = rect(x + 1, y + 1, side - 2, height - 2, "tile", fill)
    return tile + text(x + side / 2, y + 21, number, "middle", "num on-dark" if dark else "num on")


_RAMP = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 183, 102),
         (254, 232, 56))  # fmt: skip
"""Cividis in six stops: even in lightness, and alike with and without colour blindness."""


def _shade(share: float) -> tuple[str, bool]:
    """The colour at `share` of the ramp, and whether text on it must be light."""
    position = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    index = min(int(position), len(_RAMP) - 2)
    rest = position - index
    mixed = [round(a + (b - a) * rest) for a, b in zip(_RAMP[index], _RAMP[index + 1], strict=True)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})", share < 0.52


@dataclass(frozen=True)
class Panel:
    """One small plot: several lines of (step, value)."""

    title: str
    lines: tuple[tuple[tuple[float, float], ...], ...]


def curves(name: str, caption: str, label: str, panels: Sequence[Panel]) -> Figure:
    """Small line plots side by side, each on a vertical axis of its own."""
    return both(name, caption, lambda narrow: _curves(panels, label, narrow))


def _curves(panels: Sequence[Panel], label: str, narrow: bool) -> str:
    across = 2 if narrow else 4
    width = NARROW if narrow else WIDE
    side, height = width / across, 128.0
    parts: list[str] = []
    for index, panel in enumerate(panels):
        x, y = side * (index % across), height * (index // across)
        parts += _panel(panel, x, y, side - 10, height - 14)
    return drawing(width, height * math.ceil(len(panels) / across), label, parts)


def _panel(panel: Panel, x: float, y: float, width: float, height: float) -> list[str]:
    points = [point for curve in panel.lines for point in curve]
    across = scale([step for step, _ in points], x + 36, x + width, 0.0)
    up = scale([value for _, value in points], y + height - 16, y + 24, 0.03)
    parts = [text(x + 2, y + 13, fit(panel.title, width), style="small strong", full=panel.title)]
    for value, words in up.tick_text(3):
        parts.append(line(x + 36, up(value), x + width, up(value), "grid"))
        parts.append(text(x + 32, up(value) + 4, words, "end", "small soft num"))
    steps = [step for step, _ in points]
    parts.append(text(x + 36, y + height - 2, f"{min(steps):g}", "middle", "small soft num"))
    parts.append(text(x + width, y + height - 2, f"{max(steps):g}", "end", "small soft num"))
    for index, curve in enumerate(panel.lines):
        scaled = [(across(step), up(value)) for step, value in curve]
        parts.append(path(scaled, f"curve s{index % SERIES}"))
    return parts
