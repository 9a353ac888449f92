"""The commands' signatures and what each calls; the work is done elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import (
    CLUSTER_CANNOT,
    DONE,
    SOME_FAILED,
    annotate,
    compare,
    data,
    evaluate,
    launch,
    planning,
    tracking,
    upkeep,
)
from ablate.cli.options import (
    Address,
    Claims,
    Growth,
    Only,
    Prices,
    Runs,
    Sets,
    Study,
    Tracking,
    example,
)
from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.learn.claims import Claim
    from ablate.plan.parts import Study as StudyOf
    from ablate.plan.planner import Plan
    from ablate.run.execution import Execution
    from ablate.run.ledger import Ledger, StudyFolder

app = typer.Typer(
    name="ablate",
    help="Which multi-positive loss, temperature and label mix should a dense retriever be "
    "trained with, and how sure may you be?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

CONFIRMED_METRICS = 4
"""Metrics of the winner that are shown for one worker and for the worker group."""


@app.command(epilog=example("ablate presets"))
def presets() -> None:
    """List the studies that come with ablate."""
    from ablate.cli.show import out
    from ablate.plan.presets import presets as listed

    for preset in listed():
        out.print(f"[bold]{preset.name:<12}[/bold] {preset.question}")


@app.command(epilog=example("ablate validate my_study.yaml --set optim.lr=2.0e-5"))
def validate(study: Study, set_: Sets = None) -> None:
    """Check a study and list every mistake in it; nothing is started or written."""
    from ablate.cli.show import out
    from ablate.plan.planner import make_plan

    loaded = _study_of(study, set_, None)
    planned = make_plan(loaded)
    out.print(
        f"{loaded.name} is valid: {len(planned.cells)} cells, {planned.trial_count} trials at most."
    )


planning.register(app)


@app.command(epilog=example("ablate run quickstart --runs runs"))
def run(
    study: Study,
    set_: Sets = None,
    only: Only = None,
    runs: Runs = "runs",
    address: Address = None,
    nodes: Growth = None,
    price: Prices = None,
    tracking_uri: Tracking = None,
) -> int:
    """Run a study, or what is left of it, and report what it found."""
    from ablate.cli.live import LiveView
    from ablate.cli.show import cluster_cannot, out
    from ablate.cli.show import plan as show_plan
    from ablate.learn.claims import find_claims
    from ablate.learn.tracking.filler import Filler
    from ablate.run.capacity import ClusterCannot, parse_nodes
    from ablate.run.execution import StudyRun
    from ablate.run.ledger import Ledger

    growth = parse_nodes(nodes) if nodes else None
    planned, ledger = plan_of(study, set_, only), Ledger(runs)
    claims = find_claims(study)
    planned = planned.resumed(ledger.study(planned.study.name).search)
    show_plan(planned, planning.outlook(planned, ledger))
    _keep_prices(ledger.study(planned.study.name), price or ())
    key = planned.study.select.key if planned.study.select else None
    with Filler(planned, runs, tracking_uri) as filler:
        view = LiveView(out, key, on_record=filler.changed)
        try:
            done = StudyRun(planned, runs, view, address, growth).run()
        except ClusterCannot as error:
            cluster_cannot(error)
            return CLUSTER_CANNOT
        _say_what_is_left(done, planned.study.name, runs)
        _conclude(planned, ledger, done.confirmed, claims)
        tracking.follow(filler, tracking.command("track", study, set_, runs, tracking_uri))
    return SOME_FAILED if done.failed or done.left_failed else DONE


def _keep_prices(folder: StudyFolder, price: Sequence[str]) -> None:
    """Leave the prices of the cluster's nodes where the report looks for them."""
    from ablate.run.cluster.cost import PRICES, parse_prices

    prices = parse_prices(price)
    if prices:
        folder.write(PRICES, prices)


@app.command(epilog=example("ablate train quickstart --set loss.name=lse_pair --out out"))
def train(
    study: Study,
    out: Annotated[Path, typer.Option(help="Folder for result.json and checkpoint/.")],
    set_: Sets = None,
    only: Only = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of the trial.")] = 1,
) -> int:
    """Train one trial: the study's fixed values, and --set or --only for all the rest.

    One worker uses OMP_NUM_THREADS CPU threads; if that is not set, every core that it may use.
    """
    from ablate.cli import show
    from ablate.plan.study import one_trial
    from ablate.run.capacity import ClusterCannot
    from ablate.run.single import train_one
    from ablate.run.tasks import watched

    loaded = _study_of(study, set_, only)
    flat = one_trial(loaded).to_flat()
    refs = [str(ref) for ref in loaded.references]
    try:
        with show.counting("training", "steps") as bar:

            def step(row: Mapping[str, float]) -> None:
                bar(int(row["step"]), int(row["steps"]))

            result = train_one(flat, refs, workers, out, step, watched(loaded))
    except ClusterCannot as error:
        show.err.print(f"[red]The cluster cannot run this trial:[/red] {error}")
        return CLUSTER_CANNOT
    except RuntimeError as error:
        show.err.print(f"[red]The trial failed:[/red] {error}")
        return SOME_FAILED
    show.metrics(result["metrics"])
    show.out.print(f"Written: {out}/result.json and {out}/checkpoint/")
    return DONE


