"""Nodes over time: how the cluster grew and shrank with the trials, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ablate.learn.report.document import Section, Table, Text, duration, number, plural, value
from ablate.learn.report.figures import Figure
from ablate.learn.report.lines import LinePlot, Point, Series, line_plot
from ablate.learn.report.ramps import ramps, told
from ablate.learn.results import Results

TITLE = "Nodes over time"
LONGEST_GAP = 600.0
"""Seconds without a row after which, with nothing running, a new execution begins."""
COUNTS = {"nodes": "nodes", "running": "running trials", "pending": "pending trials"}
Sample = Mapping[str, Any]


def nodes(results: Results) -> Section:
    """Nodes, running and pending trials, node-hours and money; empty without a cluster."""
    rows = results.nodes
    executions = _executions(rows)
    spans = [span for each in executions for span in pairwise(each)]
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
        f"node-hours, in which the trials worked {duration(worked)}.{_money(hours, results.prices)}"
    )
    figures = (_counts(spans), _cost(spans, results.prices))
    delays = told(ramps(executions))
    texts = (Text(words), Text(delays)) if delays else (Text(words),)
    return Section("nodes", TITLE, (*texts, *figures, _types(hours, results.prices)))


def _money(hours: Mapping[str, float], prices: Mapping[str, float]) -> str:
    """What the nodes cost, as a sentence; empty where a type of node has no price."""
    if not hours.keys() <= prices.keys():
        return ""
    total = sum(part * prices[name] for name, part in hours.items())
    return f" They cost {total:.2f} USD at the prices of the cluster's file."


def _executions(rows: Sequence[Sample]) -> list[list[Sample]]:
    """The rows of each execution: the time between two is not the cluster's."""
    found: list[list[Sample]] = []
    for row in rows:
        last = found[-1][-1] if found else None
        if last and (row["time"] - last["time"] <= LONGEST_GAP or last["running"]):
            found[-1].append(row)
        else:
            found.append([row])
    return found


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


def _cost(spans: Sequence[tuple[Sample, Sample]], prices: Mapping[str, float]) -> Figure:
    """Money so far, or node-hours where a type of node has no price."""
    types = {name for row, _ in spans for name in row["types"]}
    priced = types <= prices.keys()
    unit = "USD" if priced else "node-hours"
    points, minutes, total = [_point(0.0, 0.0)], 0.0, 0.0
    for row, after in spans:
        length = (after["time"] - row["time"]) / 60
        each = (count * (prices[name] if priced else 1) for name, count in row["types"].items())
        minutes, total = minutes + length, total + sum(each) * length / 60
        points.append(_point(minutes, total))
    caption = f"{unit} so far." if priced else f"{unit.capitalize()} so far: no prices are known."
    plot = LinePlot((Series(unit, tuple(points), plain=True),), "minutes", unit)
    return line_plot("node-cost", caption, caption, plot)


def _point(x: float, y: float) -> Point:
    return Point(x, float(y), float(y), float(y))


def _types(hours: Mapping[str, float], prices: Mapping[str, float]) -> Table:
    money = ("USD an hour", "USD") if prices else ()
    columns = ("Type", "Node-hours", *money)
    rows = []
    for name, part in hours.items():
        price = prices.get(name)
        paid = None if price is None else part * price
        cells = [value(number(price, 2), price), value(number(paid, 2), paid)] if prices else []
        rows.append((value(name), value(number(part, 2), part), *cells))
    return Table("By type of node", columns, tuple(rows), frozenset(columns[1:]))
