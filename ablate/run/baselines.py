"""What runs as a Ray task beside the trials: scoring BM25 and the backbones as they come."""

from __future__ import annotations

from ablate.run.ledger import Ledger
from ablate.run.trial import Job, Resources
from trainables.patience import PATIENCE_SECONDS


def score(name: str, job: Job, resources: Resources, path: str) -> None:
    """Score BM25 or the untrained encoder on the job's references, below `path` of the ledger."""
    from trainables import worker

    ledger = Ledger(resources.runs, PATIENCE_SECONDS)
    output = ledger.store.scratch()
    output.mkdir(parents=True)
    worker.baseline_here(
        name, job.spec, job.refs, resources.cache, str(output), max(1, int(resources.cpus))
    )
    ledger.store.publish(output, path)
