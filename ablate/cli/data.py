"""The command for collections: `data inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli import DONE, WRONG_INPUT
from ablate.cli.options import Json, example

if TYPE_CHECKING:
    from rich.table import Table

    from trainables.data.agreement import Agreement
    from trainables.data.audit import Audit, Judged, Lengths
    from trainables.data.overlap import Overlap

TEXT_SHOWN = 40
"""Letters of a text in a table."""

data = typer.Typer(no_args_is_help=True, help="Look at collections.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.add_typer(data, name="data")


@data.callback()
def _group() -> None:
    """Look at collections."""


@data.command(epilog=example("ablate data inspect path/to/collection --against nq/test"))
def inspect(
    collection: Annotated[str, typer.Argument(help="A built-in name or a path.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="NAME|PATH/SPLIT that is evaluated on: its overlap is counted."),
    ] = None,
    min_grade: Annotated[int, typer.Option(min=1, help="Lowest grade of a positive.")] = 1,
    conflicts: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="List where it differs most from the human labels."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Conflicts listed.")] = 20,
    json_: Json = False,
) -> int:
    """Count what a collection holds, and list what is wrong or doubtful in it."""
    from trainables.data.audit import inspect as audit
    from trainables.data.cache import Cache
    from trainables.data.collections import parse_ref

    refs = [parse_ref(text, key="--against") for text in against or ()]
    found = audit(collection, Cache.default(), refs, min_grade, conflicts_of=conflicts, limit=limit)
    if json_:
        typer.echo(json.dumps(found.to_json(), indent=1))
    elif conflicts is not None and found.usable:
        _show_conflicts(found, conflicts)
    else:
        _show(found)
    return DONE if found.usable else WRONG_INPUT


def _show(found: Audit) -> None:
    from rich.markup import escape

    from ablate.cli.show import out

    out.print(f"[bold]{found.name}[/bold]  {found.origin}; licence: {found.licence}")
    for kind, count, words in (
        ("passages", found.passages, found.passage_words),
        ("queries", found.queries, found.query_words),
    ):
        out.print(f"{count:,} {kind}{'' if words is None else _lengths(words)}")
    if found.splits:
        parts = [("split", part) for part in found.splits]
        parts += [("source", part) for part in found.sources]
        out.print(_counts(parts))
        out.print(_histogram(parts))
    for agreed in found.agreements:
        out.print(_agreement(agreed))
    for overlap in found.overlaps:
        out.print(_overlap(overlap))
    if found.conflicts:
        out.print("Where a source and the human labels differ most: --conflicts SOURCE lists it.")
    for fault in found.problems:
        place = fault.file if fault.line is None else f"{fault.file}:{fault.line}"
        colour = "red" if fault.fatal else "yellow"
        out.print(f"[{colour}]{fault.kind}[/{colour}] {place}: {escape(fault.detail)}")
    for note in found.notes:
        out.print(f"note: {note}", markup=False)


def _lengths(words: Lengths) -> str:
    odd = [(words.empty, "empty"), (words.duplicates, "repeat an earlier one")]
    told = "".join(f"; {count:,} {what}" for count, what in odd if count)
    return (
        f", words: mean {words.mean:.1f}, median {words.median:,}, 95 % up to {words.p95:,}, "
        f"longest {words.longest:,}{told}"
    )


def _counts(parts: list[tuple[str, Judged]]) -> Table:
    """A line for each split and source."""
    table = _table("", "queries", "judged", "positive", "per query", "most", "dangling")
    for kind, part in parts:
        counts = (part.queries_judged, part.judgements, part.positives)
        table.add_row(
            f"{kind} {part.name}",
            *(f"{count:,}" for count in counts),
            f"{part.positives_per_query:.1f}",
            f"{part.most_positives:,}",
            f"{part.dangling:,}",
        )
    return table


def _histogram(parts: list[tuple[str, Judged]]) -> Table:
    """How many queries of each split and source have so many positives."""
    bins = [name for name in parts[0][1].histogram if any(p.histogram[name] for _, p in parts)]
    table = _table("queries with so many positives:", *bins)
    for kind, part in parts:
        table.add_row(f"{kind} {part.name}", *(f"{part.histogram[name]:,}" for name in bins))
    return table


def _table(first: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _agreement(found: Agreement) -> str:
    shares = (
        ("kappa", found.kappa),
        ("precision", found.precision),
        ("recall", found.recall),
    )
    told = ", ".join(f"{name} {value:.2f}" for name, value in shares if value is not None)
    return (
        f"{found.source} against {found.reference}: {found.pairs:,} pairs judged by both"
        f"{', ' if told else ''}{told}"
    )


def _overlap(found: Overlap) -> str:
    parts = (
        ("test queries", found.test_queries, found.test_queries_of, found.test_queries_exact),
        ("positives", found.test_passages, found.test_passages_of, found.test_passages_exact),
    )
    told = ", ".join(
        f"{count:,} of {whole:,} {what} ({exact:,} letter by letter)"
        for what, count, whole, exact in parts
    )
    text = f"{found.train} and {found.test} share: {told}, {found.corpus:,} passages in all"
    return text + (f"; {found.conflicting:,} pairs judged otherwise" if found.conflicting else "")


def _show_conflicts(found: Audit, source: str) -> None:
    """The conflicts as a table for somebody who judges them again."""
    from rich.markup import escape
    from rich.table import Table

    from ablate.cli.show import out

    if not found.conflicts:
        out.print(f"{source} and the human labels of {found.name} differ on no pair.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("query", "passage", "human", "machine", "text of the query", "of the passage"):
        table.add_column(name, justify="right" if name in ("human", "machine") else "left")
    for conflict in found.conflicts:
        grades = (str(conflict.human_grade), str(conflict.machine_grade))
        texts = (_short(conflict.query), _short(conflict.passage))
        row = (conflict.query_id, conflict.passage_id, *grades, *texts)
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= TEXT_SHOWN else one_line[: TEXT_SHOWN - 1] + "…"
