"""Every metric on every query set, and the primary metric over all sets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ablate.learn.report.document import (
    LOST,
    Section,
    Table,
    Value,
    interval,
    listing,
    number,
    value,
)
from ablate.learn.results import ALPHA, Results, metric_title, split_key
from ablate.learn.stats import Summary, cell_summaries, mean_of_sets


def other_metrics(results: Results) -> Section:
    """A table per query set, cells by metrics."""
    refs = dict.fromkeys(split_key(key)[0] for key in results.metric_keys)
    tables = [table for ref in refs if (table := _metric_table(results, ref))]
    return Section("metrics", "All metrics", tuple(tables))


def per_set(results: Results) -> Section:
    """The primary metric on each test set, best first by the mean over the sets."""
    metric = split_key(results.primary)[1]
    keys = [f"{ref}/{metric}" for ref in results.test_refs]
    keys = [key for key in keys if key in results.metric_keys]
    if len(keys) < 2:
        return Section("sets", "Over the test sets", ())
    columns = ("Cell", "Mean of sets", "95 % interval", *(split_key(k)[0] for k in keys), LOST)
    whole = _over_sets(results, keys)
    rows = [
        _set_row(cell.name, whole.get(cell.name), cell.metrics, keys, cell.lost)
        for cell in results.scored
    ]
    rows += [_baseline_row(name, found, keys) for name, found in results.baselines.items()]
    rows.sort(key=lambda row: -(row[1].sort or 0.0))
    caption = (
        f"{metric_title(metric)} on each test set ± sd over seeds. The mean weighs every set the "
        "same, and its interval holds seeds and queries; the sets themselves are taken as given. "
        f"{_short(results, keys)}Sets differ in difficulty: compare within a column"
    )
    table = Table(caption, columns, tuple(rows), frozenset(columns[1:]))
    return Section("sets", "Over the test sets", (table,))


def _over_sets(results: Results, keys: list[str]) -> dict[str, Summary]:
    """The summary of the mean over all sets, of the trials that have every one; cells without
    such a trial are left out."""
    found = results.scores.together(keys)
    whole = [cell for cell in results.scored if all(key in cell.metrics for key in keys)]
    joined = {cell.name: mean_of_sets(found[cell.name]) for cell in whole if cell.name in found}
    return cell_summaries(joined, ALPHA) if joined else {}


def _short(results: Results, keys: Sequence[str]) -> str:
    """A sentence on the cells with trials that lack a set; empty when there are none."""
    refs = [split_key(key)[0] for key in keys]
    cells = []
    for cell in results.scored:
        every = len(results.scores.trials(cell.name, refs))
        some = {t.trial_id for ref in refs for t in results.scores.trials(cell.name, [ref])}
        if every < len(some):
            cells.append(f"{every} of {len(some)} of {cell.name}")
    words = "Only trials that have every set are in the mean: "
    return f"{words}{listing(cells)}. " if cells else ""


def _set_row(
    name: str,
    whole: Summary | None,
    metrics: Mapping[str, Summary],
    keys: Sequence[str],
    lost: int,
) -> tuple[Value, ...]:
    shown = [value(None), value(None)]
    if whole is not None:
        ends = value(interval(whole.low, whole.high), whole.low)
        shown = [value(number(whole.mean), whole.mean), ends]
    return (value(name), *shown, *(mean_sd(metrics.get(key)) for key in keys), value(lost))


def _baseline_row(
    name: str, metrics: Mapping[str, Summary], keys: Sequence[str]
) -> tuple[Value, ...]:
    means = [metrics[key].mean for key in keys if key in metrics]
    mean = fmean(means) if len(means) == len(keys) else None
    own = (mean_sd(metrics.get(key)) for key in keys)
    return (value(f"{name} (baseline)"), value(number(mean), mean), value(None), *own, value(None))


def _metric_table(results: Results, ref: str) -> Table | None:
    if not results.scored:
        return None
    twins = _twins(results, [key for key in results.metric_keys if split_key(key)[0] == ref])
    keys = [key for key, twin in twins.items() if twin is None]
    columns = ("Cell", *(metric_title(key) for key in keys), LOST)
    rows = [
        (value(cell.name), *(mean_sd(cell.metrics.get(key)) for key in keys), value(cell.lost))
        for cell in results.scored
    ]
    rows += [
        (
            value(f"{name} (baseline)"),
            *(mean_sd(summaries.get(key)) for key in keys),
            value(None),
        )
        for name, summaries in results.baselines.items()
        if any(key in summaries for key in keys)
    ]
    same = [f"{metric_title(k)} equals {metric_title(twin)}" for k, twin in twins.items() if twin]
    caption = "; ".join([f"{ref}: mean ± sd over seeds", *same])
    return Table(caption, columns, tuple(rows), frozenset(columns[1:]))


def _twins(results: Results, keys: Sequence[str]) -> dict[str, str | None]:
    """Metric key -> an earlier one with the same scores everywhere, such as bpref and the recall
    where no passage is judged irrelevant."""
    every = [*(cell.metrics for cell in results.scored), *results.baselines.values()]
    seen: dict[tuple[Summary | None, ...], str] = {}
    found: dict[str, str | None] = {}
    for key in keys:
        column = tuple(metrics.get(key) for metrics in every)
        found[key] = seen.get(column)
        seen.setdefault(column, key)
    return found


def mean_sd(summary: Summary | None) -> Value:
    """A mean with its spread over seeds, sorted by the mean."""
    if summary is None:
        return value(None)
    spread = "" if summary.sd is None else f" ± {number(summary.sd)}"
    return value(f"{number(summary.mean)}{spread}", summary.mean)
