"""The command `plan`, and what it shares with the commands that show a plan before they act."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import CLUSTER_CANNOT, DONE, SOME_FAILED
from ablate.cli.options import Json, Only, Runs, Sets, Study, example
from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.plan.confounds import Confound
    from ablate.plan.estimate import Estimate
    from ablate.plan.planner import Plan
    from ablate.plan.power import Detectable
    from ablate.plan.timing import Earlier, Unscored
    from ablate.run.cluster.cost import Cost
    from ablate.run.cluster.file import ClusterFile
    from ablate.run.ledger import Ledger, Record

ClusterPath = Annotated[
    Path | None,
    typer.Option("--cluster", metavar="FILE", help="Cluster whose time and prices are meant."),
]

Probing = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Time a short trial of every shape that no earlier trial tells of, on this machine; "
        "its data are prepared in the run folder.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command(epilog=example("ablate plan temperature --set optim.steps=200"))(plan)


def plan(
    study: Study,
    set_: Sets = None,
    only: Only = None,
    runs: Runs = "runs",
    cluster: ClusterPath = None,
    probe: Probing = False,
    json_: Json = False,
) -> int:
    """Show cells, trials, what is already done, time and cost, and what would confound it."""
    from ablate.cli import show
    from ablate.cli.commands import plan_of
    from ablate.run.capacity import ClusterCannot
    from ablate.run.ledger import Ledger

    file = None if cluster is None else _file(cluster)
    ledger = Ledger(runs)
    planned = plan_of(study, set_, only)
    planned = planned.resumed(ledger.study(planned.study.name).search)
    if probe and not _probed(planned, ledger):
        return SOME_FAILED
    try:
        seen = outlook(planned, ledger, file)
    except ClusterCannot as error:
        show.cluster_cannot(error)
        return CLUSTER_CANNOT
    if json_:
        typer.echo(json.dumps(planned.to_json() | seen.to_json(), indent=1))
    else:
        show.plan(planned, seen)
    return DONE


def _probed(planned: Plan, ledger: Ledger) -> bool:
    """Whether every shape of trial is timed now, in the run folder; says why not."""
    from ablate.cli import show
    from ablate.plan.cost import collection_size
    from ablate.plan.timing import Timing
    from ablate.run.probe import ProbeFailed, kept, measure

    ledger.store.require()
    earlier = earlier_of(finished_records(ledger))
    lacking = Timing(planned, earlier, kept(ledger), collection_size, None).lacking()
    try:
        with show.counting("Timing short trials", "shapes") as bar:
            measure(planned, lacking, ledger, bar)
    except ProbeFailed as error:
        show.err.print("[red]The probe failed:[/red]", end=" ")
        show.err.print(str(error), markup=False)
        return False
    return True


@dataclass(frozen=True)
class Outlook:
    """What is known of a plan before it runs. `cost` is None without a cluster."""

    finished: int
    estimate: Estimate
    cost: Cost | None
    smallest: list[Detectable]
    """The smallest difference that it can show, by test split."""
    notes: list[Confound]

    def to_json(self) -> dict[str, Any]:
        """The outlook as JSON values."""
        return {
            "finished": self.finished,
            "estimate": self.estimate.to_json(),
            "cost": None if self.cost is None else self.cost.to_json(),
            "smallest_effects": [each.to_json() for each in self.smallest],
            "warnings": [{"code": note.code, "text": note.text} for note in self.notes],
        }


def outlook(planned: Plan, ledger: Ledger, file: ClusterFile | None = None) -> Outlook:
    """The outlook on a run folder, or on the cluster of `file`.

    Raises ClusterCannot when no trial fits there.
    """
    from ablate.learn.spread import measured
    from ablate.plan.cost import collection_size
    from ablate.plan.estimate import estimate, warnings
    from ablate.plan.power import detectable
    from ablate.run.cluster.cost import foreseen
    from ablate.run.probe import kept

    ledger.store.require()
    records = finished_records(ledger)
    known = (earlier_of(records), *standing(planned, ledger, records))
    probes = kept(ledger)
    if file is None or file.capacity is None:
        guess, cost = estimate(planned, *known, probes=probes), None
    else:
        capacity, prices = file.capacity, file.usd_per_hour
        guess, cost = foreseen(planned, capacity, prices, *known, probes)
    priors = measured(planned, ledger, records)
    smallest = list(detectable(planned, collection_size, priors))
    notes = [*warnings(planned, priors=priors), *_data_warnings(planned, ledger)]
    return Outlook(known[1], guess, cost, smallest, notes)


def finished_records(ledger: Ledger) -> list[Record]:
    """The records of all finished trials of a run folder, whichever study they are of."""
    return [record for record in ledger.records() if record.state == "finished"]


def earlier_of(records: Sequence[Record]) -> Earlier:
    """Specs of finished trials with the seconds that they took, and what they were scored on."""
    from ablate.plan.timing import EarlierTrial

    return [EarlierTrial(record.spec, record.seconds, record.evaluated) for record in records]


def standing(planned: Plan, ledger: Ledger, records: Sequence[Record]) -> tuple[int, Unscored]:
    """How many of the records are trials of the plan, as far as its choices are made; and those
    that lack scores, each with the references that it is still to be scored on."""
    from ablate.run.trial import has

    if not records:
        return 0, []
    chosen = planned.possible(ledger.study(planned.study.name).choices())
    wanted = {trial.trial_id: planned.dev_refs for trial in planned.trials()}
    wanted |= {trial.trial_id: planned.study.references for trial in planned.repeat(chosen)}
    own = [record for record in records if record.trial_id in wanted]
    lacking = []
    for record, trial in zip(own, earlier_of(own), strict=True):
        refs = [ref for ref in wanted[record.trial_id] if not has(record, planned.marks([ref]))]
        if refs:
            lacking.append((trial, refs))
    return len(own), lacking


def _data_warnings(planned: Plan, ledger: Ledger) -> list[Confound]:
    """What the data share or lack, looked for where the run folder and the user keep them."""
    from ablate.plan.overlaps import data_warnings
    from trainables.data.cache import Cache

    local = ledger.store.local
    own = [] if local is None else [Cache(local / "cache")]
    return data_warnings(planned, [*own, Cache.default()])


def _file(path: Path) -> ClusterFile:
    from ablate.run.cluster.file import read

    file = read(path)
    if file.capacity is None:
        rule = "must say what its nodes have: fill in metadata.each_host_has"
        raise InvalidInput([Problem("--cluster", rule, place=str(path))])
    return file
