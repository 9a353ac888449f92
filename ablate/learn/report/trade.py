"""One metric against another: which cells trade MRR for recall, and which are behind in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablate.learn.report.document import (
    LOST,
    Section,
    Table,
    Text,
    listing,
    number,
    plural,
    value,
)
from ablate.learn.report.scatter import Dot, scatter
from ablate.learn.report.sets import mean_sd
from ablate.learn.results import ALPHA, CellResult, Results, metric_title, split_key
from ablate.learn.stats import (
    FrontPoint,
    pareto,
)

MOST_CELLS = 60
"""Cells in the plane of two metrics: the best ranked."""
SATURATED = 0.98
"""A recall above it leaves no room for a trade."""


def two_metrics(results: Results) -> Section:
    """MRR and recall side by side: a loss can gain one at the expense of the other."""
    title = "MRR against recall"
    keys = _two_keys(results)
    cells = [cell for cell in results.scored if all(key in cell.metrics for key in keys)]
    if len(keys) < 2 or len(cells) < 2:
        return Section("pareto", title, (), "two cells with MRR and recall are needed")
    cells = cells[:MOST_CELLS]
    grids = [results.scores.grid(key) for key in keys]
    first, second = ({cell.name: grid[cell.name] for cell in cells} for grid in grids)
    found = list(pareto(first, second, ALPHA))
    by_name = {cell.name: cell for cell in cells}
    mrr, recall = map(metric_title, keys)
    words = _front_words(found, mrr, recall)
    dots = [_dot(one, by_name[one.cell], keys) for one in found]
    caption = (
        f"{recall} against {mrr} on {split_key(results.primary)[0]}, a dot per cell. Filled: on "
        "the front, no cell is better in both; bars are one sd over seeds. Hollow: behind it. "
        "Named are the front and the lowest in either metric; pointing at a dot names it, and "
        f"the table has them all.{_cut(results)}"
    )
    figure = scatter("pareto", caption, caption, dots, mrr, recall)
    table = _front_table(found, by_name, keys)
    return Section("pareto", title, (Text(words), figure, table))


def _cut(results: Results) -> str:
    return f" The first {MOST_CELLS} cells." if len(results.scored) > MOST_CELLS else ""


def _two_keys(results: Results) -> tuple[str, ...]:
    """MRR, and the deepest recall that is not saturated, on the primary metric's set."""
    ref = split_key(results.primary)[0]
    own = [key for key in results.metric_keys if split_key(key)[0] == ref]
    mrr = [key for key in own if split_key(key)[1].startswith("mrr")]
    recalls = [key for key in own if split_key(key)[1].startswith("recall_at_")]
    recalls.sort(key=lambda key: int(key.rpartition("_")[2]))
    best = {key: max((c.metrics[key].mean for c in results.scored if key in c.metrics), default=1)
            for key in recalls}  # fmt: skip
    open_ = [key for key in recalls if best[key] < SATURATED] or recalls[:1]
    return (*mrr[:1], *open_[-1:])


def _front_words(found: Sequence[FrontPoint], mrr: str, recall: str) -> str:
    front = [one for one in found if one.on_front]
    sure = [one for one in found if one.beaten_by is not None]
    names = listing([f"`{one.cell}`" for one in front])
    head = (
        f"One cell, {names}, is best in {mrr} and in {recall}."
        if len(front) == 1
        else f"{plural(len(front), 'cell')} trade {mrr} for {recall}: {names}."
    )
    behind = (
        f" Of {plural(len(found), 'cell')}, {len(sure)} are surely worse than another one in both."
        if sure
        else " No cell is shown to be worse than another one in both."
    )
    return head + behind + " The front is drawn through means, and chance can put a cell on it."


def _dot(one: FrontPoint, cell: CellResult, keys: Sequence[str]) -> Dot:
    spread = [cell.metrics[key].sd or 0.0 for key in keys]
    words = f"{one.cell}: {number(one.first)}, {number(one.second)}"
    return Dot(one.cell, words, one.first, one.second, (spread[0], spread[1]), one.on_front)


def _front_table(
    found: Sequence[FrontPoint], cells: Mapping[str, CellResult], keys: Sequence[str]
) -> Table:
    columns = ("Cell", *map(metric_title, keys), "On the front", "Surely behind", LOST)
    rows = tuple(
        (
            value(one.cell),
            *(mean_sd(cells[one.cell].metrics[key]) for key in keys),
            value("yes" if one.on_front else "no"),
            value(one.beaten_by),
            value(cells[one.cell].lost),
        )
        for one in found
    )
    caption = "Surely behind: the cell that is better in both metrics, corrected for all pairs"
    return Table(caption, columns, rows, frozenset({*columns[1:3], LOST}))
