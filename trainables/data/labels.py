"""Label sources meet: which queries are trained on, and which passages are their positives.

Mixing policies, with the human queries drawn once per seed so that a smaller share is part of a
larger one:

- `replace`: drawn queries have their human positives, the others their machine positives.
- `union`: every query has its machine positives; drawn queries have their human ones before them.
- `curriculum`: first all queries with machine positives, then the drawn ones with human positives;
  the second stage has `curriculum_share` of the steps, so that both mixes cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import offsets_of, ranks_within
from trainables.data.cache import Cache
from trainables.data.collections import Collection
from trainables.data.hashing import hash64, mix
from trainables.data.noise import with_noise
from trainables.data.sources import (
    Pairs,
    Sources,
    annotation_key,
    known_positives,
    load_labels,
    load_sources,
    pair_hashes,
)
from trainables.errors import InvalidInput, Problem
from trainables.spec import DataSpec

HUMAN, MACHINE = 0, 1

__all__ = [
    "HUMAN",
    "MACHINE",
    "Stage",
    "TrainingLabels",
    "annotation_key",
    "load_labels",
    "training_stages",
]


@dataclass(frozen=True)
class TrainingLabels:
    """The queries of a stage and their positives, best first; rows are those of the collection.

    N queries, M positives, K known positives. Query i has the positives
    `offsets[i]:offsets[i + 1]` and the known ones `known_offsets[i]:known_offsets[i + 1]`.
    """

    query_rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    passage_rows: NDArray[np.int64]
    source: NDArray[np.int8]
    """HUMAN or MACHINE."""
    grade: NDArray[np.int16]
    true: NDArray[np.bool_]
    """False where a wrong passage was put in on purpose."""
    known_offsets: NDArray[np.int64]
    known_rows: NDArray[np.int64]
    """Positives by any source, used or not: never negatives."""

    def __len__(self) -> int:
        return len(self.query_rows)


@dataclass(frozen=True)
class Stage:
    """A part of training with its own labels; the shares of a trial's stages add up to 1."""

    labels: TrainingLabels
    share: float
    """Share of the steps."""
    without_positive: int
    """Queries left out because they have no positive here."""
    capped: int
    """Positives left out by `max_positives`."""
    noise_judged: int
    """Positives replaced by passages that a source judges wrong for the query."""
    noise_unjudged: int
    """Positives replaced by passages that no source judges for the query."""
    dangling: int
    """Judgements whose query or passage the collection lacks."""


def training_stages(
    collection: Collection, data: DataSpec, seed: int, cache: Cache
) -> tuple[Stage, ...]:
    """The stages of training: one, or two under `curriculum`.

    All draws are functions of the seed and of ids. Raises InvalidInput when a source is missing or
    no query has a positive.
    """
    sources = load_sources(collection, data, cache)
    machine = _without_human(sources, data)
    drawn = human_queries(collection, sources.query_rows, data.human_fraction, seed)
    everyone = sources.query_rows
    parts: list[tuple[_Table, NDArray[np.int64], float]]
    if machine is None:
        parts = [(_table(sources.human, HUMAN), everyone, 1.0)]
    elif data.mixing == "curriculum":
        human = _of(sources.human, drawn)
        share = data.curriculum_share if len(human) else 0.0
        parts = [
            (_table(machine, MACHINE), everyone, 1.0 - share),
            (_table(human, HUMAN), drawn, share),
        ]
    else:
        others = np.setdiff1d(everyone, drawn) if data.mixing == "replace" else everyone
        human = _of(sources.human, drawn)
        both = _table(human, HUMAN).joined(_table(_of(machine, others), MACHINE))
        parts = [(both, everyone, 1.0)]
    builder = _Stages(collection, sources, data, seed)
    return tuple(builder.stage(*part) for part in parts if part[2] > 0)


