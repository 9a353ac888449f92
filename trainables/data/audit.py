"""What is in a collection, what is wrong with it, and what it shares with the sets of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.data.agreement import (
    CONFLICTS_LISTED,
    Agreement,
    Conflict,
    agreement,
    conflicts,
)
from trainables.data.cache import Cache
from trainables.data.collections import (
    Collection,
    Fault,
    Ref,
    Texts,
    UnusableCollection,
    open_collection,
)
from trainables.data.collections.refs import split_grade
from trainables.data.collections.registry import short_name
from trainables.data.overlap import Overlap, overlaps
from trainables.data.sources import Pairs, annotated_sources, load_labels, located
from trainables.errors import InvalidInput, Problem, nearest

HISTOGRAM = ("0", "1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65+")
_HISTOGRAM_EDGES = np.array([0, 1, 2, 4, 8, 16, 32, 64])


@dataclass(frozen=True)
class Lengths:
    """Words per text."""

    mean: float
    median: int
    p95: int
    longest: int
    empty: int
    """Texts without a letter."""
    duplicates: int
    """Texts that repeat an earlier one, letter by letter."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class Judged:
    """One split, or one source, at its threshold."""

    name: str
    min_grade: int
    queries_judged: int
    judgements: int
    positives: int
    queries_without_positive: int
    positives_per_query: float
    """Over all judged queries."""
    most_positives: int
    histogram: dict[str, int]
    """Judged queries by their number of positives."""
    grades: dict[int, int]
    """Judgements by grade."""
    dangling: int
    """Judgements whose query or passage the collection lacks."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return dict(vars(self)) | {"grades": {str(k): v for k, v in self.grades.items()}}


@dataclass(frozen=True)
class Audit:
    """Everything `inspect` found; `usable` is False when the files cannot be read."""

    name: str
    origin: str
    revision: str
    licence: str
    fingerprint: str
    usable: bool
    passages: int
    queries: int
    passage_words: Lengths | None
    query_words: Lengths | None
    splits: tuple[Judged, ...]
    sources: tuple[Judged, ...]
    agreements: tuple[Agreement, ...]
    conflicts: tuple[Conflict, ...]
    overlaps: tuple[Overlap, ...]
    problems: tuple[Fault, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The audit as JSON: `passages`, `queries`, `splits` by name, `problems`, and the rest."""
        return {
            "name": self.name,
            "origin": self.origin,
            "revision": self.revision,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
            "usable": self.usable,
            "passages": self.passages,
            "queries": self.queries,
            "passage_words": self.passage_words and self.passage_words.to_json(),
            "query_words": self.query_words and self.query_words.to_json(),
            "splits": {split.name: split.to_json() for split in self.splits},
            "sources": {source.name: source.to_json() for source in self.sources},
            "agreements": [part.to_json() for part in self.agreements],
            "conflicts": [part.to_json() for part in self.conflicts],
            "overlaps": [part.to_json() for part in self.overlaps],
            "problems": [fault.to_json() for fault in self.problems],
            "notes": list(self.notes),
        }


def inspect(
    name: str,
    cache: Cache,
    against: Sequence[Ref] = (),
    min_grade: int = 1,
    annotated: Sequence[str] | None = None,
    conflicts_of: str | None = None,
    limit: int = CONFLICTS_LISTED,
) -> Audit:
    """The audit of a collection; also of one that cannot be used, whose `problems` say why.

    `against` are splits that a study evaluates on: their overlap with this collection's training
    split (or with all of its splits, when none is called `train`) is counted; so is that of the
    collection's own splits. `min_grade` is the threshold of all judgements but those of the
    sources in `annotated`, written `SOURCE[>=GRADE]`: what annotators have left in the cache (None:
    all that they have). The strongest `limit` conflicts with the human judgements are listed, of
    every source or of `conflicts_of`. Raises InvalidInput when there is no such collection or
    source.
    """
    try:
        collection = open_collection(name, cache)
    except UnusableCollection as error:
        return _unusable(name, error.faults)
    trained = _trained(name, collection, min_grade)
    found = overlaps(collection, trained, against, cache)
    labels = _labels(collection, cache, min_grade, annotated)
    if conflicts_of is not None and conflicts_of not in labels:
        has = f"has: {', '.join(labels)}" if labels else "has none; `ablate annotate` makes one"
        rule = f"is no label source of {collection.name}, which {has}"
        near = nearest(conflicts_of, labels)
        raise InvalidInput([Problem("--conflicts", rule, conflicts_of, near)])
    listed = {s: limit for s in labels if conflicts_of in (None, s)}
    return _usable(collection, labels, found, min_grade, listed)


