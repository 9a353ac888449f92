"""What is known of a split's queries beside their scores: length, positives, overlap of words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Ref, find_collection
from trainables.errors import InvalidInput

GROUPS = 3
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class QueryFacts:
    """Per query [Q], in the order of the ids that were asked for."""

    length: NDArray[np.int64]
    """Words of the query."""
    positives: NDArray[np.int64]
    """Passages that are judged good enough."""
    overlap: NDArray[np.float64]
    """Share of the query's distinct words that its best-matching positive holds."""


def query_facts(
    ref: Ref, ids: Sequence[str], cache: Path | None, fingerprint: str | None
) -> QueryFacts | str:
    """The facts, or why there are none; reads only a collection that the run has left in `cache`.

    Without a cache it is the user's. `fingerprint` is of the collection that was scored on.
    """
    try:
        collection = find_collection(
            ref.collection, Cache.default() if cache is None else Cache(cache)
        )
    except InvalidInput as error:
        return f"the texts of {ref.collection} cannot be read: {error.problems[0].rule}"
    if collection is None:
        return f"the texts of {ref.collection} are not in the run folder's cache"
    if fingerprint is not None and collection.fingerprint != fingerprint:
        return f"{ref.collection} is no longer the one that the trials were scored on"
    return _facts(collection, ref, ids)


def groups_of(values: NDArray[np.int64] | NDArray[np.float64], unit: str) -> list[str]:
    """Each value's group: up to three of about the same size, labelled by their ends.

    Equal values stay together, so there may be fewer groups.
    """
    edges = np.quantile(values, [place / GROUPS for place in range(1, GROUPS)], method="higher")
    which = np.searchsorted(np.unique(edges), values, side="left")
    labels = {}
    for group in np.unique(which):
        inside = values[which == group]
        low, high = _shown(inside.min()), _shown(inside.max())
        labels[int(group)] = f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
    return [labels[int(group)].strip() for group in which]


def rising(labels: Sequence[str]) -> list[str]:
    """The distinct labels of `groups_of`, the lowest values first."""
    return sorted(set(labels), key=lambda label: float(label.partition(" ")[0]))


def _shown(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, np.floating) else str(value)


def _facts(collection: Collection, ref: Ref, ids: Sequence[str]) -> QueryFacts:
    judged = collection.judgements(ref.split).by_query()
    texts = collection.queries.text(collection.queries.rows(ids))
    words = [_words(text) for text in texts]
    good = [
        [passage for passage, grade in judged.get(query, {}).items() if grade >= ref.min_grade]
        for query in ids
    ]
    found = sorted({passage for passages in good for passage in passages})
    rows = collection.passages.rows(found)
    known = [(name, int(row)) for name, row in zip(found, rows, strict=True) if row >= 0]
    passages = collection.passages.text([row for _, row in known])
    held = {name: _words(text) for (name, _), text in zip(known, passages, strict=True)}
    overlap = [
        max((len(own & held[p]) / len(own) for p in passages if p in held and own), default=0.0)
        for own, passages in zip(words, good, strict=True)
    ]
    lengths = [len(_WORD.findall(text)) for text in texts]
    return QueryFacts(
        np.array(lengths), np.array([len(passages) for passages in good]), np.array(overlap)
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
