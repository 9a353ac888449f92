"""What runs as a Ray task beside the trials: preparing shared data, scoring the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ablate.run.ledger import Ledger
from ablate.run.trial import Job, Resources


def prepare(spec: Mapping[str, Any], cache: str) -> dict[str, Any]:
    """Build what the trials of `spec` share; returns the summary, with `lines` for a person."""
    from trainables import worker

    summary = worker.prepare_here(spec, cache)
    return {**asdict(summary), "lines": list(summary.lines)}


def score(name: str, job: Job, resources: Resources, path: str) -> None:
    """Score BM25 or the untrained encoder on the job's references, below `path` of the ledger."""
    from trainables import worker

    ledger = Ledger(resources.runs)
    output = ledger.store.scratch()
    output.mkdir(parents=True)
    worker.baseline_here(
        name, job.spec, job.refs, resources.cache, str(output), max(1, int(resources.cpus))
    )
    ledger.store.publish(output, path)
