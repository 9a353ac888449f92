"""Nodes over time: how the cluster grew and shrank with the trials, and the node-hours it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ablate.learn.report.document import Section, Table, Text, duration, number, plural, value
from ablate.learn.report.figures import Figure
from ablate.learn.report.lines import LinePlot, Point, Series, line_plot
from ablate.learn.results import Results

TITLE = "Nodes over time"
LONGEST_GAP = 600.0
"""Seconds without a row after which, with nothing running, a new execution begins."""
COUNTS = {"nodes": "nodes", "running": "running trials", "pending": "pending trials"}
Sample = Mapping[str, Any]


def nodes(results: Results) -> Section:
    """Nodes, running and pending trials, and node-hours; empty for a study without a cluster."""
    rows = results.nodes
    spans = _spans(rows)
    if not spans:
        return Section("nodes", TITLE, ())
    most = max(row["nodes"] for row in rows)
    hours = _hours(spans)
    together = sum(hours.values())
    worked = sum(
        sum(trial.record.seconds.values()) for trial in results.trials if trial.record is not None
    )
    seconds = sum(after["time"] - row["time"] for row, after in spans)
    words = (
        f"Up to {plural(most, 'node')} over {duration(seconds)}: {number(together, 2)} "
        f"node-hours, in which the trials worked {duration(worked)}."
    )
    figures = (_counts(spans), _cost(spans))
    return Section("nodes", TITLE, (Text(words), *figures, _types(hours)))


def _spans(rows: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Neighbouring rows, without the time between two executions."""
    return [
        (row, after)
        for row, after in pairwise(rows)
        if after["time"] - row["time"] <= LONGEST_GAP or row["running"]
    ]


def _hours(spans: Sequence[tuple[Sample, Sample]]) -> dict[str, float]:
    """Hours that nodes of each type were there."""
    hours: dict[str, float] = {}
    for row, after in spans:
        for name, count in row["types"].items():
            part = count * (after["time"] - row["time"]) / 3600
            hours[name] = hours.get(name, 0.0) + part
    return hours


def _counts(spans: Sequence[tuple[Sample, Sample]]) -> Figure:
    series = []
    for key, name in COUNTS.items():
        points: list[Point] = []
        minutes = 0.0
        for row, after in spans:
            points.append(_point(minutes, row[key]))
            minutes += (after["time"] - row["time"]) / 60
        points.append(_point(minutes, spans[-1][1][key]))
        series.append(Series(name, tuple(points), stepped=True))
    caption = "Nodes, running and pending trials over time; the time between executions is cut out."
    return line_plot("nodes", caption, caption, LinePlot(tuple(series), "minutes", "count"))


def _cost(spans: Sequence[tuple[Sample, Sample]]) -> Figure:
    """Node-hours so far."""
    points, minutes, hours = [_point(0.0, 0.0)], 0.0, 0.0
    for row, after in spans:
        length = (after["time"] - row["time"]) / 60
        minutes, hours = minutes + length, hours + row["nodes"] * length / 60
        points.append(_point(minutes, hours))
    caption = "Node-hours so far, which is what a cluster costs."
    plot = LinePlot((Series("node-hours", tuple(points), plain=True),), "minutes", "node-hours")
    return line_plot("node-hours", caption, caption, plot)


def _point(x: float, y: float) -> Point:
    return Point(x, float(y), float(y), float(y))


def _types(hours: Mapping[str, float]) -> Table:
    rows = tuple((value(name), value(number(part, 2), part)) for name, part in hours.items())
    return Table("By type of node", ("Type", "Node-hours"), rows, frozenset({"Node-hours"}))
