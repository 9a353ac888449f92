"""The commands for clusters: `launch`, `fetch`, `cluster template`."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import CLUSTER_CANNOT, DONE
from ablate.cli.options import Growth, Only, Sets, Study, Tracking, example
from trainables.errors import InvalidInput, Problem, nearest, unknown

if TYPE_CHECKING:
    from ablate.plan.planner import Plan
    from ablate.run.capacity import Capacity
    from ablate.run.cluster.file import ClusterFile
    from ablate.run.cluster.launch import Order
    from ablate.run.cluster.ways import Way

File = Annotated[Path, typer.Option(help="The file of the cluster to bring up or use.")]
JobsApi = Annotated[
    str | None,
    typer.Option(help="Jobs API of a cluster that exists, http://…:8265, in place of a file."),
]
Shared = Annotated[str | None, typer.Option(metavar="URI", help="Run folder that every node sees.")]
Into = Annotated[Path, typer.Option(help="Local run folder that results are fetched into.")]

cluster = typer.Typer(no_args_is_help=True, help="Files that describe clusters.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.command(epilog=example("ablate launch losses --cluster cluster.yaml --down"))(launch)
    app.command(epilog=example("ablate fetch losses --from s3://bucket/ablate --runs runs"))(fetch)
    app.add_typer(cluster, name="cluster")


@cluster.command(epilog=example("ablate cluster template gcp --workers 16 > cluster.yaml"))
def template(
    provider: Annotated[str, typer.Argument(help="aws, gcp, local or kuberay.")],
    runs: Shared = None,
    name: Annotated[str, typer.Option(help="Name of the cluster.")] = "ablate",
    workers: Annotated[int, typer.Option(min=1, help="Most workers at once.")] = 8,
    idle_minutes: Annotated[int, typer.Option(min=1, help="Idle time before a node goes.")] = 5,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help="Workers without a GPU.")] = False,
    host: Annotated[
        list[str] | None, typer.Option(help="local: an address, the head's first; repeat.")
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="STUDY", help="kuberay: a RayJob that runs this study.")
    ] = None,
) -> None:
    """Print a cluster file for a provider, commented, to be filled in."""
    from ablate.run.cluster import shapes, templates

    problems = []
    if provider not in templates.PROVIDERS:
        problems.append(unknown("PROVIDER", provider, list(templates.PROVIDERS)))
    if host and provider != "local":
        problems.append(Problem("--host", "is for the provider local"))
    if job and provider != "kuberay":
        problems.append(Problem("--job", "is for the provider kuberay"))
    problems += _unknown_job(job) if job else []
    if problems:
        raise InvalidInput(problems)
    machine = shapes.CPU if cpu_only else shapes.GPU
    layout = shapes.Layout(name, runs, workers, machine, idle_minutes, tuple(host or ()))
    typer.echo(_ray_job(layout, job) if job else templates.template(provider, layout), nl=False)


def launch(
    study: Study,
    set_: Sets = None,
    only: Only = None,
    cluster: File = Path("cluster.yaml"),
    address: JobsApi = None,
    nodes: Growth = None,
    runs: Shared = None,
    into: Into = Path("runs"),
    down: Annotated[bool, typer.Option("--down", help="Take the cluster down at the end.")] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Only follow the study that runs there already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every command, one a line; run none.")
    ] = False,
    tracking_uri: Tracking = None,
) -> int:
    """Run a study on a cluster: bring it up, submit, follow, fetch the results, take it down.

    The study goes on when this command is stopped; the same command, or --attach, follows it again.
    """
    from ablate.cli.show import cluster_cannot
    from ablate.run.capacity import ClusterCannot

    file, planned = None if address is not None else _file(cluster), _planned(study, set_, only)
    parts, wrong = _parts(set_, only, tracking_uri), _wrong_place(planned, address, down)
    order = _order(planned, study, parts, file, runs, into, wrong)
    way = _way(file, address)
    try:
        order = dataclasses.replace(_fitted(order, planned, file, nodes), attach=attach, down=down)
        lacking = [*(file.unfilled if file else ()), *way.needs()]
        if dry_run:
            return _show(order, way, lacking)
        place = ("--cluster", str(cluster)) if file else ("--address", address or "")
        again = (*_again(set_, only, nodes, tracking_uri), *place)
        return _go(order, way, file, again, lacking)
    except ClusterCannot as error:
        cluster_cannot(error)
        return CLUSTER_CANNOT


def fetch(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    source: Annotated[str, typer.Option("--from", metavar="URI", help="Its run folder.")],
    runs: Annotated[str, typer.Option(metavar="DIR", help="Local run folder.")] = "runs",
) -> None:
    """Copy a study's records, scores and report from a run folder elsewhere; not checkpoints."""
    from ablate.cli.show import out
    from ablate.run.cluster.fetch import fetch as copy
    from ablate.run.ledger import Ledger

    count = copy(study, Ledger(source), Ledger(runs))
    out.print(f"{count} trials of {study} are in {runs}")


