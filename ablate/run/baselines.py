"""What runs as a Ray task beside the trials: preparing shared data, scoring the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.run.ledger import Ledger
from ablate.run.trial import Job, Resources
from trainables.spec import TrialSpec


def prepare(spec: Mapping[str, Any], refs: Sequence[str], cache: str) -> dict[str, Any]:
    """Build what the trials of `spec` share; returns the summary, with `lines` for a person and
    the `audit` of what is trained on against `refs`, which are evaluated on."""
    from trainables import worker
    from trainables.data.cache import Cache
    from trainables.data.collections import parse_refs
    from trainables.data.overlap import audit_study
    from trainables.data.sources import training_ref

    summary = worker.prepare_here(spec, cache)
    trained = training_ref(TrialSpec.from_flat(spec).data)
    tested = [ref for text in refs for ref in parse_refs(text)]
    audit = audit_study([trained], tested, Cache(Path(cache)))
    return {**summary, "lines": list(_lines(summary)), "audit": audit.to_json()}


def draw_part(watch: Mapping[str, Any], cache: str) -> None:
    """Draw the passages that the trials watch, so that none of them waits for it."""
    from trainables import worker

    worker.watch_here(watch, cache)


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    splits = ", ".join(
        f"{name} {counts['queries']:,}" for name, counts in summary["splits"].items()
    )
    yield (
        f"{summary['collection']}: {summary['passages']:,} passages, "
        f"{summary['queries']:,} queries (judged: {splits})"
    )
    for found in summary["agreements"]:
        precision, recall = found["strict_precision"], found["strict_recall"]
        yield (
            f"labels of {found['source']} against the human ones: precision "
            f"{_share(precision)}, recall {_share(recall)}, "
            f"{found['positives_per_query']:.1f} positives per query "
            f"(human: {found['reference_positives_per_query']:.1f})"
        )
    if summary["negatives"] is not None:
        mined = summary["negatives"]
        yield (
            f"hard negatives: {mined['per_query']:.0f} per query for {mined['queries']:,} queries, "
            f"none for {mined['without']:,}"
        )


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


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