def human_queries(
    collection: Collection, query_rows: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """The queries whose human labels are used: the first `fraction` of a seeded order, sorted."""
    keys = mix(seed, "human queries", hash64(collection.queries.ids(query_rows)))
    count = int(fraction * len(query_rows) + 0.5)
    return np.sort(query_rows[np.argsort(keys, kind="stable")[:count]])


@dataclass(frozen=True)
class _Table:
    """Positives with their source, in order of preference within a source."""

    pairs: Pairs
    source: NDArray[np.int8]

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> _Table:
        return _Table(self.pairs.take(which), self.source[which])

    def joined(self, other: _Table) -> _Table:
        first, second = self.pairs, other.pairs
        pairs = Pairs(
            np.concatenate([first.query_rows, second.query_rows]),
            np.concatenate([first.passage_rows, second.passage_rows]),
            np.concatenate([first.grades, second.grades]),
        )
        return _Table(pairs, np.concatenate([self.source, other.source]))


@dataclass(frozen=True)
class _Stages:
    collection: Collection
    sources: Sources
    data: DataSpec
    seed: int

    def stage(self, table: _Table, eligible: NDArray[np.int64], share: float) -> Stage:
        table = _ranked(table)
        kept = table if self.data.max_positives is None else self._capped(table)
        if not len(kept.pairs):
            rule = f"no query of {self.sources.ref} has a positive of the sources in use"
            raise InvalidInput([Problem("data.train", rule, self.data.train)])
        noisy = with_noise(self.collection, self.sources, kept.pairs, self.data.noise, self.seed)
        kept = replace(kept, pairs=noisy.pairs)
        query_rows, counts = np.unique(kept.pairs.query_rows, return_counts=True)
        known_offsets, known_rows = known_positives(self.sources, query_rows)
        labels = TrainingLabels(
            query_rows=query_rows,
            offsets=offsets_of(counts),
            passage_rows=kept.pairs.passage_rows,
            source=kept.source,
            grade=kept.pairs.grades,
            true=noisy.true,
            known_offsets=known_offsets,
            known_rows=known_rows,
        )
        return Stage(
            labels=labels,
            share=share,
            without_positive=len(eligible) - len(query_rows),
            capped=len(table.pairs) - len(kept.pairs),
            noise_judged=noisy.judged,
            noise_unjudged=noisy.unjudged,
            dangling=self.sources.dangling,
        )

    def _capped(self, table: _Table) -> _Table:
        """The first `max_positives` of each query, in order of rank or of a seeded draw."""
        owner = table.pairs.query_rows
        limit = self.data.max_positives or len(owner)
        if self.data.positive_order == "grade":
            return table.take(ranks_within(owner) < limit)
        queries, passages = pair_hashes(self.collection, table.pairs)
        order = np.lexsort((mix(self.seed, "positives", queries, passages), owner))
        chosen = order[ranks_within(owner[order]) < limit]
        return table.take(np.sort(chosen))


def _ranked(table: _Table) -> _Table:
    """Sorted by query, human before machine, better grade first, then the source's order; a pair
    that both sources give is the human source's."""
    pairs = table.pairs
    order = np.lexsort((-pairs.grades.astype(np.int32), table.source, pairs.query_rows))
    table = table.take(order)
    first = np.unique(table.pairs.keys(), return_index=True)[1]
    return table.take(np.sort(first))


def _table(pairs: Pairs, source: int) -> _Table:
    return _Table(pairs, np.full(len(pairs), source, dtype=np.int8))


def _of(pairs: Pairs, query_rows: NDArray[np.int64]) -> Pairs:
    return pairs.take(np.isin(pairs.query_rows, query_rows))


def _without_human(sources: Sources, data: DataSpec) -> Pairs | None:
    """The machine positives; without those that the human source gives, when so asked."""
    machine = sources.machine
    if machine is None or data.machine_human_positive:
        return machine
    return machine.take(~np.isin(machine.keys(), sources.human.keys()))
