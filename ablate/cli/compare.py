"""`compare`: chosen cells side by side, in the terminal and on MLflow's pages."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer

from ablate.cli import DONE, SOME_FAILED, tracking
from ablate.cli.options import Runs, Sets, Study, Tracking, example
from trainables.errors import InvalidInput, unknown

if TYPE_CHECKING:
    from ablate.learn.results import CellResult, Results
    from ablate.learn.tracking.sync import SyncSummary

PAIRS_SHOWN = 15
START_SECONDS = 120.0
"""How long a tracking server may take to answer for the first time."""


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command(epilog=example("ablate compare quickstart --cells 01 --cells 04 --open"))(compare)


def compare(
    study: Study,
    set_: Sets = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="A cell's name, or its number; repeatable. All cells if not given."),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the page, and serve it where nothing does yet.")
    ] = False,
    runs: Runs = "runs",
    tracking_uri: Tracking = None,
) -> int:
    """Compare cells: a table here, and MLflow's page with the same cells and their axes."""
    from ablate.cli.commands import plan_of, require_records
    from ablate.cli.show import out, ranking
    from ablate.learn.results import collect
    from ablate.learn.tracking.door import TrackingUnavailable
    from ablate.learn.tracking.sync import sync
    from ablate.run.ledger import Ledger

    planned, ledger = plan_of(study, set_, None), Ledger(runs)
    require_records(planned, ledger, runs)
    results = collect(planned, ledger)
    chosen = chosen_cells(results, cells or ())
    ranking(results, [cell.name for cell in chosen])
    if cells:
        _differences(results, [cell.name for cell in chosen])
    try:
        with out.status("Filling MLflow"):
            names = [cell.name for cell in chosen] if cells else []
            summary = sync(results, ledger, tracking_uri, compared=names)
    except TrackingUnavailable as error:
        tracking.unfilled(str(error), tracking.command("track", study, set_, runs, tracking_uri))
        return SOME_FAILED
    if open_:
        return _open(summary)
    _say(summary)
    return DONE


def chosen_cells(results: Results, asked: Sequence[str]) -> tuple[CellResult, ...]:
    """The cells that are asked for by name or number, best first; all when none is.

    Raises InvalidInput with every word that names no cell.
    """
    if not asked:
        return results.cells
    names = [cell.name for cell in results.cells]
    numbers = {name.split()[0]: name for name in names}
    numbers |= {number.lstrip("0"): name for number, name in numbers.items()}
    wrong = [word for word in asked if word not in names and word not in numbers]
    if wrong:
        raise InvalidInput([unknown("--cells", word, names) for word in wrong])
    wanted = {numbers.get(word, word) for word in asked}
    return tuple(cell for cell in results.cells if cell.name in wanted)


def _differences(results: Results, names: Sequence[str]) -> None:
    """The paired differences between the chosen cells that the study's family holds."""
    from rich.table import Table

    from ablate.cli.show import out

    pairs = [pair for pair in results.comparisons if pair.a in names and pair.b in names]
    if not pairs:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "minus", "difference", "95 % interval of the family", "different"):
        table.add_column(name, justify="right" if "diff" in name or "%" in name else "left")
    for pair in pairs[:PAIRS_SHOWN]:
        interval = f"{pair.low_family:+.4f} to {pair.high_family:+.4f}"
        different = "yes" if pair.different else "not shown"
        table.add_row(pair.a, pair.b, f"{pair.effect:+.4f}", interval, different)
    out.print()
    out.print(table)
    if len(pairs) > PAIRS_SHOWN:
        out.print(f"… and {len(pairs) - PAIRS_SHOWN} more pairs: see the report.")


def _say(summary: SyncSummary) -> None:
    from ablate.cli.show import out

    out.print()
    if summary.server_command:
        out.print(f"Serve:   {summary.server_command}")
    out.print(f"Charts:  {summary.charts_url}")
    out.print(f"Compare: {summary.compare_url}")


def _open(summary: SyncSummary) -> int:
    """Open the charts; a store that nothing serves is served on this machine until Ctrl-C."""
    from ablate.cli.show import err, out

    if summary.server_command is None:
        webbrowser.open(summary.charts_url)
        out.print(f"\nOpened: {summary.charts_url}")
        return DONE
    port, words = _free_port(), shlex.split(summary.server_command)
    place = words.index("--port") + 1
    base, words[place] = f"http://127.0.0.1:{words[place]}", str(port)
    url = summary.charts_url.replace(base, f"http://127.0.0.1:{port}", 1)
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with out.status("Starting the MLflow server"):
            ready = _answers(f"http://127.0.0.1:{port}/health", server)
        if not ready:
            err.print(f"[red]The server did not start:[/red] {shlex.join(words)}")
            return SOME_FAILED
        webbrowser.open(url)
        out.print(f"\nOpened: {url}\nServing until Ctrl-C.")
        server.wait()
    except KeyboardInterrupt:
        out.print("\nThe server has stopped.")
    finally:
        server.terminate()
        server.wait()
    return DONE


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server comes to answer before it ends or the time is up."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.3)
    return False
