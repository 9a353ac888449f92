"""Where labels come from: the human source and the machine source of a trial, as row numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import offsets_of
from trainables.data.cache import JSON, Cache, read_key
from trainables.data.collections import Collection, Judgements, read_judgements
from trainables.data.collections.refs import Ref, parse_ref, split_grade
from trainables.data.hashing import hash64
from trainables.errors import InvalidInput, Problem, nearest
from trainables.spec import DataSpec

LABELS_KIND = "labels"
"""Kind of cache folder in which an annotator leaves its judgements, in LABELS_FILE."""

LABELS_FILE = "labels.arrow"
"""Written by `write_judgements`."""

_ANNOTATIONS = 1


def annotation_key(collection_fingerprint: str, source: str) -> dict[str, JSON]:
    """The cache key (kind LABELS_KIND) of what an annotator made of a collection."""
    return {"collection": collection_fingerprint, "source": source, "version": _ANNOTATIONS}


def annotated(collection_fingerprint: str, source: str, cache: Cache | None = None) -> Path | None:
    """The folder of an annotator's source, or None: in `cache`, else in the user's own, where
    `ablate annotate` leaves it for every run folder."""
    key = annotation_key(collection_fingerprint, source)
    found = None if cache is None else cache.find(LABELS_KIND, key)
    return found or Cache.default().find(LABELS_KIND, key)


def annotated_sources(collection_fingerprint: str, cache: Cache | None = None) -> tuple[str, ...]:
    """The names of the sources that `annotated` finds, sorted."""
    names = set()
    for store in (cache, Cache.default()):
        for folder in () if store is None else store.finished(LABELS_KIND):
            key = read_key(folder)
            if key.get("collection") == collection_fingerprint and isinstance(key["source"], str):
                names.add(key["source"])
    return tuple(sorted(names))


def load_labels(collection: Collection, source: str, cache: Cache) -> Judgements:
    """The judgements of a source: the collection's own, or an annotator's from the cache.

    Raises InvalidInput that names the known sources when there are none.
    """
    if source in collection.sources:
        return collection.labels(source)
    folder = annotated(collection.fingerprint, source, cache)
    if folder is not None:
        return read_judgements(folder / LABELS_FILE)
    known = (*collection.sources, *annotated_sources(collection.fingerprint, cache))
    listed = ", ".join(known) or "none"
    rule = f"is no label source of {collection.name}, and no annotator has made it; known: {listed}"
    raise InvalidInput([Problem("labels", rule, source, nearest(source, known))])


@dataclass(frozen=True)
class Pairs:
    """Judged pairs as row numbers, int64[M], with grades int16[M]; the order is the source's."""

    query_rows: NDArray[np.int64]
    passage_rows: NDArray[np.int64]
    grades: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.grades)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Pairs:
        """The pairs that `which` selects."""
        return Pairs(self.query_rows[which], self.passage_rows[which], self.grades[which])

    def keys(self) -> NDArray[np.int64]:
        """One number per pair, equal for equal pairs."""
        return pair_keys(self.query_rows, self.passage_rows)


@dataclass(frozen=True)
class Sources:
    """The labels that a trial may use, for the queries of its training split alone."""

    ref: Ref
    query_rows: NDArray[np.int64]
    """The split's queries, sorted."""
    human: Pairs
    """Positives by the human source."""
    machine: Pairs | None
    """Positives by the machine source."""
    human_wrong: Pairs
    """Pairs that the human source grades below the threshold."""
    other_wrong: Pairs
    """Pairs that another source grades below its threshold."""
    known: Pairs
    """Positives by any source, each pair once, sorted by query and passage."""
    dangling: int
    """Judgements of the sources in use that name a query or passage the collection lacks."""


def machine_source(data: DataSpec, ref: Ref) -> tuple[str, int] | None:
    """The machine source and its threshold (by default the training ref's), or None."""
    if data.machine_labels is None:
        return None
    return split_grade(data.machine_labels, "data.machine_labels", default=ref.min_grade)


