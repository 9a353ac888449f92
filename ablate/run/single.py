"""One trial, or one evaluation, outside a sweep: what `ablate train` and `ablate evaluate` do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.run import sweep
from ablate.run.capacity import slots
from ablate.run.ledger import default_cache
from ablate.run.processes import threads
from ablate.run.trial import Resources
from trainables.evaluation.means import beir_means


def train_one(
    flat: Mapping[str, Any],
    refs: Sequence[str],
    workers: int,
    out: Path,
    on_progress: Callable[[Mapping[str, float]], None],
    watch: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and score one trial; leaves `result.json` and `checkpoint/` in `out`.

    `watch` says what is scored while it trains: fields of `trainables.evaluation.watching.Watch`.

    Returns the content of `result.json`: `spec`, `metrics`, `seconds`. Raises InvalidInput,
    TrainingFailed, or ClusterCannot.
    """
    from trainables import worker
    from trainables.train import TrialTask

    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    task = TrialTask(dict(flat), tuple(refs), default_cache(), str(out.absolute()), watch=watch)
    if workers > 1:
        resources = Resources(runs=str(out), cache=task.cache, workers=workers)
        with sweep.cluster(None, dashboard=True) as total:
            slots(resources, total, None)
            storage = out.absolute() / ".train"
            try:
                with sweep.quiet():
                    outcome = worker.run_group(task, worker.Group(workers), str(storage), "trial")
            finally:
                shutil.rmtree(storage, ignore_errors=True)
    else:
        reporter = worker.HereReporter(on_progress, keep=shutil.rmtree, kept=lambda: None)
        outcome = worker.run_here(task, reporter, threads=threads())
    result = {"spec": dict(flat), "metrics": outcome.metrics, "seconds": outcome.seconds}
    text = json.dumps(result, indent=1, sort_keys=True)
    (out / "result.json").write_text(text, encoding="utf-8")
    return result


def evaluate_one(
    model: str,
    on: Sequence[str],
    out: Path,
    on_progress: Callable[[int, int], None],
    judges: Sequence[str] = (),
    keep_embeddings: bool = False,
) -> dict[str, float]:
    """Score a model on the references `on`, each of them by `judges` too.

    Leaves `metrics.json` and a folder per reference and judge in `out`. Returns metric key ->
    value, means over the sets of BEIR included. `keep_embeddings` leaves the vectors in the cache
    for the next evaluation. Raises InvalidInput when the model, a reference or a judge is unknown.
    """
    from trainables import worker

    refs = [":".join((text, *judges)) for text in on]
    metrics = worker.evaluate_here(
        model,
        refs,
        default_cache(),
        str(out),
        threads(),
        on_progress,
        keep_embeddings,
    )
    metrics |= beir_means(metrics)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=1, sort_keys=True)
    (out / "metrics.json").write_text(text, encoding="utf-8")
    return metrics
