"""What the commands print: mistakes, plans, results. Nothing here computes a number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from trainables.errors import Problem

if TYPE_CHECKING:
    from ablate.cli.planning import Outlook
    from ablate.learn.results import CellResult, Results
    from ablate.plan.parts import Study
    from ablate.plan.planner import Plan

CELLS_SHOWN = 40

# Bound to the real streams: what libraries print while a sweep runs is sent elsewhere.
# A file or a pipe has no width of its own; tables fit in this one.
PIPED_WIDTH = 120
out = Console(
    file=sys.stdout,
    emoji=False,
    width=None if sys.stdout.isatty() else PIPED_WIDTH,
    soft_wrap=True,
    highlight=False,
)
err = Console(
    file=sys.stderr,
    emoji=False,
    width=None if sys.stderr.isatty() else PIPED_WIDTH,
    soft_wrap=True,
    highlight=False,
)


def problems(found: Sequence[Problem]) -> None:
    """Every mistake, one a line, on standard error."""
    count = f"{len(found)} mistakes" if len(found) > 1 else "1 mistake"
    err.print(f"[red]{count}; nothing was started or written:[/red]")
    for problem in found:
        err.print(f"  {problem}", markup=False)


def cluster_cannot(error: Exception) -> None:
    """Why no trial of a study can run on the cluster."""
    err.print("[red]The cluster cannot run this study:[/red]", end=" ")
    err.print(str(error), markup=False)


def plan(planned: Plan, outlook: Outlook) -> None:
    """The cells, the number of trials, what is already there, the cost, and the confounds."""
    from ablate.plan.confounds import basis_of

    study = planned.study
    out.print(f"[bold]{study.name}[/bold]: {study.question}", markup=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cell")
    for key in study.compared:
        table.add_column(key)
    for cell in planned.cells[:CELLS_SHOWN]:
        values = [cell.values.get(key, "") for key in study.compared]
        table.add_row(cell.name, *("" if value is None else str(value) for value in values))
    out.print(table)
    if len(planned.cells) > CELLS_SHOWN:
        out.print(f"… and {len(planned.cells) - CELLS_SHOWN} more cells")
    cells, seeds = len(planned.cells), len(planned.seeds)
    count = f"{cells} cells x {seeds} seeds"
    if not planned.frozen_by_design:
        shared = f" (the first {planned.shared_draws} shared)" if planned.study.adaptive else ""
        draws = f"{len(planned.draws)} draws{shared}"
        count = f"{cells} cells x {draws}, the best of each x {seeds} seeds"
    to_come = f"{planned.to_come:,} of them chosen while running, " if planned.to_come else ""
    done = f"{outlook.finished:,} of them finished"
    out.print(f"{count}: {planned.trial_count:,} trials, {to_come}{done}")
    out.print(f"Evaluated: {_evaluated(study)}", markup=False)
    out.print(str(outlook.estimate), markup=False)
    if outlook.cost is not None:
        out.print(str(outlook.cost), markup=False)
    said = "\n".join(note.text for note in outlook.notes)
    if any(str(each) not in said for each in outlook.smallest):
        basis = basis_of(planned, outlook.smallest)
        out.print(f"Smallest difference that it can show: {basis}.", markup=False)
    for note in outlook.notes:
        out.print("[yellow]Note[/yellow]", end=" ")
        out.print(note.text, markup=False)


def _evaluated(study: Study) -> str:
    """Every split that trials are scored on, and what is scored while they train."""
    said = [ref.label for ref in study.references]
    if study.select is not None:
        said[0] += " (selects)"
    watch = study.watch
    if watch is not None:
        part = "" if watch.passages is None else f" over {watch.passages:,} of its passages"
        said.append(f"{watch.ref.label}{part} after every {watch.every:,} steps of the training")
    return ", ".join(said)


def ranking(results: Results, chosen: Collection[str] = ()) -> None:
    """The cells by their mean, best first, with spread over seeds and failed trials.

    Only those named in `chosen`, when there are any; their places are those among all cells.
    """
    from ablate.learn.agreement import agreements
    from ablate.learn.report.document import plural
    from ablate.learn.results import metric_title, split_key

    for ref, count in results.on_other_data.items():
        out.print(f"Left out on {ref}, scored before its data changed: {plural(count, 'trial')}.")
    if not results.scored:
        out.print("No cell has a result yet.")
        return
    reference, _ = split_key(results.primary)
    stops = any(cell.stopped for cell in results.cells)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "cell", f"{metric_title(results.primary)} on {reference}", "95 % interval"):
        table.add_column(name, justify="left" if name in ("", "cell") else "right")
    for name in ("sd over seeds", "seeds", "failed", *["stopped"] * stops, "verdict"):
        table.add_column(name, justify="left" if name == "verdict" else "right")
    for place, cell in enumerate(results.cells, start=1):
        if not chosen or cell.name in chosen:
            table.add_row(*_ranked(str(place), cell, results.primary, stops))
    for name, metrics in results.baselines.items():
        if results.primary in metrics:
            table.add_row("", f"[dim]{name}[/dim]", f"{metrics[results.primary].mean:.4f}")
    out.print(table)
    for agreement in agreements(results):
        out.print(f"{agreement}.")


def _ranked(place: str, cell: CellResult, key: str, stops: bool) -> list[str]:
    """A row of the ranking; without a score a cell has no place, not the last one either."""
    lost = [str(cell.failed), *[str(cell.stopped)] * stops, cell.verdict]
    summary = cell.metrics.get(key)
    if summary is None:
        return ["", cell.name, "-", "", "", "0", *lost]
    interval = f"{summary.low:.4f} to {summary.high:.4f}"
    sd = "-" if summary.sd is None else f"{summary.sd:.4f}"
    return [place, cell.name, f"{summary.mean:.4f}", interval, sd, str(summary.seeds), *lost]


def metrics(found: Mapping[str, float]) -> None:
    """Metric keys and values, sorted by key."""
    for key, value in sorted(found.items()):
        out.print(f"{key:<48} {value:.4f}")


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, with speed and time left, that is told (done, in all)."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


def confirmation(found: Mapping[str, Any], keys: Sequence[str]) -> None:
    """The winner in one process beside the same trial on a worker group."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "1 worker", f"{found['workers']} workers", "difference"):
        table.add_column(name, justify="left" if not name else "right")
    for key in keys:
        one, group = found["one"].get(key), found["group"].get(key)
        if one is not None and group is not None:
            table.add_row(key, f"{one:.6f}", f"{group:.6f}", f"{group - one:+.1e}")
    out.print(f"\n{found['cell']} seed {found['seed']}, in one process and on a worker group:")
    out.print(table)
    agree = "agree" if found["agree"] else "[red]DISAGREE[/red]"
    out.print(
        f"The two {agree}: relative distance of the weights {found['weights']:.1e}, "
        f"largest difference of a metric {found['largest']:.1e}."
    )