def training_ref(data: DataSpec) -> Ref:
    """The split that a trial trains on. Raises InvalidInput when there is none."""
    return parse_ref(data.train, default_split="train", key="data.train")


def load_sources(collection: Collection, data: DataSpec, cache: Cache) -> Sources:
    """The labels of the training split's queries from every source.

    Known positives are those of the split's judgements, of every source of the collection and of
    the sources in use; a source's threshold is the training ref's, the machine source's its own.
    Raises InvalidInput when a source is missing.
    """
    ref = training_ref(data)
    machine = machine_source(data, ref)
    qrels, lost = located(collection, collection.judgements(ref.split))
    queries = np.unique(qrels.query_rows)
    thresholds = dict.fromkeys(collection.sources, ref.min_grade)
    if data.human_labels != "qrels":
        thresholds[data.human_labels] = ref.min_grade
    if machine is not None:
        thresholds[machine[0]] = machine[1]
    tables = {"qrels": qrels}
    for source in thresholds:
        pairs, missing = located(collection, load_labels(collection, source, cache))
        tables[source] = pairs.take(np.isin(pairs.query_rows, queries))
        if source == data.human_labels or (machine is not None and source == machine[0]):
            lost += missing
    thresholds["qrels"] = ref.min_grade
    good = {name: table.take(table.grades >= thresholds[name]) for name, table in tables.items()}
    bad = {name: table.take(table.grades < thresholds[name]) for name, table in tables.items()}
    return Sources(
        ref=ref,
        query_rows=queries,
        human=good[data.human_labels],
        machine=None if machine is None else good[machine[0]],
        human_wrong=bad.pop(data.human_labels),
        other_wrong=_joined(list(bad.values())),
        known=_distinct(_joined(list(good.values()))),
        dangling=lost,
    )


def known_positives(
    sources: Sources, query_rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every known positive of the given queries: (offsets int64[N + 1], passage rows int64[K])."""
    starts = np.searchsorted(sources.known.query_rows, query_rows, side="left")
    ends = np.searchsorted(sources.known.query_rows, query_rows, side="right")
    offsets = offsets_of(ends - starts)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return offsets, sources.known.passage_rows[places]


def located(collection: Collection, judgements: Judgements) -> tuple[Pairs, int]:
    """Judgements as row numbers, and how many name a query or a passage that is not there."""
    queries = collection.queries.rows(judgements.query_ids)
    passages = collection.passages.rows(judgements.passage_ids)
    pairs = Pairs(queries, passages, judgements.grades)
    there = (queries >= 0) & (passages >= 0)
    return pairs.take(there), int(np.count_nonzero(~there))


def pair_keys(query_rows: NDArray[np.int64], passage_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per (query, passage), equal for equal pairs; rows must lie below 2**31."""
    return query_rows << 31 | passage_rows


def pair_hashes(
    collection: Collection, pairs: Pairs
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The hashes of the ids of each pair's query and passage, uint64[M] each."""
    hashes = []
    for texts, rows in (
        (collection.queries, pairs.query_rows),
        (collection.passages, pairs.passage_rows),
    ):
        distinct, places = np.unique(rows, return_inverse=True)
        hashes.append(hash64(texts.ids(distinct))[places])
    return hashes[0], hashes[1]


def _joined(tables: list[Pairs]) -> Pairs:
    return Pairs(
        np.concatenate([table.query_rows for table in tables] or [np.empty(0, np.int64)]),
        np.concatenate([table.passage_rows for table in tables] or [np.empty(0, np.int64)]),
        np.concatenate([table.grades for table in tables] or [np.empty(0, np.int16)]),
    )


def _distinct(pairs: Pairs) -> Pairs:
    return pairs.take(np.unique(pairs.keys(), return_index=True)[1])