@app.command(epilog=example("ablate report quickstart --runs runs"))
def report(study: Study, set_: Sets = None, runs: Runs = "runs", claims: Claims = None) -> None:
    """Write the report of what the run folder holds so far, and print where it is."""
    from ablate.cli.show import out, ranking
    from ablate.learn.claims import find_claims
    from ablate.learn.report import write_report
    from ablate.learn.results import collect
    from ablate.run.ledger import Ledger

    planned = plan_of(study, set_, None)
    hypotheses = find_claims(study, claims)
    ledger = Ledger(runs)
    require_records(planned, ledger, runs)
    results = collect(planned, ledger)
    ranking(results)
    html, markdown = write_report(results, _report_folder(planned, ledger), hypotheses)
    out.print(f"Report: {html}\n        {markdown}")


@app.command(epilog=example("ablate export quickstart --out trials.csv"))
def export(
    study: Study,
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")],
    set_: Sets = None,
    runs: Runs = "runs",
) -> None:
    """Write one row per trial: trial_id, state, every spec key, every final metric."""
    from ablate.cli import show
    from ablate.learn.export import export_trials
    from ablate.learn.results import collect
    from ablate.run.ledger import Ledger

    planned, ledger = plan_of(study, set_, None), Ledger(runs)
    require_records(planned, ledger, runs)
    rows = export_trials(collect(planned, ledger), out)
    show.out.print(f"{rows} trials: {out}")


evaluate.register(app)
launch.register(app)
data.register(app)
annotate.register(app)
tracking.register(app)
compare.register(app)
upkeep.register(app)


def _pairs(texts: Sequence[str] | None, option: str = "--set") -> dict[str, str]:
    wrong = [text for text in texts or () if "=" not in text]
    if wrong:
        rule = "must be KEY=VALUE"
        raise InvalidInput([Problem(option, rule, text, f"{text}=VALUE") for text in wrong])
    return dict(text.split("=", 1) for text in texts or ())


def _study_of(study: str, sets: Sequence[str] | None, only: Sequence[str] | None) -> StudyOf:
    """The study that a command's words name. Raises InvalidInput with every mistake in them."""
    from ablate.plan.study import load_study, narrow

    problems: list[Problem] = []
    pairs = {}
    for option, texts in (("--set", sets), ("--only", only)):
        try:
            pairs[option] = _pairs(texts, option)
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    loaded = load_study(study, pairs["--set"])
    return narrow(loaded, pairs["--only"]) if only else loaded


def plan_of(study: str, sets: Sequence[str] | None, only: Sequence[str] | None) -> Plan:
    """The plan of a command's words. Raises InvalidInput with every mistake in them."""
    from ablate.plan.planner import make_plan

    return make_plan(_study_of(study, sets, only))


def _say_what_is_left(done: Execution, name: str, runs: str) -> None:
    from ablate.cli.show import out

    stopped = done.stopped + len(done.left_stopped)
    if stopped:
        left = "1 trial was stopped" if stopped == 1 else f"{stopped} trials were stopped"
        again = f"to their end: ablate retry {name} --stopped --runs {runs}"
        out.print(f"{left} early and count in no mean; {again}", markup=False)
    if done.left_failed:
        count = len(done.left_failed)
        left = (
            "1 trial that failed by its own fault is left so"
            if count == 1
            else f"{count} trials that failed by their own fault are left so"
        )
        out.print(f"{left}; once more: ablate retry {name} --failed --runs {runs}")
    elif not done.trained and not done.failed and not stopped:
        out.print(f"Nothing to train: all {done.already} trials are already finished.")


def require_records(planned: Plan, ledger: Ledger, runs: str) -> None:
    """Raises InvalidInput, with what has been run, when the study has not, or by another plan."""
    ledger.store.require()
    folder = ledger.study(planned.study.name)
    if not ledger.store.exists(folder.path):
        rule = f"has not been run in {runs}; known: "
        known = ", ".join(ledger.store.children("studies")) or "none"
        raise InvalidInput([Problem(planned.study.name, rule + known)])
    kept = folder.read("plan.json")
    if kept:
        _require_same(planned, kept, ledger, runs)


def _require_same(planned: Plan, kept: Mapping[str, Any], ledger: Ledger, runs: str) -> None:
    """Raises InvalidInput when the run folder has trials of the kept plan and none of this one."""
    from ablate.plan.kept import differences

    begun = set(ledger.store.children("trials"))

    def recorded(trial_id: str) -> bool:
        return trial_id in begun and ledger.store.exists(f"trials/{trial_id}/record.json")

    if any(recorded(trial.trial_id) for trial in planned.trials()):
        return
    held = sum(recorded(trial["trial_id"]) for trial in kept.get("trials", ()))
    if not held:
        return
    rule = (
        f"none of the {planned.trial_count} trials asked for has been run in {runs}, which holds "
        f"{held} of another plan of this study; give the --set of that run, or run this one first"
    )
    raise InvalidInput([Problem(planned.study.name, rule), *differences(planned.to_json(), kept)])


def _report_folder(planned: Plan, ledger: Ledger) -> Path:
    local = ledger.study(planned.study.name).local
    return local if local is not None else Path(f"{planned.study.name}-report")


def _conclude(planned: Plan, ledger: Ledger, confirmed: Any, claims: Sequence[Claim]) -> None:
    from ablate.cli.show import confirmation, out, ranking
    from ablate.learn.report import write_report
    from ablate.learn.results import collect

    results = collect(planned, ledger)
    ranking(results)
    if confirmed is not None:
        confirmation(confirmed, results.metric_keys[:CONFIRMED_METRICS])
    html, _ = write_report(results, _report_folder(planned, ledger), claims)
    out.print(f"\nReport:  {html}")
