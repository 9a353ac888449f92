"""Shapes and scales of the report's figures: plain SVG text, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

CHARACTER = 7.4
"""Width in px to allow for a character of the figures' 12 px text, in the widest usual font."""


@dataclass(frozen=True)
class Scale:
    """A linear map of the values [low, high] to the pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values within the scale, two at least: one shows no distance."""
        step = self._step(count)
        return [index * step for index in self._multiples(step)]

    def tick_text(self, count: int) -> list[tuple[float, str]]:
        """The ticks with their text, all with the same number of decimals."""
        step = self._step(count)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(tick, _plain(f"{tick:.{decimals}f}")) for tick in self.ticks(count)]

    def _step(self, count: int) -> float:
        step = _round_step((self.high - self.low) / max(1, count))
        while len(self._multiples(step)) < 2:
            step = _round_step(step * 0.4)
        return step

    def _multiples(self, step: float) -> range:
        """The whole numbers whose multiples of `step` are within the scale."""
        first = math.ceil(self.low / step - 1e-9)
        return range(first, math.floor(self.high / step + 1e-9) + 1)


def scale(values: Iterable[float], start: float, end: float, margin: float = 0.04) -> Scale:
    """A scale that holds all values, with a margin on both sides; a single value gets room."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) * margin or max(abs(high), 1e-6) * 0.05
    return Scale(low - room, high + room, start, end)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * unit for unit in (1, 2, 5, 10) if power * unit >= raw * (1 - 1e-9))


def _plain(number: str) -> str:
    """The number with a true minus sign, and zero without one."""
    return number.replace("-", "−") if number.strip("-0.") else number.removeprefix("-")


def text(
    x: float, y: float, content: str, anchor: str = "start", style: str = "", full: str = ""
) -> str:
    """Text with its baseline at `y`; `full` is shown on pointing at it."""
    title = f"<title>{escape(full)}</title>" if full else ""
    names = f"t {style}".strip()
    return (
        f'<text class="{names}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{title}{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, style: str, fill: str = "") -> str:
    """A rectangle; `fill` is a colour that the style sheet does not set."""
    own = f' fill="{fill}"' if fill else ""
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"{own}/>'
    )


def circle(x: float, y: float, radius: float, style: str, full: str = "") -> str:
    """A dot; `full` is shown on pointing at it."""
    inside = f"<title>{escape(full)}</title>" if full else ""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{inside}</circle>'


def diamond(x: float, y: float, radius: float, style: str, full: str = "") -> str:
    """A square on its corner; `full` is shown on pointing at it."""
    inside = f"<title>{escape(full)}</title>" if full else ""
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    points = " ".join(f"{across:.1f},{up:.1f}" for across, up in corners)
    return f'<polygon class="{style}" points="{points}">{inside}</polygon>'


def shape(which: int, x: float, y: float, radius: float, style: str, full: str = "") -> str:
    """A mark of one of four shapes, so that series can be told apart without colour."""
    kind = which % 4
    if kind == 0:
        return circle(x, y, radius, style, full)
    if kind == 1:
        return diamond(x, y, radius * 1.2, style, full)
    inside = f"<title>{escape(full)}</title>" if full else ""
    if kind == 2:
        corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    else:
        corners = [(0.0, -1.3), (1.2, 1.0), (-1.2, 1.0)]
    points = " ".join(f"{x + a * radius * 0.9:.1f},{y + b * radius * 0.9:.1f}" for a, b in corners)
    return f'<polygon class="{style}" points="{points}">{inside}</polygon>'


def path(points: Sequence[tuple[float, float]], style: str) -> str:
    """A polyline through the points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{joined}"/>'


def fit(label: str, pixels: float) -> str:
    """The label, with an ellipsis inside where it is wider than `pixels`.

    Both ends are kept: names of cells often differ in their last word alone.
    """
    room = max(2, int(pixels / CHARACTER))
    if len(label) <= room:
        return label
    end = (room - 1) // 2
    return f"{label[: room - 1 - end].rstrip()}…{label[len(label) - end :].lstrip()}"


def drawing(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """A whole figure. `label` is what a screen reader says in its place."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title>{"".join(parts)}</svg>'
    )
