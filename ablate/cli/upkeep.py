"""The commands between executions: `status`, `logs`, `retry`, `gc`."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from ablate.cli.options import Json, Runs, example
from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.plan.planner import Plan
    from ablate.run.ledger import Ledger, Record
    from ablate.run.upkeep import TrialStatus

ROWS_SHOWN = 40
STATES = ("finished", "running", "failed", "stopped", "interrupted", "planned")

Known = Annotated[str, typer.Argument(metavar="STUDY", help="A study that the run folder knows.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.command(epilog=example("ablate status quickstart --runs runs"))(status)
    app.command(epilog=example("ablate logs 3fa9 --runs runs"))(logs)
    app.command(epilog=example("ablate retry quickstart --failed"))(retry)
    app.command(epilog=example("ablate gc --runs runs --dry-run"))(gc)


def status(study: Known, runs: Runs = "runs", json_: Json = False) -> None:
    """Show how the trials of a study stand: states, attempts, reasons, the time left."""
    from ablate.run.ledger import Ledger
    from ablate.run.upkeep import known_plan, statuses

    ledger = Ledger(runs)
    plan = known_plan(ledger, study)
    found = statuses(plan, ledger)
    seconds_left = _seconds_left(plan, found)
    if json_:
        rows = [_row(each) for each in found]
        content = {"study": plan.study.name, "seconds_left": seconds_left, "trials": rows}
        typer.echo(json.dumps(content, indent=1))
        return
    _show_status(plan, found, seconds_left)


def logs(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or its beginning.")],
    runs: Runs = "runs",
) -> None:
    """Show the last lines of a trial's log, why it ended as it did, and where its files are."""
    from ablate.cli.show import out
    from ablate.run.ledger import Ledger
    from ablate.run.upkeep import find_trial

    ledger = Ledger(runs)
    record = find_trial(ledger, trial)
    out.print(f"[bold]{record.trial_id}[/bold]  {record.state}, attempt {record.attempts}", end="")
    out.print(f" on {record.host}" if record.host else "")
    if record.reason:
        out.print(f"reason: {record.reason}", markup=False)
    rows = ledger.history(record.trial_id)
    if rows:
        last = ", ".join(f"{key} {value:.4g}" for key, value in rows[-1].items())
        out.print(f"last row of {len(rows)}: {last}", markup=False)
    for line in record.log_tail:
        out.print(f"  {line}", markup=False)
    home = f"{ledger.store.shown}/trials/{record.trial_id}"
    out.print(f"files: {home}/")
    for name in ledger.store.children(f"trials/{record.trial_id}"):
        out.print(f"  {name}")


def retry(
    study: Known,
    trials: Annotated[
        list[str] | None, typer.Argument(metavar="TRIAL", help="Ids, or how they begin.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every trial that failed.")] = False,
    stopped: Annotated[
        bool, typer.Option("--stopped", help="Every trial that was stopped early.")
    ] = False,
    runs: Runs = "runs",
) -> None:
    """Put failed or stopped trials back: the next `ablate run` runs them, and to their end."""
    from ablate.cli.show import out
    from ablate.run.ledger import Ledger
    from ablate.run.upkeep import known_plan, put_back, statuses

    states = {name for name, asked in (("failed", failed), ("stopped", stopped)) if asked}
    if bool(states) == bool(trials):
        rule = "takes --failed, --stopped or both, or the ids of trials"
        raise InvalidInput([Problem("retry", rule)])
    ledger = Ledger(runs)
    plan = known_plan(ledger, study)
    found = statuses(plan, ledger)
    if states:
        chosen = [each.record for each in found if each.record and each.state in states]
    else:
        chosen = _named(ledger, plan, found, trials or ())
    put_back(ledger, chosen)
    if not chosen:
        out.print(f"No trial has {'failed' if failed else 'been stopped'}.")
        return
    count = "1 trial is" if len(chosen) == 1 else f"{len(chosen)} trials are"
    out.print(f"{count} planned again: {_again(plan, ledger, study, runs)}", markup=False)


def _again(plan: Plan, ledger: Ledger, study: str, runs: str) -> str:
    """The command that goes on with the study as it was run, its --set and --only included.

    A study that was changed by --set is run from its text in the run folder, under its own name;
    from an object store that text has to be fetched first, and the answer says from where.
    """
    narrowed = [part for text in _only(plan, ledger) for part in ("--only", text)]
    rest = shlex.join((*narrowed, "--runs", runs))
    name, folder = plan.study.name, ledger.study(plan.study.name)
    for source in (study, f"{name}.yaml"):
        if _is_source(source, plan):
            return f"ablate run {shlex.quote(source)} {rest}"
    if folder.local is None:
        own = shlex.quote(f"{name}.yaml")
        kept = f"{ledger.store.shown}/{folder.path}/study.yaml"
        return f"copy {kept} to {own}, then ablate run {own} {rest}"
    home = folder.local if "://" in runs else Path(runs) / folder.path
    kept, own = (shlex.quote(str(home / file)) for file in ("study.yaml", f"{name}.yaml"))
    return f"cp {kept} {own} && ablate run {own} {rest}"


def _is_source(source: str, plan: Plan) -> bool:
    """Whether a preset or a file says, without any --set, just what was run."""
    from ablate.plan.study import load_study
    from ablate.plan.written import write_study

    try:
        return write_study(load_study(source)) == write_study(plan.study)
    except InvalidInput:
        return False


