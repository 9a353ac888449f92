"""What trials share is made before they start, and the cache remembers that it was.

A trial makes what it lacks itself, so a summary that outlives what it tells of costs a trial some
time and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.run.trial import Job
from trainables.data.cache import JSON, Cache
from trainables.spec import BEHAVIOUR, TrialSpec

KIND = "prepared"
_SUMMARY = "summary.json"


@dataclass(frozen=True)
class Preparation:
    """What trials with the same data and text settings share."""

    job: Job
    """Any of the trials."""
    contents: Mapping[str, str]
    """Collection -> fingerprint, of every collection that the study reads."""

    @property
    def key(self) -> dict[str, JSON]:
        """All that decides what is made and what is said of it."""
        return {
            "settings": _shared(self.job),
            "refs": list(self.job.refs),
            "watch": None if self.job.watch is None else dict(self.job.watch),
            "contents": dict(self.contents),
            "fingerprints": dict(self.job.fingerprints),
            "behaviour": BEHAVIOUR,
        }

    def summary(self, cache: str) -> dict[str, Any] | None:
        """What `prepare` returned when all this was made in this cache; None when it was not, or
        when that cannot be read."""
        folder = Cache(Path(cache)).find(KIND, self.key)
        if folder is None:
            return None
        with contextlib.suppress(ValueError, OSError):
            found: dict[str, Any] = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
            return found
        return None


def preparations(jobs: Iterable[Job], contents: Mapping[str, str]) -> list[Preparation]:
    """One per distinct data and text settings of the jobs."""
    distinct: dict[tuple[Any, ...], Job] = {}
    for job in jobs:
        distinct.setdefault(tuple(_shared(job).items()), job)
    return [Preparation(job, contents) for job in distinct.values()]


def prepare(wanted: Preparation, cache: str) -> dict[str, Any]:
    """Make what the trials share; returns the summary, with `lines` for a person and the `audit`
    of what is trained on against what is evaluated on."""
    store = Cache(Path(cache))
    summary = _made(wanted.job, store)

    def keep(folder: Path) -> None:
        text = json.dumps(summary, sort_keys=True, indent=1)
        (folder / _SUMMARY).write_text(text, encoding="utf-8")

    store.folder(KIND, wanted.key, keep)
    return summary


def _shared(job: Job) -> dict[str, Any]:
    return {k: v for k, v in job.spec.items() if k.startswith(("data.", "encoder."))}


def _made(job: Job, cache: Cache) -> dict[str, Any]:
    from trainables import worker
    from trainables.data.collections import parse_refs
    from trainables.data.overlap import audit_study
    from trainables.data.sources import training_ref

    summary = worker.prepare_here(job.spec, str(cache.root))
    if job.watch is not None and job.watch["passages"] is not None:
        worker.watch_here(job.watch, str(cache.root))
    trained = training_ref(TrialSpec.from_flat(job.spec).data)
    tested = [ref for text in job.refs for ref in parse_refs(text)]
    audit = audit_study([trained], tested, cache)
    return {**summary, "lines": list(_lines(summary)), "audit": audit.to_json()}


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
