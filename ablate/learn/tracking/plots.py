"""Figures that MLflow shows: plotly's own notation as plain values, and one page that holds them.

A figure is `{"data": [trace, …], "layout": {…}}`. Plotly itself is imported for the page alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ablate.learn.results import CellResult, Results, metric_title, split_key
from ablate.learn.tracking.names import colour, loss_colour, loss_of, written

Drawing = Mapping[str, Any]
TEMPERATURE, CURVE = "loss.temperature", "train/loss"
RANKED, CURVES = 80, 24
"""Cells in a figure, the best ranked: a page has room for no more."""


def figures(results: Results) -> dict[str, Drawing]:
    """Title -> figure, of those that the study has something for."""
    if not results.scored:
        return {}
    title = f"{metric_title(results.primary)} on {split_key(results.primary)[0]}"
    drawn = {
        f"Cells by {title}, with 95 % intervals": _ranked(results, title),
        f"{title} by loss and temperature": _heat(results, title),
        f"{title} over the temperature": _temperatures(results, title),
        "Training curves": _training(results),
    }
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


def page(drawn: Mapping[str, Drawing]) -> str:
    """One HTML page with the figures, and plotly's script in it once: it opens offline."""
    from plotly.io import to_html

    parts = []
    for index, (name, drawing) in enumerate(drawn.items()):
        body = to_html(dict(drawing), include_plotlyjs=index == 0, full_html=False)
        parts.append(f"<h2>{escape(name)}</h2>\n{body}")
    style = "body{font-family:system-ui,sans-serif;margin:1rem}h2{font-size:1.1rem}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{style}</style>'
    return f"{head}<title>Figures</title>\n" + "\n".join(parts) + "</html>\n"


def _figure(traces: Sequence[Drawing], layout: Drawing, height: int = 420) -> Drawing:
    common = {"height": height, "margin": {"t": 20, "r": 20}, "template": "plotly_white"}
    return {"data": list(traces), "layout": {**common, **layout}}


def _ranked(results: Results, title: str) -> Drawing:
    """The interval of every cell, the best on top, in one colour per loss."""
    traces: list[Drawing] = []
    cells = results.scored[:RANKED]
    for loss, own in _by_loss(cells).items():
        found = [results.primary_of(cell) for cell in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": loss,
                "x": [summary.mean for summary in found],
                "y": [cell.name for cell in own],
                "customdata": [cell.verdict for cell in own],
                "hovertemplate": "%{y}<br>%{x:.4f}, %{customdata}<extra></extra>",
                "marker": {"color": loss_colour(results, loss), "size": 9},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [summary.high - summary.mean for summary in found],
                    "arrayminus": [summary.mean - summary.low for summary in found],
                },
            }
        )
    order = [cell.name for cell in reversed(cells)]
    rows = {"categoryorder": "array", "categoryarray": order, "automargin": True}
    layout = {"xaxis": {"title": {"text": title}}, "yaxis": rows}
    return _figure(traces, layout, 140 + 22 * len(cells))


def _heat(results: Results, title: str) -> Drawing | None:
    """Loss by temperature: the mean of the cells that share both."""
    places: dict[tuple[str, float], list[float]] = {}
    for cell in results.scored:
        temperature = _temperature(cell)
        if temperature is not None:
            mean = results.primary_of(cell).mean
            places.setdefault((loss_of(cell), temperature), []).append(mean)
    losses = list(dict.fromkeys(loss for loss, _ in places))
    temperatures = sorted({temperature for _, temperature in places})
    if len(losses) < 2 or len(temperatures) < 2:
        return None
    means = {place: sum(found) / len(found) for place, found in places.items()}
    rows = [[means.get((loss, value)) for value in temperatures] for loss in losses]
    trace = {
        "type": "heatmap",
        "x": [written(value) for value in temperatures],
        "y": losses,
        "z": rows,
        "colorscale": "Cividis",
        "texttemplate": "%{z:.3f}",
        "hovertemplate": "%{y}, temperature %{x}<br>%{z:.4f}<extra></extra>",
        "colorbar": {"title": {"text": title.partition(" on ")[0]}},
    }
    across = {"title": {"text": TEMPERATURE}, "type": "category"}
    up = {"automargin": True, "autorange": "reversed"}
    return _figure([trace], {"xaxis": across, "yaxis": up}, 160 + 44 * len(losses))


def _temperatures(results: Results, title: str) -> Drawing | None:
    """A line per loss and combination of the other compared values, with intervals."""
    lines: dict[str, list[tuple[float, CellResult]]] = {}
    for cell in results.scored:
        temperature = _temperature(cell)
        if temperature is not None:
            others = {key: value for key, value in cell.values.items() if key != TEMPERATURE}
            name = " ".join(written(value) for value in others.values())
            lines.setdefault(name, []).append((temperature, cell))
    lines = {name: sorted(own, key=lambda p: p[0]) for name, own in lines.items() if len(own) > 1}
    if not lines:
        return None
    traces: list[Drawing] = []
    for index, (name, own) in enumerate(lines.items()):
        found = [results.primary_of(cell) for _, cell in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [temperature for temperature, _ in own],
                "y": [summary.mean for summary in found],
                "line": {"color": colour(index)},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [summary.high - summary.mean for summary in found],
                    "arrayminus": [summary.mean - summary.low for summary in found],
                },
            }
        )
    across = {"title": {"text": TEMPERATURE}, "type": "log"}
    layout = {"xaxis": across, "yaxis": {"title": {"text": title}}, "showlegend": True}
    return _figure(traces, layout, 460)


def _training(results: Results) -> Drawing | None:
    """Per trial, the selecting metric by step where training logs it, else the training loss."""
    select = results.study.select
    logged = [
        (index, cell, trial.seed, rows)
        for index, cell in enumerate(results.cells[:CURVES])
        for trial in cell.counted
        if (rows := results.scores.history(trial))
    ]
    keys = {key for *_, rows in logged for row in rows for key in row}
    key = select.key if select is not None and select.key in keys else CURVE
    traces: list[Drawing] = []
    for index, cell, seed, rows in logged:
        points = [(row["step"], row[key]) for row in rows if key in row]
        first = all(trace["legendgroup"] != cell.name for trace in traces)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": cell.name,
                "legendgroup": cell.name,
                "showlegend": first,
                "hovertemplate": f"seed {seed}, step %{{x}}<br>%{{y:.4f}}",
                "x": [step for step, _ in points],
                "y": [value for _, value in points],
                "line": {"color": colour(index), "width": 1.5},
            }
        )
    across, up = {"title": {"text": "step"}}, {"title": {"text": key}}
    return _figure(traces, {"xaxis": across, "yaxis": up}, 520) if traces else None


def _by_loss(cells: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    found: dict[str, list[CellResult]] = {}
    for cell in cells:
        found.setdefault(loss_of(cell), []).append(cell)
    return found


def _temperature(cell: CellResult) -> float | None:
    """The cell's own temperature: compared, or that of its chosen draw."""
    value = {**cell.values, **cell.tuned}.get(TEMPERATURE)
    return float(value) if isinstance(value, (int, float)) else None
