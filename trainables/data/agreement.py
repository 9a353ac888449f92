"""How far two label sources agree on the pairs that both judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from trainables.data.arrays import ranks_within
from trainables.data.collections import Collection
from trainables.data.sources import Pairs

CONFLICTS_LISTED = 20
"""Conflicts that are listed when no number is asked for."""


@dataclass(frozen=True)
class Agreement:
    """A source's verdicts against the human ones; relevant means graded at the threshold or above.

    Shares are NaN-free: None where nothing is there to divide by.
    """

    source: str
    reference: str
    min_grade: int
    """Threshold of the reference."""
    source_min_grade: int
    pairs: int
    """Pairs that both judge."""
    only_source: int
    """Pairs that the source judges and the reference does not."""
    only_reference: int
    kappa: float | None
    """Cohen's kappa (1960) of the two relevance verdicts."""
    kappa_grades: float | None
    """Cohen's kappa of the grades themselves."""
    precision: float | None
    """Share of the source's relevant pairs that the reference calls relevant."""
    recall: float | None
    """Share of the reference's relevant pairs that the source calls relevant."""
    strict_precision: float | None
    """The same when a pair that the reference does not judge counts as not relevant."""
    strict_recall: float | None
    positives_per_query: float
    """Relevant pairs per judged query, by the source."""
    reference_positives_per_query: float

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Conflict:
    """A pair that one source calls relevant and the other does not: worth a second look."""

    source: str
    query_id: str
    passage_id: str
    human_grade: int
    machine_grade: int
    query: str
    passage: str
    """Its first 200 letters."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def agreement(
    source: str, judged: Pairs, reference: Pairs, min_grade: int, source_min_grade: int
) -> Agreement:
    """The agreement of a source with the reference `qrels` on the pairs that both judge."""
    mine, theirs = _shared(judged, reference)
    relevant, right = judged.grades[mine] >= source_min_grade, reference.grades[theirs] >= min_grade
    both = int(np.count_nonzero(relevant & right))
    return Agreement(
        source=source,
        reference="qrels",
        min_grade=min_grade,
        source_min_grade=source_min_grade,
        pairs=len(mine),
        only_source=len(judged) - len(mine),
        only_reference=len(reference) - len(theirs),
        kappa=cohen_kappa(relevant.astype(np.int64), right.astype(np.int64)),
        kappa_grades=cohen_kappa(judged.grades[mine], reference.grades[theirs]),
        precision=_share(both, int(np.count_nonzero(relevant))),
        recall=_share(both, int(np.count_nonzero(right))),
        strict_precision=_share(both, _relevant(judged, reference, source_min_grade)),
        strict_recall=_share(both, _relevant(reference, judged, min_grade)),
        positives_per_query=_per_query(judged, source_min_grade),
        reference_positives_per_query=_per_query(reference, min_grade),
    )


def cohen_kappa(left: np.ndarray, right: np.ndarray) -> float | None:
    """Cohen's kappa: (observed - expected agreement) / (1 - expected); None when undefined."""
    if not len(left):
        return None
    values = np.union1d(left, right)
    shares = [np.mean(side[:, None] == values[None, :], axis=0) for side in (left, right)]
    expected = float(np.dot(*shares))
    observed = float(np.mean(left == right))
    return None if expected >= 1.0 else (observed - expected) / (1.0 - expected)


def conflicts(
    collection: Collection,
    source: str,
    judged: Pairs,
    reference: Pairs,
    min_grade: int,
    source_min_grade: int,
    limit: int = CONFLICTS_LISTED,
) -> tuple[Conflict, ...]:
    """The strongest `limit` conflicts: verdicts differ, and grades lie furthest apart.

    Of equal grades those come first of which the source is surest: it ranks the passage high in
    its list of the query and the reference calls it wrong, or it ranks it low and the reference
    calls it relevant.
    """
    mine, theirs = _shared(judged, reference)
    machine = judged.grades[mine].astype(np.int64)
    human = reference.grades[theirs].astype(np.int64)
    against = (machine >= source_min_grade) != (human >= min_grade)
    distance = np.abs(machine - human)
    place = _place_in_list(judged)[mine]
    surprise = np.where(machine >= source_min_grade, place, 1.0 - place)
    order = np.lexsort((np.arange(len(mine)), surprise, -distance, ~against))
    chosen = order[against[order]][:limit]
    queries = judged.query_rows[mine[chosen]]
    passages = judged.passage_rows[mine[chosen]]
    return tuple(
        Conflict(source, *fields)
        for fields in zip(
            collection.queries.ids(queries),
            collection.passages.ids(passages),
            human[chosen].tolist(),
            machine[chosen].tolist(),
            collection.queries.text(queries),
            [text[:200] for text in collection.passages.text(passages)],
            strict=True,
        )
    )


def _shared(judged: Pairs, reference: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Places of the common pairs in each of the two, in the same order."""
    _, mine, theirs = np.intersect1d(judged.keys(), reference.keys(), return_indices=True)
    order = np.argsort(mine, kind="stable")
    return mine[order], theirs[order]


def _place_in_list(judged: Pairs) -> np.ndarray:
    """Where each pair stands in its query's list, from 0 (first) to 1 (last)."""
    order = np.argsort(judged.query_rows, kind="stable")
    ranks = ranks_within(judged.query_rows[order])
    _, lines, lengths = np.unique(judged.query_rows[order], return_inverse=True, return_counts=True)
    place = np.empty(len(judged))
    place[order] = ranks / np.maximum(lengths[lines] - 1, 1)
    return place


def _relevant(judged: Pairs, other: Pairs, min_grade: int) -> int:
    """The relevant pairs of the queries that `other` judges too."""
    there = np.isin(judged.query_rows, other.query_rows)
    return int(np.count_nonzero(there & (judged.grades >= min_grade)))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _per_query(pairs: Pairs, min_grade: int) -> float:
    queries = len(np.unique(pairs.query_rows))
    return int(np.count_nonzero(pairs.grades >= min_grade)) / queries if queries else 0.0
