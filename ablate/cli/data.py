"""The command for collections: `data inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli import DONE, WRONG_INPUT
from ablate.cli.options import Json, example

if TYPE_CHECKING:
    from trainables.data.audit import Audit, Judged

CONFLICTS_SHOWN = 5

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
    json_: Json = False,
) -> int:
    """Count what a collection holds, and list what is wrong or doubtful in it."""
    from trainables.data.audit import inspect as audit
    from trainables.data.cache import Cache
    from trainables.data.collections import parse_ref

    refs = [parse_ref(text, key="--against") for text in against or ()]
    found = audit(collection, Cache.default(), refs, min_grade)
    if json_:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        _show(found)
    return DONE if found.usable else WRONG_INPUT


def _show(found: Audit) -> None:
    from ablate.cli.show import out

    out.print(f"[bold]{found.name}[/bold]  {found.origin}; {found.licence}")
    out.print(f"{found.passages:,} passages, {found.queries:,} queries")
    for kind, parts in (("split", found.splits), ("source", found.sources)):
        for part in parts:
            out.print(f"  {kind} {_judged(part)}")
    for agreed in found.agreements:
        if agreed.kappa is not None:
            out.print(
                f"  {agreed.source} against {agreed.reference}: kappa {agreed.kappa:.2f} "
                f"on {agreed.pairs:,} pairs"
            )
    for overlap in found.overlaps:
        out.print(
            f"  {overlap.train} and {overlap.test} share: {overlap.test_queries:,} test queries, "
            f"{overlap.passages_normalised:,} positives, {overlap.corpus:,} passages in all"
        )
    for conflict in found.conflicts[:CONFLICTS_SHOWN]:
        grades = f"human {conflict.human_grade}, {conflict.source} {conflict.machine_grade}"
        out.print(f"  conflict: {conflict.query_id} {conflict.passage_id}: {grades}", markup=False)
    for fault in found.problems:
        place = fault.file if fault.line is None else f"{fault.file}:{fault.line}"
        colour = "red" if fault.fatal else "yellow"
        out.print(f"  [{colour}]{fault.kind}[/{colour}] {place}: {fault.detail}")
    for note in found.notes:
        out.print(f"  note: {note}", markup=False)


def _judged(part: Judged) -> str:
    return (
        f"{part.name}: {part.queries_judged:,} queries, {part.judgements:,} judgements, "
        f"{part.positives_per_query:.1f} positives per query"
    )
