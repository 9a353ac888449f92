"""The winner once more on a worker group: the numbers must not depend on how a trial was run."""

from __future__ import annotations

import shutil
from typing import Any

from ablate.run.ledger import Ledger
from ablate.run.trial import Job, Resources
from trainables.patience import PATIENCE_SECONDS

WEIGHTS_APART = 1e-4
"""Relative distance of weights that rounding explains: sums in another order, over all steps."""
METRICS_APART = 5e-3
"""Difference of a mean metric that such weights explain: near-ties that change places."""


def confirm(job: Job, resources: Resources, workers: int) -> dict[str, Any]:
    """Train and score the job with `workers` workers, beside what the ledger holds of it.

    Returns both sets of metrics and `weights`, the relative distance of the two trained encoders:
    |a - b| / |a|, over all parameters. Nothing of it enters the trial's record.
    """
    from trainables import worker
    from trainables.train import TrialTask

    ledger = Ledger(resources.runs, PATIENCE_SECONDS)
    scratch = ledger.store.scratch()
    output = str(scratch / "output")
    task = TrialTask(spec=dict(job.spec), refs=job.refs, cache=resources.cache, output=output)
    storage, name = ledger.store.uri_of(".train"), f"confirm-{job.trial_id}-{workers}"
    group = worker.Group(workers, resources.cpus, resources.gpus)
    outcome = worker.run_group(task, group, storage, name)
    ledger.store.delete(f".train/{name}")
    checkpoint = ledger.checkpoint(job.trial_id, scratch / "trained")
    if (record := ledger.record(job.trial_id)) is None or checkpoint is None:
        raise FileNotFoundError(f"trial {job.trial_id} has no checkpoint to compare with")
    distance = worker.distance(checkpoint, scratch / "output" / "checkpoint")
    shutil.rmtree(scratch, ignore_errors=True)
    own = ("grad/", "train/")
    scores = {key: value for key, value in outcome.metrics.items() if not key.startswith(own)}
    largest = max((abs(value - record.metrics[key]) for key, value in scores.items()), default=0.0)
    return {
        "agree": distance <= WEIGHTS_APART and largest <= METRICS_APART,
        "largest": largest,
        "allowed": {"weights": WEIGHTS_APART, "metrics": METRICS_APART},
        "trial_id": job.trial_id,
        "cell": job.cell,
        "seed": job.seed,
        "workers": workers,
        "one": {key: record.metrics.get(key) for key in scores},
        "group": scores,
        "weights": distance,
        "seconds": {"one": dict(record.seconds), "group": outcome.seconds},
    }
