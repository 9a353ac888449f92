"""`track`, and what is said about MLflow wherever it is filled."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ablate.cli import DONE, SOME_FAILED
from ablate.cli.options import Runs, Sets, Study, Tracking, example

if TYPE_CHECKING:
    from ablate.learn.tracking.filler import Filler
    from ablate.learn.tracking.sync import SyncSummary


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    shown = example("ablate track quickstart --tracking-uri http://127.0.0.1:5000")
    app.command(epilog=shown)(track)


def track(
    study: Study, set_: Sets = None, runs: Runs = "runs", tracking_uri: Tracking = None
) -> int:
    """Fill MLflow from the run folder; what is already there is not written twice."""
    from ablate.cli.commands import plan_of, require_records
    from ablate.cli.show import out
    from ablate.learn.results import collect
    from ablate.learn.tracking.door import TrackingUnavailable
    from ablate.learn.tracking.sync import sync
    from ablate.run.ledger import Ledger

    planned = plan_of(study, set_, None)
    ledger = Ledger(runs)
    require_records(planned, ledger, runs)
    try:
        with out.status("Filling MLflow") as status:
            summary = sync(
                collect(planned, ledger),
                ledger,
                tracking_uri,
                progress=lambda done, total: status.update(f"Filling MLflow: {_far(done, total)}"),
            )
    except TrackingUnavailable as error:
        unfilled(str(error), command("track", study, set_, runs, tracking_uri))
        return SOME_FAILED
    where(summary)
    return DONE


def follow(filler: Filler, again: str) -> None:
    """Wait a while for what the filler has left, and say where it is or how to send the rest."""
    from ablate.cli.show import out
    from ablate.learn.tracking.filler import Behind

    with out.status("Filling MLflow") as status:
        found = filler.finish(
            progress=lambda done, total: status.update(f"Filling MLflow: {_far(done, total)}")
        )
    if not isinstance(found, Behind):
        where(found)
        return
    unfilled(f"{found.reason} ({_far(found.done, found.total)})", again)


def _far(done: int, total: int) -> str:
    return f"{done} of {total} runs are there" if total else "no run is there yet"


def where(summary: SyncSummary) -> None:
    """The command that serves the store, when it needs one, and the pages to look at."""
    from ablate.cli.show import out

    if summary.server_command:
        out.print(f"MLflow:  {summary.server_command}")
    out.print(f"Cells:   {summary.cells_url}")
    out.print(f"Compare: {summary.charts_url}")


def unfilled(reason: str, again: str) -> None:
    """That MLflow does not hold everything, why, and the command that sends the rest."""
    from ablate.cli.show import err

    err.print("[yellow]MLflow does not hold everything yet:[/yellow]", end=" ")
    err.print(f"{reason}.", markup=False)
    err.print(f"Nothing is lost: the run folder has it all. To go on: {again}", markup=False)


def command(name: str, study: str, sets: Sequence[str] | None, runs: str, uri: str | None) -> str:
    """An `ablate` command with the same study, run folder and server."""
    from ablate.run.store import mask

    words = ["ablate", name, study, *(word for pair in sets or () for word in ("--set", pair))]
    words += ["--runs", runs] if runs != "runs" else []
    words += ["--tracking-uri", mask(uri)] if uri else []
    return shlex.join(words)