def _way(file: ClusterFile | None, address: str | None) -> Way:
    from ablate.run.cluster.ways import Existing, Kubectl, Launcher

    if file is None:
        return Existing(address or "")
    return Kubectl(file) if file.on_kubernetes else Launcher(file)


def _show(order: Order, way: Way, lacking: Sequence[Problem]) -> int:
    """Print the commands, and beside them what is missing before they can run."""
    from ablate.cli.show import err
    from ablate.run.cluster import launch as steps

    for line in steps.dry_run(order, way):
        typer.echo(line)
    for problem in lacking:
        err.print("[yellow]Before it can run:[/yellow]", end=" ")
        err.print(str(problem), markup=False)
    return DONE


def _go(
    order: Order,
    way: Way,
    file: ClusterFile | None,
    options: Sequence[str],
    lacking: Sequence[Problem],
) -> int:
    """Launch and return the study's exit code; when stopped, say how to follow it: with `options`,
    those of this command that the order does not hold."""
    from ablate.cli.show import err, out
    from ablate.run.cluster import launch as steps

    if lacking:
        raise InvalidInput(lacking)
    logging.disable(logging.INFO)
    shell = steps.Processes(Path.cwd())
    try:
        code = steps.launch(order, way, shell, out.print, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        place = ("--runs", order.runs, "--into", str(order.into))
        down = ("--down",) if order.down else ()
        words = ("ablate", "launch", order.source, *options, *place, *down, "--attach")
        said = f"\nThe study goes on where it is. To follow it again: {shlex.join(words)}"
        err.print(said, markup=False, soft_wrap=True)
        raise
    _spent(order, file)
    return code


def _spent(order: Order, file: ClusterFile | None) -> None:
    """Say what nodes there were and what they cost, when the results are on this machine."""
    from ablate.cli.show import out
    from ablate.run.cluster.cost import spent
    from ablate.run.cluster.nodes import node_hours, read
    from ablate.run.ledger import Ledger

    if order.here.exists():
        rows = read(Ledger(order.here).study(order.study))
        out.print(spent(node_hours(rows), file.usd_per_hour if file else {}))


def _file(path: Path) -> ClusterFile:
    from ablate.run.cluster.file import read

    return read(path)


def _planned(study: str, sets: Sequence[str] | None, only: Sequence[str] | None) -> Plan:
    from ablate.cli.commands import plan_of

    return plan_of(study, sets, only)


def _wrong_place(planned: Plan, address: str | None, down: bool) -> list[Problem]:
    """What cannot be said of a cluster, whether its commands are run or only shown."""
    from ablate.run.cluster.elsewhere import only_here, wrong_address

    problems = [] if address is None else list(wrong_address(address))
    if address is not None and down:
        problems.append(Problem("--down", "needs the cluster's file: --cluster FILE"))
    return [*problems, *only_here(planned)]


def _order(
    planned: Plan,
    source: str,
    arguments: tuple[tuple[str, ...], tuple[str, ...]],
    file: ClusterFile | None,
    runs: str | None,
    into: Path,
    wrong: Sequence[Problem],
) -> Order:
    """The order; raises InvalidInput with what is `wrong` and every mistake in the rest."""
    from ablate.run.cluster.cost import written_prices
    from ablate.run.cluster.launch import Order, new_job_id
    from ablate.run.store import mask

    runs = runs or (file.runs if file else None)
    problems = list(wrong)
    if runs is None:
        rule = "is needed: the run folder that every node sees"
        problems.append(Problem("--runs", rule))
    elif file is not None and file.provider != "local" and "://" not in runs:
        rule = "must be in an object store, s3://… or gs://…: the nodes share no disk"
        problems.append(Problem("--runs", rule, runs))
    if runs is not None and mask(runs) != runs:
        # It would stand in the job's command, for everyone who sees the dashboard.
        rule = "must hold no credentials: give them to the nodes by their role or environment"
        problems.append(Problem("--runs", rule, mask(runs)))
    if problems or runs is None:
        raise InvalidInput(problems)
    name = planned.study.name
    prices = written_prices(file.usd_per_hour) if file else ()
    return Order(name, source, *arguments, runs, into, new_job_id(name), prices=prices)


def _parts(
    sets: Sequence[str] | None, only: Sequence[str] | None, tracking: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options of `ablate run` on the cluster, and those of `ablate report` here."""
    settings = [part for text in sets or () for part in ("--set", text)]
    narrowed = [part for text in only or () for part in ("--only", text)]
    uri = ["--tracking-uri", tracking] if tracking else []
    return (*settings, *narrowed, *uri), tuple(settings)


def _again(
    sets: Sequence[str] | None,
    only: Sequence[str] | None,
    nodes: Sequence[str] | None,
    tracking: str | None,
) -> tuple[str, ...]:
    """The options that another launch of the same study needs, without what gives access."""
    from ablate.run.store import mask

    arguments, _ = _parts(sets, only, mask(tracking) if tracking else None)
    growth = [part for text in nodes or () for part in ("--nodes", text)]
    return (*arguments, *growth)


def _fitted(
    order: Order, planned: Plan, file: ClusterFile | None, nodes: Sequence[str] | None
) -> Order:
    """The order with the nodes that may come for it; raises ClusterCannot when no trial fits."""
    from ablate.cli.planning import earlier_of, finished_records, standing
    from ablate.cli.show import err
    from ablate.run.capacity import parse_nodes, worker_need, written_nodes
    from ablate.run.cluster.cost import foreseen, planned_resources
    from ablate.run.ledger import Ledger
    from ablate.run.probe import kept

    capacity: Capacity | None = file.capacity if file else None
    if nodes:
        capacity = parse_nodes(nodes)
    if capacity is None:
        return order
    prices = file.usd_per_hour if file else {}
    ledger = Ledger(order.here)
    records = finished_records(ledger)
    known = (earlier_of(records), *standing(planned, ledger, records))
    guess, cost = foreseen(planned, capacity, prices, *known, kept(ledger))
    err.print(str(guess), markup=False)
    if file is not None and cost is not None:
        err.print(str(cost), markup=False)
    growth = written_nodes(capacity.best(worker_need(planned_resources(planned))))
    return dataclasses.replace(order, nodes=tuple(growth))


def _unknown_job(study: str) -> list[Problem]:
    """Why a job cannot run this study; says of a file that it must lie in the image."""
    from ablate.cli.show import err
    from ablate.plan.presets import preset_names

    if study in preset_names():
        return []
    if not Path(study).is_file():
        names = preset_names()
        rule = f"is neither a preset nor a file; presets: {', '.join(names)}"
        return [Problem("--job", rule, study, nearest(study, names))]
    err.print(f"The image must hold {study} at this path.", markup=False)
    return []


def _ray_job(layout: Any, study: str) -> str:
    from ablate.run.capacity import Capacity, Nodes, written_nodes
    from ablate.run.cluster import kubernetes

    kinds = tuple(Nodes(kubernetes.offers(kind), kind.most) for kind in layout.workers[:1])
    nodes = written_nodes(Capacity((), kinds, layout.most).best({"CPU": 1.0}))
    options = [part for text in nodes for part in ("--nodes", text)]
    place = ("--runs", layout.runs_in("s3://"), "--address", "auto")
    return kubernetes.job(layout, shlex.join(("ablate", "run", study, *place, *options)))