def _usable(
    collection: Collection,
    labels: dict[str, tuple[Pairs, int, int]],
    found: tuple[Overlap, ...],
    min_grade: int,
    listed: dict[str, int],
) -> Audit:
    tables = {s: located(collection, collection.judgements(s)) for s in collection.splits}
    human = _all([pairs for pairs, _ in tables.values()])
    agreements, differing = _compared(collection, labels, human, min_grade, listed)
    return Audit(
        name=collection.name,
        origin=collection.origin,
        revision=collection.revision,
        licence=collection.licence,
        fingerprint=collection.fingerprint,
        usable=True,
        passages=len(collection.passages),
        queries=len(collection.queries),
        passage_words=_lengths(collection.passages),
        query_words=_lengths(collection.queries),
        splits=tuple(_judged(split, *tables[split], min_grade) for split in tables),
        sources=tuple(_judged(source, *labels[source]) for source in labels),
        agreements=agreements,
        conflicts=differing,
        overlaps=found,
        problems=(*collection.warnings, *_between_splits([p for p, _ in tables.values()], human)),
        notes=collection.notes,
    )


def _labels(
    collection: Collection, cache: Cache, min_grade: int, annotated: Sequence[str] | None
) -> dict[str, tuple[Pairs, int, int]]:
    """Source -> its pairs, how many more are dangling, its threshold."""
    if annotated is None:
        annotated = annotated_sources(collection.fingerprint, cache)
    thresholds = dict.fromkeys(collection.sources, min_grade)
    thresholds |= dict(split_grade(text, "labels", default=min_grade) for text in annotated)
    return {
        source: (*located(collection, load_labels(collection, source, cache)), least)
        for source, least in thresholds.items()
    }


def _compared(
    collection: Collection,
    labels: dict[str, tuple[Pairs, int, int]],
    human: Pairs,
    min_grade: int,
    listed: dict[str, int],
) -> tuple[tuple[Agreement, ...], tuple[Conflict, ...]]:
    """Each source against the human judgements."""
    agreements: list[Agreement] = []
    differing: list[Conflict] = []
    for source, (pairs, _, least) in labels.items():
        if len(pairs):
            agreements.append(agreement(source, pairs, human, min_grade, least))
            limit = listed.get(source, 0)
            differing += conflicts(collection, source, pairs, human, min_grade, least, limit)
    return tuple(agreements), tuple(differing)


def _trained(name: str, collection: Collection, min_grade: int) -> list[Ref]:
    splits = ["train"] if "train" in collection.splits else list(collection.splits)
    return [Ref(name, split, min_grade) for split in splits]


def _judged(name: str, pairs: Pairs, dangling: int, min_grade: int) -> Judged:
    queries, places = np.unique(pairs.query_rows, return_inverse=True)
    good = pairs.grades >= min_grade
    counts = np.bincount(places[good], minlength=len(queries))
    bins = np.bincount(np.searchsorted(_HISTOGRAM_EDGES, counts), minlength=len(HISTOGRAM))
    grades, numbers = np.unique(pairs.grades, return_counts=True)
    return Judged(
        name=name,
        min_grade=min_grade,
        queries_judged=len(queries),
        judgements=len(pairs) + dangling,
        positives=int(good.sum()),
        queries_without_positive=int(np.count_nonzero(counts == 0)),
        positives_per_query=float(counts.mean()) if len(queries) else 0.0,
        most_positives=int(counts.max(initial=0)),
        histogram=dict(zip(HISTOGRAM, bins.tolist(), strict=True)),
        grades=dict(zip(grades.tolist(), numbers.tolist(), strict=True)),
        dangling=dangling,
    )


def _lengths(texts: Texts) -> Lengths:
    counts = np.concatenate(
        [
            np.fromiter((len(text.split()) for text in chunk), np.int64, len(chunk))
            for _, chunk in texts.chunks()
        ]
    )
    return Lengths(
        mean=float(counts.mean()),
        median=int(np.median(counts)),
        p95=int(np.percentile(counts, 95)),
        longest=int(counts.max()),
        empty=texts.empty,
        duplicates=texts.duplicates,
    )


def _all(tables: Sequence[Pairs]) -> Pairs:
    """The judgements of all splits; of a pair judged in several, the first."""
    joined = Pairs(
        np.concatenate([table.query_rows for table in tables]),
        np.concatenate([table.passage_rows for table in tables]),
        np.concatenate([table.grades for table in tables]),
    )
    return joined.take(np.sort(np.unique(joined.keys(), return_index=True)[1]))


def _between_splits(tables: Sequence[Pairs], first: Pairs) -> tuple[Fault, ...]:
    """A warning when splits grade the same pair differently; `first` has each pair once."""
    keys, order = np.unique(first.keys(), return_index=True)
    differ = sum(
        int(np.count_nonzero(first.grades[order][np.searchsorted(keys, t.keys())] != t.grades))
        for t in tables
    )
    if not differ:
        return ()
    detail = f"{differ:,} judgements differ from an earlier split's on the same pair"
    return (Fault("conflicting-judgement", "qrels", None, detail, fatal=False),)


def _unusable(name: str, faults: Sequence[Fault]) -> Audit:
    return Audit(
        name=short_name(name),
        origin=name,
        revision="",
        licence="",
        fingerprint="",
        usable=False,
        passages=0,
        queries=0,
        passage_words=None,
        query_words=None,
        splits=(),
        sources=(),
        agreements=(),
        conflicts=(),
        overlaps=(),
        problems=tuple(faults),
        notes=(),
    )
