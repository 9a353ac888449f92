"""Line plots with intervals: several series over one horizontal axis, told apart by colour, shape
and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablate.learn.report.figures import NARROW, SERIES, WIDE, Figure, both
from ablate.learn.report.svg import (
    CHARACTER,
    Scale,
    drawing,
    fit,
    line,
    path,
    rect,
    scale,
    shape,
    text,
)

HEIGHT, LEFT, LEGEND_ROW = 250.0, 52.0, 18.0
DODGE = 7.0
"""Pixels between the intervals of two series at one place."""


@dataclass(frozen=True)
class Point:
    """A value with its interval; without one, both ends equal it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line; `stepped` holds a value until the next, and `plain` draws no marks either."""

    name: str
    points: tuple[Point, ...]
    stepped: bool = False
    plain: bool = False


@dataclass(frozen=True)
class LinePlot:
    """Series on common axes."""

    series: tuple[Series, ...]
    across: str
    """Title of the horizontal axis, as `up` of the vertical one."""
    up: str
    places: Mapping[float, str] = field(default_factory=dict)
    """Text of the horizontal axis by position; round numbers when empty."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """Horizontal reference lines by name."""
    band: tuple[float, float] | None = None
    """A shaded range of the horizontal axis."""
    mark: float | None = None
    """A vertical line."""


def line_plot(name: str, caption: str, label: str, plot: LinePlot) -> Figure:
    """The plot in both forms. `label` is the text for screen readers."""
    return both(name, caption, lambda narrow: _line_plot(plot, label, narrow))


def _line_plot(plot: LinePlot, label: str, narrow: bool) -> str:
    width = NARROW if narrow else WIDE
    parts, top = _legend(plot.series, width)
    parts.append(text(2, top + 12, fit(plot.up, width), style="soft"))
    top += 22
    bottom = top + HEIGHT
    points = [point for series in plot.series for point in series.points]
    values = [value for point in points for value in (point.low, point.high, point.y)]
    up = scale([*values, *plot.levels.values()], bottom, top)
    ends = [end for end in (*(plot.band or ()), plot.mark) if end is not None]
    marked = not any(series.stepped or series.plain for series in plot.series)
    margin = 0.12 if plot.places else 0.06 if marked else 0.03
    across = scale([*(point.x for point in points), *plot.places, *ends], LEFT, width - 10, margin)
    parts += _axes(plot, across, up, (top, bottom), narrow)
    dodge = min(DODGE, (30.0 if narrow else 60.0) / max(1, len(plot.series))) if marked else 0.0
    for place, series in enumerate(plot.series):
        shift = (place - (len(plot.series) - 1) / 2) * dodge
        parts += _series(series, place, shift, across, up)
    parts.append(text((LEFT + width - 10) / 2, bottom + 36, plot.across, "middle", "soft"))
    return drawing(width, bottom + 44, label, parts)


def _legend(series: Sequence[Series], width: float) -> tuple[list[str], float]:
    """The names with their marks, wrapped to the width; and where the plot begins."""
    parts: list[str] = []
    x, y = 4.0, 0.0
    if len(series) < 2:
        return parts, y
    for place, one in enumerate(series):
        name = fit(one.name, width - 40)
        needed = 30 + CHARACTER * len(name)
        if x + needed > width and x > 4:
            x, y = 4.0, y + LEGEND_ROW
        parts.append(line(x, y + 10, x + 16, y + 10, f"curve s{place % SERIES}"))
        parts.append(shape(place, x + 8, y + 10, 4.0, f"k{place % SERIES}"))
        parts.append(text(x + 22, y + 14, name, full=one.name))
        x += needed
    return parts, y + LEGEND_ROW + 6


def _axes(
    plot: LinePlot, across: Scale, up: Scale, ends: tuple[float, float], narrow: bool
) -> list[str]:
    top, bottom = ends
    parts = []
    if plot.band is not None:
        start, end = across(plot.band[0]), across(plot.band[1])
        parts.append(rect(start, top, max(end - start, 1.5), bottom - top, "band"))
    for value, words in up.tick_text(5):
        parts.append(line(LEFT, up(value), across.end, up(value), "grid"))
        parts.append(text(LEFT - 6, up(value) + 4, words, "end", "soft num"))
    ticks = list(plot.places.items()) or across.tick_text(4 if narrow else 8)
    room = (across.end - across.start) / max(1, len(ticks))
    for value, words in ticks:
        parts.append(line(across(value), bottom, across(value), bottom + 4, "grid"))
        parts.append(
            text(across(value), bottom + 18, fit(words, room), "middle", "soft num", words)
        )
    for place, (words, value) in enumerate(plot.levels.items()):
        parts.append(line(LEFT, up(value), across.end, up(value), f"mark m{place}"))
        parts.append(text(across.end, up(value) - 5, words, "end", "soft small"))
    if plot.mark is not None:
        parts.append(line(across(plot.mark), top, across(plot.mark), bottom, "mark m1"))
    return parts


def _series(series: Series, place: int, shift: float, across: Scale, up: Scale) -> list[str]:
    style = f"s{place % SERIES}"
    route: list[tuple[float, float]] = []
    for point in series.points:
        x, y = across(point.x) + shift, up(point.y)
        if series.stepped and route:
            route.append((x, route[-1][1]))
        route.append((x, y))
    parts = [path(route, f"curve {style}")]
    if series.stepped or series.plain:
        return parts
    for point in series.points:
        x = across(point.x) + shift
        if point.high > point.low:
            parts.append(line(x, up(point.low), x, up(point.high), f"curve {style}"))
        words = f"{series.name}: {point.y:.3f} [{point.low:.3f}, {point.high:.3f}]"
        parts.append(shape(place, x, up(point.y), 4.2, f"k{place % SERIES}", words))
    return parts