def _only(plan: Plan, ledger: Ledger) -> list[str]:
    """The compared values that the study was last narrowed to, as --only takes them."""
    written = ledger.study(plan.study.name).read("plan.json") or {"cells": []}
    names = {cell["name"] for cell in written["cells"]}
    known = [(cell.name in names, {**cell.labels, **cell.values}) for cell in plan.cells]
    kept = [values for inside, values in known if inside]
    labels = [axis.name for axis in plan.study.compare if axis.names]
    found = []
    for key in (*plan.study.compared, *labels):
        wanted = list(dict.fromkeys(values[key] for values in kept if key in values))
        everywhere = all(key in values for values in kept)
        if everywhere and len(wanted) < len({values.get(key) for _, values in known}):
            text = yaml.safe_dump(wanted, default_flow_style=True, width=2**16).strip()
            found.append(f"{key}={text}")
    return found


def gc(
    runs: Runs = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    unchosen: Annotated[
        bool, typer.Option("--unchosen", help="Also encoders of draws that no study chose.")
    ] = False,
) -> None:
    """Remove what nothing needs any more: what crashed processes left, superseded checkpoints."""
    from ablate.cli.show import out
    from ablate.run.ledger import Ledger
    from ablate.run.upkeep import leftovers

    ledger = Ledger(runs)
    if not ledger.store.exists(""):
        raise InvalidInput([Problem("--runs", "is no run folder", runs)])
    freed = 0
    counts: Counter[str] = Counter()
    for each in list(leftovers(ledger, unchosen)):
        freed += each.size
        counts[each.kind] += 1
        if dry_run:
            out.print(f"{_bytes(each.size):>9}  {each.path}", markup=False)
        elif Path(each.path).is_absolute():
            shutil.rmtree(each.path, ignore_errors=True)
        else:
            ledger.store.delete(each.path)
    for kind, count in counts.items():
        out.print(f"{count} x {kind}")
    out.print(f"{'Would free' if dry_run else 'Freed'} {_bytes(freed)}.")


def _named(
    ledger: Ledger, plan: Plan, found: Sequence[TrialStatus], trials: Sequence[str]
) -> list[Record]:
    from ablate.run.upkeep import find_trial

    own = {each.trial.trial_id for each in found}
    problems: list[Problem] = []
    chosen: dict[str, Record] = {}
    for prefix in trials:
        try:
            record = find_trial(ledger, prefix)
        except InvalidInput as error:
            problems += error.problems
            continue
        if record.trial_id not in own:
            problems.append(Problem("TRIAL", f"is no trial of {plan.study.name}", prefix))
        chosen[record.trial_id] = record
    if problems:
        raise InvalidInput(problems)
    return list(chosen.values())


def _seconds_left(plan: Plan, found: Sequence[TrialStatus]) -> float | None:
    """Seconds to the end at the speed of the study's finished trials; None when none is known."""
    from ablate.cli.planning import earlier_of
    from ablate.plan.estimate import estimate

    done = [each.record for each in found if each.record and each.state == "finished"]
    if not done:
        return None
    over = len(done) + sum(each.state in ("failed", "stopped") for each in found)
    minutes = estimate(plan, earlier_of(done), over).minutes
    return None if minutes is None else 60 * minutes


def _row(each: TrialStatus) -> dict[str, Any]:
    record = each.record
    return {
        "trial_id": each.trial.trial_id,
        "cell": each.trial.cell,
        "draw": each.trial.draw,
        "seed": each.trial.seed,
        "state": each.state,
        "attempts": record.attempts if record else 0,
        "reason": record.reason if record else None,
        "host": record.host if record else None,
        "started": record.started if record else None,
        "finished": record.finished if record else None,
    }


def _show_status(plan: Plan, found: Sequence[TrialStatus], seconds_left: float | None) -> None:
    from rich.table import Table

    from ablate.cli.show import out

    counts = Counter(each.state for each in found)
    counts["planned"] += plan.trial_count - len(found)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    out.print(f"[bold]{plan.study.name}[/bold]: {said}, of {plan.trial_count}", end="")
    over = counts["finished"] + counts["failed"] + counts["stopped"]
    if over >= plan.trial_count:
        out.print()
    else:
        out.print("; time left unknown" if seconds_left is None else _left(seconds_left))
    rows = [each for each in found if each.state not in ("finished", "planned")]
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "cell", "seed", "state", "attempts", "for", "reason"):
        table.add_column(name)
    for each in rows[:ROWS_SHOWN]:
        table.add_row(*_cells(each))
    out.print(table)
    if len(rows) > ROWS_SHOWN:
        out.print(f"… and {len(rows) - ROWS_SHOWN} more; all of them with --json")


def _cells(each: TrialStatus) -> list[str]:
    from rich.markup import escape

    record = each.record
    took = ""
    if record and record.started:
        took = f"{(record.finished or time.time()) - record.started:.0f} s"
    reason = escape(record.reason or "") if record else ""
    attempts = str(record.attempts) if record else "0"
    return [
        each.trial.trial_id,
        escape(each.trial.cell),
        str(each.trial.seed),
        each.state,
        attempts,
        took,
        reason,
    ]


def _left(seconds: float) -> str:
    shown = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"; about {shown} left"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
