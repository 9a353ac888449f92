"""What a split trained on shares with the splits evaluated on, and what is wrong with either.

Counted once per content: the counts lie in the cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.cache import JSON, Cache
from trainables.data.collections import Collection, Ref, Texts, open_collection
from trainables.data.duplicates import normalised
from trainables.data.hashing import hash64
from trainables.data.sources import Pairs, located

OVERLAPS_KIND = "overlaps"
"""Kind of cache folder that keeps the counts of two splits."""

_COUNTS = "counts.json"
_FORMAT = 1


@dataclass(frozen=True)
class Overlap:
    """What a split trained on shares with a split evaluated on."""

    train: str
    test: str
    queries: int
    """Training queries whose text is a test query's, letter by letter."""
    queries_normalised: int
    """The same, up to case and punctuation."""
    passages: int
    """Positives trained on whose text is that of a positive tested on, letter by letter."""
    passages_normalised: int
    test_queries: int
    """Test queries whose text, up to case and punctuation, is trained on."""
    test_queries_exact: int
    """The same, letter by letter."""
    test_queries_of: int
    """Test queries in all."""
    test_passages: int
    """Positives tested on whose text, up to case and punctuation, is a positive trained on."""
    test_passages_exact: int
    """The same, letter by letter."""
    test_passages_of: int
    """Positives tested on in all."""
    corpus: int
    """Passages that both collections hold, judged or not, letter by letter."""
    conflicting: int
    """Pairs that both splits judge, one as relevant and one as not; 0 for two collections."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Flaws:
    """What is wrong with the judgements of a split."""

    ref: str
    judgements: int
    dangling: int
    """Judgements whose query or passage the collection lacks."""
    conflicting: int
    """Pairs that a file of the collection grades twice, differently; the first counts."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class StudyAudit:
    """The overlap of each split trained on with each evaluated on, and the flaws of all."""

    overlaps: tuple[Overlap, ...]
    flaws: tuple[Flaws, ...]

    def to_json(self) -> dict[str, object]:
        """The two lists by name."""
        return {
            "overlaps": [overlap.to_json() for overlap in self.overlaps],
            "flaws": [flaws.to_json() for flaws in self.flaws],
        }


def audit_study(trained: Sequence[Ref], tested: Sequence[Ref], cache: Cache) -> StudyAudit:
    """The audit of what a study trains on and evaluates on.

    Raises InvalidInput when a collection cannot be read.
    """
    every = dict.fromkeys([*trained, *tested])
    return StudyAudit(
        tuple(_counted(train, test, cache) for train in trained for test in tested),
        tuple(_flaws(ref, cache) for ref in every),
    )


def overlaps(
    collection: Collection, trained: Sequence[Ref], against: Sequence[Ref], cache: Cache
) -> tuple[Overlap, ...]:
    """What the splits trained on share with each other split of the collection and of `against`."""
    own = [Ref(trained[0].collection, s, trained[0].min_grade) for s in collection.splits]
    tested = [ref for ref in dict.fromkeys([*own, *against]) if ref not in trained]
    return tuple(_counted(train, test, cache) for train in trained for test in tested)


def _counted(train: Ref, test: Ref, cache: Cache) -> Overlap:
    def make(folder: Path) -> None:
        found = _overlap(train, _Texts.of(train, cache), test, _Texts.of(test, cache))
        (folder / _COUNTS).write_text(json.dumps(found.to_json()), encoding="utf-8")

    key: dict[str, JSON] = {
        name: [open_collection(ref.collection, cache).fingerprint, ref.split, ref.min_grade]
        for name, ref in (("train", train), ("test", test))
    }
    folder = cache.folder(OVERLAPS_KIND, {**key, "format": _FORMAT}, make)
    counts = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
    return Overlap(**{**counts, "train": train.label, "test": test.label})


@dataclass(frozen=True)
class _Texts:
    """Hashes of the texts of a split's queries and positives, and of all its passages."""

    fingerprint: str
    pairs: Pairs
    queries: NDArray[np.uint64]
    queries_normalised: NDArray[np.uint64]
    passages: NDArray[np.uint64]
    passages_normalised: NDArray[np.uint64]
    corpus: NDArray[np.uint64]

    @classmethod
    def of(cls, ref: Ref, cache: Cache) -> _Texts:
        collection = open_collection(ref.collection, cache)
        pairs, _ = located(collection, collection.judgements(ref.split))
        positives = np.unique(pairs.passage_rows[pairs.grades >= ref.min_grade])
        queries = np.unique(pairs.query_rows)
        return cls(
            collection.fingerprint,
            pairs,
            *_both(collection.queries, queries),
            *_both(collection.passages, positives),
            collection.passages.text_hashes,
        )


def _both(texts: Texts, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    found = texts.text(rows)
    return hash64(found), hash64(normalised(text) for text in found)


def _overlap(train: Ref, left: _Texts, test: Ref, right: _Texts) -> Overlap:
    def shared(mine: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> int:
        return int(np.count_nonzero(np.isin(mine, theirs)))

    same = left.fingerprint == right.fingerprint
    return Overlap(
        train=train.label,
        test=test.label,
        queries=shared(left.queries, right.queries),
        queries_normalised=shared(left.queries_normalised, right.queries_normalised),
        passages=shared(left.passages, right.passages),
        passages_normalised=shared(left.passages_normalised, right.passages_normalised),
        test_queries=shared(right.queries_normalised, left.queries_normalised),
        test_queries_exact=shared(right.queries, left.queries),
        test_queries_of=len(right.queries),
        test_passages=shared(right.passages_normalised, left.passages_normalised),
        test_passages_exact=shared(right.passages, left.passages),
        test_passages_of=len(right.passages),
        corpus=len(left.corpus) if same else shared(left.corpus, right.corpus),
        conflicting=_conflicting(train, left, test, right) if same else 0,
    )


def _conflicting(train: Ref, left: _Texts, test: Ref, right: _Texts) -> int:
    _, mine, theirs = np.intersect1d(left.pairs.keys(), right.pairs.keys(), return_indices=True)
    relevant = left.pairs.grades[mine] >= train.min_grade
    return int(np.count_nonzero(relevant != (right.pairs.grades[theirs] >= test.min_grade)))


def _flaws(ref: Ref, cache: Cache) -> Flaws:
    collection = open_collection(ref.collection, cache)
    judged = collection.judgements(ref.split)
    twice = (f.count for f in collection.warnings if f.kind == "conflicting-judgement")
    return Flaws(ref.label, len(judged), located(collection, judged)[1], sum(twice))
