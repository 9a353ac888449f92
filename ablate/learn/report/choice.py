"""Chosen on dev, judged on test: what was chosen, and how far dev flattered it."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.learn.report.document import (
    LOST,
    Block,
    Section,
    Table,
    Text,
    Value,
    difference,
    number,
    plural,
    signed,
    value,
)
from ablate.learn.results import CellResult, Results, metric_title, split_key
from ablate.learn.stats import WinnersCurse, winners_curse

TITLE = "Chosen on dev, judged on test"
MOST_DRAWS = 2000
"""Trials of draws up to which their scores are read for the optimism of each choice."""
MOST_CELLS = 500
"""Cells among which the best on dev is resampled: the best ranked."""


def choice(results: Results) -> Section:
    """What was chosen for each cell, and what its dev score became on the test."""
    select = results.study.select
    if select is None:
        why = "the study has no `select`: nothing was chosen on a dev split"
        return Section("choice", TITLE, (), why)
    twin = f"{split_key(results.primary)[0]}/{select.metric}"
    both = [cell for cell in results.cells if {select.key, twin} <= cell.metrics.keys()]
    if not both or twin == select.key:
        return Section("choice", TITLE, (), "no cell has scores on dev and on test")
    blocks: list[Block] = []
    if len(both) > 1:
        blocks.append(Text(_best_cell(results, both, select.key, twin)))
    blocks.append(_table(results, select.key, twin))
    return Section("choice", TITLE, tuple(blocks))


def _best_cell(results: Results, both: Sequence[CellResult], dev: str, test: str) -> str:
    """The curse of taking the cell that is best on dev."""
    on_dev, on_test = results.scores.grid(dev), results.scores.grid(test)
    names = [cell.name for cell in both[:MOST_CELLS]]
    found = winners_curse({name: on_dev[name] for name in names})
    found = winners_curse({name: on_dev[name] for name in names}, on_test[found.chosen])
    place = 1 + [cell.name for cell in both].index(found.chosen)
    title = metric_title(test)
    return (
        f"**The winner's curse.** Of {plural(len(names), 'cell')}, `{found.chosen}` is best on dev "
        f"with {number(found.dev)} {title}. To be the best of so many is partly luck of the dev "
        f"queries: its score there is expected to be too high by {number(found.optimism)}. On test "
        f"it scores {number(found.test)} and ranks {place}. {_gap(found)}"
    )


def _gap(found: WinnersCurse) -> str:
    if found.gap is None or found.low is None or found.high is None:
        return ""
    return (
        f"Dev minus test is {difference(found.gap, found.low, found.high)}, which also holds how "
        "hard either's queries are."
    )


def _table(results: Results, dev: str, test: str) -> Table:
    keys = tuple(results.study.tune)
    optimism = _optimism(results, dev)
    columns = ("Cell", *(("Draws", *keys) if keys else ()), "dev", "test", "dev − test")
    columns += ("Optimism", LOST) if optimism else (LOST,)
    rows = []
    for cell in results.cells:
        draws = len({trial.planned.draw for trial in cell.trials})
        tuned = (value(draws), *(value(cell.tuned.get(key)) for key in keys)) if keys else ()
        expected = optimism.get(cell.name)
        own = (value(number(expected), expected),) if optimism else ()
        rows.append((value(cell.name), *tuned, *_dev_test(cell, dev, test), *own, value(cell.lost)))
    caption = f"{metric_title(dev)} on {split_key(dev)[0]} and on {split_key(test)[0]}; means over "
    caption += "all seeds."
    if keys:
        caption += " The draw of each cell was the best on dev under the first seed."
    if optimism:
        caption += " Optimism: how much being the best of its draws flatters the chosen one on dev."
    return Table(caption, columns, tuple(rows), frozenset(columns[1:]))


def _optimism(results: Results, dev: str) -> dict[str, float]:
    """Cell name -> expected optimism of its chosen draw; empty where nothing is tuned."""
    if not results.study.tune or len(results.trials) > MOST_DRAWS:
        return {}
    found = {}
    for cell in results.cells:
        draws = {
            str(trial.planned.draw): scores
            for trial in cell.trials
            if trial.seed == results.study.seeds[0]
            and (scores := results.scores.trial(trial, dev)) is not None
        }
        if len(draws) > 1:
            found[cell.name] = winners_curse(draws).optimism
    return found


def _dev_test(cell: CellResult, dev: str, test: str) -> list[Value]:
    found = [cell.metrics.get(key) for key in (dev, test)]
    shown = [value(number(s.mean), s.mean) if s else value(None) for s in found]
    if found[0] is None or found[1] is None:
        return [*shown, value(None)]
    gap = found[0].mean - found[1].mean
    return [*shown, value(signed(gap), gap)]
