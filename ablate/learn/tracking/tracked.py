"""What MLflow should hold for a study: one value per run, before anything is sent.

execution of the plan -> one run per cell (mean, spread, interval) -> one run per trial.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ablate.learn.report.answer import answer
from ablate.learn.results import CellResult, Results, TrialResult, split_key
from ablate.learn.tracking.names import (
    COLOUR,
    loss_colour,
    loss_in,
    loss_of,
    safe_name,
    text_columns,
    trial_columns,
    written,
)

if TYPE_CHECKING:
    from ablate.learn.stats import Summary

KEY, DIGEST, FILES, PLAN = "ablate.key", "ablate.digest", "ablate.files", "ablate.plan"
PARENT = "mlflow.parentRunId"
REVISION = "mlflow.source.git.commit"
REASON = "reason"
"""Tag of a trial that ended without a result: why."""

READING = (
    "Columns: `x ± y` is the mean and its standard deviation over seeds; `interval` holds the "
    "noise of seeds and queries (95 %); `gain` is over the untrained encoder; `verdict` is of the "
    "comparison with the leading cell, all comparisons corrected together; `selected` marks the "
    "cell that is best on dev, and the trials that means hold; a colour is a loss. Under each "
    "metric a run shows its value at the end, as the report does: of what training logs step by "
    "step (`train/…`, `grad/…`) that is the mean over the last quarter. The saved views are in the "
    "menu above the runs table. `report.html` and `figures.html` are artifacts of the execution's "
    "run."
)

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@dataclass(frozen=True)
class Dataset:
    """A collection that a run read, with the identity of its content."""

    name: str
    fingerprint: str
    context: str


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run. `key` finds it again; `parent` is the key of the run above it."""

    key: str
    parent: str | None
    name: str
    status: str
    started: float
    """Unix seconds, as `ended`."""
    ended: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    datasets: tuple[Dataset, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    """What else the run's content depends on, such as the files it holds."""
    trial: TrialResult | None = None

    @property
    def digest(self) -> str:
        """Changes when anything that MLflow should hold changes."""
        content = {name: value for name, value in vars(self).items() if name != "trial"}
        content["datasets"] = [asdict(one) for one in self.datasets]
        return digest_of(content)


def digest_of(content: object) -> str:
    """A short hash that changes when the content does."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tracked_runs(results: Results, files: Mapping[str, str]) -> Iterator[TrackedRun]:
    """Every run, parents before children. `files` maps the study's files to their hashes."""
    root = execution_key(results)
    yield _execution(results, root, files)
    best, selected = best_per_loss(results), _selected(results)
    for cell, trials in _begun(results):
        marks = {"selected": _yes(cell.name == selected), "best_per_loss": _yes(cell.name in best)}
        run = _cell(results, cell, root, marks)
        yield run
        for trial in trials:
            yield _trial(results, trial, cell, run.key)


def run_count(results: Results) -> int:
    """How many runs `tracked_runs` yields."""
    return 1 + sum(1 + len(trials) for _, trials in _begun(results))


def _begun(results: Results) -> Iterator[tuple[CellResult, list[TrialResult]]]:
    """The cells that have a record, with the trials that were started."""
    for cell in results.cells:
        if any(trial.record is not None for trial in cell.trials):
            yield cell, [trial for trial in cell.trials if trial.state != "planned"]


def execution_key(results: Results) -> str:
    """Key of the parent run."""
    return f"execution/{results.plan_id}"


def cell_key(cell: CellResult) -> str:
    """Key of a cell's run: the same when seeds are added, another when its trials differ."""
    flats = {
        json.dumps({k: v for k, v in trial.planned.flat.items() if k != "seed"}, sort_keys=True)
        for trial in cell.trials
    }
    return f"cell/{digest_of([cell.name, sorted(flats)])}"


def trial_key(trial: TrialResult) -> str:
    """Key of a trial's run."""
    return f"trial/{trial.trial_id}"


def best_per_loss(results: Results) -> dict[str, str]:
    """Cell name -> loss, of each loss's best cell: on the selecting split when there is one."""
    best: dict[str, CellResult] = {}
    for cell in results.scored:
        loss = loss_of(cell)
        if loss not in best or _choice(results, cell) > _choice(results, best[loss]):
            best[loss] = cell
    return {cell.name: loss for loss, cell in best.items()}


def _selected(results: Results) -> str | None:
    """The cell that is best where the study selects."""
    best = max(results.scored, key=lambda cell: _choice(results, cell), default=None)
    return None if best is None else best.name


def _choice(results: Results, cell: CellResult) -> float:
    """A scored cell's mean on the selecting split, or on the primary metric where there is none."""
    select = results.study.select
    key = select.key if select and select.key in cell.metrics else results.primary
    return cell.metrics[key].mean


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def describe(results: Results) -> str:
    """A note: question, answer, and how to read the columns."""
    return "\n\n".join([f"**{results.study.question}**", *answer(results), READING])


def _execution(results: Results, key: str, files: Mapping[str, str]) -> TrackedRun:
    records = [trial.record for trial in results.trials if trial.record is not None]
    open_ = any(trial.state in {"planned", "running"} for trial in results.trials)
    ends = [record.finished for record in records if record.finished is not None]
    states = [trial.state for trial in results.trials]
    tags = {
        "level": "execution",
        "study": results.study.name,
        "trials": f"{states.count('finished')} of {len(states)} finished",
        "failed": str(states.count("failed")),
        **_stopped(results, states.count("stopped")),
        "mlflow.note.content": describe(results),
        **_revision(results),
    }
    return TrackedRun(
        key=key,
        parent=None,
        name=f"{results.study.name} {results.plan_id}",
        status="RUNNING" if open_ else "FINISHED",
        started=min((r.started for r in records if r.started is not None), default=0.0),
        ended=None if open_ else max(ends, default=None),
        params=_study_params(results),
        metrics={},
        tags={**tags, **_common(results)},
        state={"files": dict(files)},
    )


def _stopped(results: Results, count: int) -> dict[str, str]:
    return {} if results.study.stop is None else {"stopped": str(count)}


def _revision(results: Results) -> dict[str, str]:
    """The git revision that the last execution ran, when it was a checkout."""
    found = results.executions[-1].get("revision") if results.executions else None
    return {} if found is None else {REVISION: str(found)}


def _study_params(results: Results) -> dict[str, str]:
    study = results.study
    params = {f"fixed.{key}": written(value) for key, value in study.fixed.items()}
    for key in study.compared:
        params[f"compare.{key}"] = ", ".join(written(value) for value in study.listed(key))
    for key, space in study.tune.items():
        params[f"tune.{key}"] = json.dumps(space.to_yaml())
    params["repeat.seed"] = ", ".join(written(seed) for seed in study.seeds)
    params["evaluate"] = ", ".join(str(ref) for ref in study.evaluate)
    if study.select is not None:
        params["select.maximize"] = study.select.key
    if study.budget.draws_per_cell is not None:
        params["budget.draws_per_cell"] = str(study.budget.draws_per_cell)
    return params


def _cell(results: Results, cell: CellResult, parent: str, marks: Mapping[str, str]) -> TrackedRun:
    counted = cell.counted or cell.trials
    records = [trial.record for trial in counted if trial.record is not None]
    states = {trial.state for trial in counted}
    open_ = bool(states & {"planned", "running"})
    ends = [record.finished for record in records if record.finished is not None]
    done = next((STATUS[x] for x in ("finished", "failed") if x in states), "KILLED")
    return TrackedRun(
        key=cell_key(cell),
        parent=parent,
        name=cell.name,
        status="RUNNING" if open_ else done,
        started=min((r.started for r in records if r.started is not None), default=0.0),
        ended=None if open_ else max(ends, default=None),
        params={key: written(value) for key, value in {**cell.values, **cell.tuned}.items()},
        metrics=cell_metrics(results, cell),
        tags={**_cell_tags(results, cell, marks), **_common(results)},
    )


def cell_metrics(results: Results, cell: CellResult) -> dict[str, float]:
    """Metric name -> value, of a cell's run."""
    metrics: dict[str, float] = {}
    # The comparison page opens with the metric that was logged first.
    for key in results.metric_keys:
        if key in cell.metrics:
            metrics |= _estimate(key, cell.metrics[key])
    gain = cell.gains.get(results.untrained or "")
    if gain is not None:
        metrics |= _estimate(f"{results.primary}.gain", gain)
    finished = sum(trial.state == "finished" for trial in cell.counted)
    counts = {"n/seeds": finished, "n/failed": cell.failed}
    if results.study.stop is not None:
        counts["n/stopped"] = cell.stopped
    for key, summary in cell.metrics.items():
        counts[safe_name(f"n/queries {split_key(key)[0]}")] = summary.queries
    return {**metrics, **{name: float(count) for name, count in counts.items()}}


def _estimate(key: str, summary: Summary) -> dict[str, float]:
    name = safe_name(key)
    parts = {
        name: summary.mean,
        f"{name}.sd": summary.sd,
        f"{name}.low": summary.low,
        f"{name}.high": summary.high,
    }
    return {k: v for k, v in parts.items() if v is not None and math.isfinite(v)}


def _cell_tags(results: Results, cell: CellResult, marks: Mapping[str, str]) -> dict[str, str]:
    """MLflow's table shows tags in the order in which they were first logged."""
    texts = {
        name: _mean_sd(cell.metrics[key])
        for name, key in text_columns(results).items()
        if key in cell.metrics
    }
    finished = sum(trial.state == "finished" for trial in cell.counted)
    return {
        "level": "cell",
        "cell": cell.name,
        "loss": loss_of(cell),
        COLOUR: loss_colour(results, loss_of(cell)),
        **_primary_tags(results, cell),
        **texts,
        "seeds": f"{finished} of {len(results.study.seeds)}",
        "failed": str(cell.failed),
        **_stopped(results, cell.stopped),
        **marks,
    }


def _primary_tags(results: Results, cell: CellResult) -> dict[str, str]:
    """Mean, 95 % interval, verdict, gain over the untrained encoder, short enough for columns."""
    if results.primary not in cell.metrics:
        return {"verdict": cell.verdict}
    summary = results.primary_of(cell)
    name = next(iter(text_columns(results)))
    tags = {
        name: _mean_sd(summary),
        "interval": f"{summary.low:.3f}–{summary.high:.3f}",
        "verdict": cell.verdict,
    }
    gain = cell.gains.get(results.untrained or "")
    return tags if gain is None else {**tags, "gain": f"{gain.mean:+.3f}"}


def _mean_sd(summary: Summary) -> str:
    return f"{summary.mean:.3f}" + ("" if summary.sd is None else f" ± {summary.sd:.3f}")


def _trial(results: Results, trial: TrialResult, cell: CellResult, parent: str) -> TrackedRun:
    record = trial.record
    if record is None:
        raise ValueError(f"trial {trial.trial_id} has no record to track")
    draw = f" d{trial.planned.draw}" if results.study.tune else ""
    return TrackedRun(
        key=trial_key(trial),
        parent=parent,
        name=f"{trial.cell} s{trial.seed}{draw}",
        status=STATUS[trial.state],
        started=record.started or 0.0,
        ended=record.finished,
        params={key: written(value) for key, value in trial.planned.flat.items()},
        metrics=trial_metrics(trial),
        tags={
            **_trial_tags(results, trial, cell),
            COLOUR: loss_colour(results, loss_in(trial.planned.flat)),
            **_common(results),
        },
        datasets=_datasets(trial),
        state={"record": hashlib.sha256(record.to_json()).hexdigest()},
        trial=trial,
    )


def trial_metrics(trial: TrialResult) -> dict[str, float]:
    """Metric name -> value, of a trial's run."""
    record = trial.record
    seconds = {} if record is None else {f"seconds/{k}": v for k, v in record.seconds.items()}
    metrics = {**trial.metrics, **seconds}
    return {safe_name(k): v for k, v in metrics.items() if math.isfinite(v)}


def _trial_tags(results: Results, trial: TrialResult, cell: CellResult) -> dict[str, str]:
    """A trial's verdict is that of the cell whose means hold it."""
    scores = {
        name: f"{trial.metrics[key]:.3f}"
        for name, key in trial_columns(results).items()
        if key in trial.metrics
    }
    reason = {REASON: trial.reason} if trial.reason else {}
    verdict = {"verdict": cell.verdict} if trial.counted else {}
    tags = {
        "level": "trial",
        **reason,
        "cell": trial.cell,
        "loss": loss_in(trial.planned.flat),
        "trial_id": trial.trial_id,
        "seed": str(trial.seed),
        "draw": str(trial.planned.draw),
        "selected": _yes(trial.counted),
        **verdict,
        **scores,
        "state": trial.state,
    }
    prints = {} if trial.record is None else trial.record.fingerprints
    return tags | {f"fingerprint {key}": print_ for key, print_ in prints.items()}


def _datasets(trial: TrialResult) -> tuple[Dataset, ...]:
    """One per collection's content; its context is everything that it was used for."""
    record = trial.record
    if record is None:
        return ()
    names: dict[str, str] = {}
    uses: dict[str, list[str]] = {}
    for key, print_ in record.fingerprints.items():
        if key.startswith("data."):
            names[print_] = str(trial.planned.flat[key])
            uses.setdefault(print_, []).append("training")
    for label, print_ in sorted(record.evaluated.items()):
        collection, _, split = label.rpartition("/")
        names[print_] = collection
        uses.setdefault(print_, []).append(f"evaluation on {split}")
    return tuple(Dataset(name, print_, ", ".join(uses[print_])) for print_, name in names.items())


def _common(results: Results) -> dict[str, str]:
    return {PLAN: results.plan_id, "mlflow.source.name": f"ablate run {results.study.name}"}
