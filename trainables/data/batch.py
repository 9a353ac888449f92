"""Batches: which queries meet which passages at a step, and who is whose positive or negative.

A batch is a function of the spec, the seed and the step alone. All masks come from passage ids: a
passage that several queries need stands in the batch once, and is nobody's negative who knows it
as a positive.

An epoch is a permutation of a stage's queries cut into whole batches; the queries left over, fewer
than a batch, sit out that epoch. A stage with fewer queries than `optim.batch_size` has one batch
per epoch, of all its queries. Training wraps around epochs until its steps are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import ragged_take, ranks_within
from trainables.data.hashing import mix, permutation, uniform
from trainables.data.labels import Stage
from trainables.data.negatives import Negatives, load_negatives, negatives_key
from trainables.data.shards import Shards, shard
from trainables.data.sources import pair_keys
from trainables.errors import InvalidInput, Problem
from trainables.spec import TrialSpec

__all__ = [
    "Batches",
    "GlobalBatch",
    "Negatives",
    "Shards",
    "load_negatives",
    "negatives_key",
    "shard",
]

Reads = Literal["best", "drawn", "all"]


@dataclass(frozen=True)
class GlobalBatch:
    """Q queries and P distinct passages, the same on every worker; masks are [Q, P]."""

    query_rows: NDArray[np.int64]
    passage_rows: NDArray[np.int64]
    """Sorted; each passage once."""
    positive: NDArray[np.bool_]
    """The positives that the loss reads."""
    candidate: NDArray[np.bool_]
    """Positives and negatives: the columns that take part in the row's loss."""
    rank: NDArray[np.int16]
    """Place of a positive in its query's list, from 0; -1 elsewhere."""
    source: NDArray[np.int8]
    """HUMAN or MACHINE for a positive; -1 elsewhere."""
    true: NDArray[np.bool_]
    """False for a positive that was put in as known noise; True elsewhere."""
    known: NDArray[np.bool_]
    """Passages that any source calls a positive of the query, whether read or not."""
    hard: NDArray[np.bool_]
    """Hard negatives drawn for the query itself."""

    def view(self, queries: NDArray[np.int64], columns: NDArray[np.int64]) -> GlobalBatch:
        """The rows `queries` and the columns `columns` of the batch, in that order."""
        cells = np.ix_(queries, columns)
        return GlobalBatch(
            query_rows=self.query_rows[queries],
            passage_rows=self.passage_rows[columns],
            positive=self.positive[cells],
            candidate=self.candidate[cells],
            rank=self.rank[cells],
            source=self.source[cells],
            true=self.true[cells],
            known=self.known[cells],
            hard=self.hard[cells],
        )


class Batches:
    """The batches of a trial, by step."""

    def __init__(
        self,
        stages: Sequence[Stage],
        negatives: Negatives | None,
        spec: TrialSpec,
        reads: Reads,
    ) -> None:
        """`reads` is the loss's: the best positive, one drawn afresh each epoch, or all.

        Raises InvalidInput when the spec asks for hard negatives and there are none, or for more
        stages than steps.
        """
        self._check(stages, negatives, spec)
        self._parts = _parts(stages, negatives, spec, reads)

    @staticmethod
    def _check(stages: Sequence[Stage], negatives: Negatives | None, spec: TrialSpec) -> None:
        data, problems = spec.data, []
        if negatives is None and (data.group_size is not None or data.hard_negatives):
            key = "data.group_size" if data.hard_negatives == 0 else "data.hard_negatives"
            problems.append(Problem(key, "needs mined negatives", None))
        if spec.optim.steps is not None and spec.optim.steps < len(stages):
            rule = f"must be at least {len(stages)}, one for each stage of the curriculum"
            problems.append(Problem("optim.steps", rule, spec.optim.steps))
        if problems:
            raise InvalidInput(problems)

    @property
    def total_steps(self) -> int:
        """The number of batches."""
        return self._parts[-1].start + self._parts[-1].steps

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """The first step of each stage."""
        return tuple(part.start for part in self._parts)

    @property
    def short_of_negatives(self) -> int:
        """Queries of all stages for which fewer hard negatives were mined than a batch takes."""
        return sum(part.short_of_negatives for part in self._parts)

    def stage_of(self, step: int) -> int:
        """The stage that `step` belongs to. Raises IndexError beyond the last step."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is not among the {self.total_steps} steps")
        return int(np.searchsorted(self.stage_starts, step, side="right")) - 1

    def batch(self, step: int) -> GlobalBatch:
        """The batch of `step`, from 0: the same bits however often and wherever it is asked for."""
        part = self._parts[self.stage_of(step)]
        return part.batch(step - part.start)


def _parts(
    stages: Sequence[Stage], negatives: Negatives | None, spec: TrialSpec, reads: Reads
) -> list[_Part]:
    sizes = [min(spec.optim.batch_size, len(stage.labels)) for stage in stages]
    per_epoch = [len(stage.labels) // size for stage, size in zip(stages, sizes, strict=True)]
    total = spec.optim.steps
    if total is None:
        total = max(ceil((spec.optim.epochs or 0) * max(per_epoch)), len(stages))
    steps = [max(1, round(stage.share * total)) for stage in stages]
    steps[0] = max(1, total - sum(steps[1:]))
    steps[-1] = total - sum(steps[:-1])
    starts = np.cumsum([0, *steps[:-1]]).tolist()
    return [
        _Part(stage, negatives, spec, reads, index, start, count, size)
        for index, (stage, start, count, size) in enumerate(
            zip(stages, starts, steps, sizes, strict=True)
        )
    ]


class _Part:
    """The batches of one stage."""

    def __init__(
        self,
        stage: Stage,
        negatives: Negatives | None,
        spec: TrialSpec,
        reads: Reads,
        index: int,
        start: int,
        steps: int,
        size: int,
    ) -> None:
        self.start, self.steps = start, steps
        self._labels = stage.labels
        self._reads = reads
        self._data = spec.data
        self._seed = (spec.seed, index)
        self._size = size
        self._per_epoch = len(stage.labels) // size
        self._order = (-1, np.empty(0, dtype=np.int64))
        wanted = spec.data.hard_negatives or (spec.data.group_size or 0)
        self._negatives = negatives if wanted else None
        if self._negatives is not None:
            self._from, self._to = self._negatives.aligned(stage.labels.query_rows)

    @property
    def short_of_negatives(self) -> int:
        if self._negatives is None:
            return 0
        needed = self._needed(self._read_counts(np.arange(len(self._labels))))
        return int(np.count_nonzero(self._to - self._from < needed))

    def _members(self, epoch: int, place: int) -> NDArray[np.int64]:
        """The stage's queries in a batch of an epoch; the epoch's order is kept for the next."""
        if self._order[0] != epoch:
            order = permutation(len(self._labels), *self._seed, "epoch", epoch)
            self._order = (epoch, order)
        return self._order[1][place * self._size : (place + 1) * self._size]

    def _read_counts(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many positives each query brings into a batch."""
        if self._reads != "all":
            return np.ones(len(members), dtype=np.int64)
        counts = self._labels.offsets[members + 1] - self._labels.offsets[members]
        return counts if self._data.group_size is None else counts.clip(max=self._data.group_size)

    def _needed(self, read_counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many hard negatives each query brings into a batch."""
        if self._data.group_size is None:
            return np.full(len(read_counts), self._data.hard_negatives, dtype=np.int64)
        return self._data.group_size - read_counts

    def batch(self, step: int) -> GlobalBatch:
        epoch, place = divmod(step, self._per_epoch)
        members = self._members(epoch, place)
        labels = self._labels
        owner, places = ragged_take(labels.offsets, members)
        rank = ranks_within(owner)
        read = self._read(epoch, members, owner, rank)
        known_owner, known_places = ragged_take(labels.known_offsets, members)
        own = _Cells(
            np.concatenate([owner, known_owner]),
            np.concatenate([labels.passage_rows[places], labels.known_rows[known_places]]),
        )
        hard = self._hard(epoch, members, own)
        rows = np.unique(np.concatenate([labels.passage_rows[places[read]], hard.rows]))
        shape = (len(members), len(rows))
        positive = (owner[read], np.searchsorted(rows, labels.passage_rows[places[read]]))
        masks = {name: np.zeros(shape, dtype=bool) for name in ("positive", "known", "hard")}
        masks["positive"][positive] = True
        masks["known"][_Cells(known_owner, labels.known_rows[known_places]).among(rows)] = True
        masks["hard"][hard.among(rows)] = True
        candidate = np.ones(shape, dtype=bool)
        if self._data.mask_known_positives:
            candidate[own.among(rows)] = False
            candidate[positive] = True
        return GlobalBatch(
            query_rows=labels.query_rows[members],
            passage_rows=rows,
            candidate=candidate,
            rank=_filled(shape, positive, rank[read], np.int16(-1)),
            source=_filled(shape, positive, labels.source[places[read]], np.int8(-1)),
            true=_filled(shape, positive, labels.true[places[read]], np.bool_(True)),
            **masks,
        )

    def _read(
        self,
        epoch: int,
        members: NDArray[np.int64],
        owner: NDArray[np.int64],
        rank: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Which of the listed positives the loss reads."""
        if self._reads == "all":
            return np.asarray(rank < (self._data.group_size or len(rank)))
        if self._reads == "best":
            return np.asarray(rank == 0)
        counts = self._labels.offsets[members + 1] - self._labels.offsets[members]
        queries = self._labels.query_rows[members]
        draws = uniform(mix(*self._seed, "positive", epoch, queries))
        return np.asarray(rank == (draws * counts).astype(np.int64)[owner])

    def _hard(self, epoch: int, members: NDArray[np.int64], own: _Cells) -> _Cells:
        """Hard negatives of each query, drawn without replacement; never one of its `own`."""
        if self._negatives is None:
            return _Cells(np.empty(0, np.int64), np.empty(0, np.int64))
        starts, ends = self._from[members], self._to[members]
        owner = np.repeat(np.arange(len(members)), ends - starts)
        flat = np.concatenate([np.arange(*pair) for pair in zip(starts, ends, strict=True)])
        drawn = _Cells(owner, np.asarray(self._negatives.rows[flat.astype(np.int64)]))
        drawn = drawn.take(~np.isin(drawn.keys(), own.keys()))
        queries = self._labels.query_rows[members][drawn.owner]
        keys = mix(*self._seed, "negative", epoch, queries, drawn.rows)
        drawn = drawn.take(np.lexsort((keys, drawn.owner)))
        needed = self._needed(self._read_counts(members))
        return drawn.take(ranks_within(drawn.owner) < needed[drawn.owner])


@dataclass(frozen=True)
class _Cells:
    """(query of the batch, passage row) pairs."""

    owner: NDArray[np.int64]
    rows: NDArray[np.int64]

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> _Cells:
        return _Cells(self.owner[which], self.rows[which])

    def keys(self) -> NDArray[np.int64]:
        return pair_keys(self.owner, self.rows)

    def among(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The cells whose passage is among the sorted `rows`, as indices of a mask."""
        places = np.searchsorted(rows, self.rows).clip(max=len(rows) - 1)
        there = rows[places] == self.rows
        return self.owner[there], places[there]


def _filled(
    shape: tuple[int, int],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    values: NDArray[Any],
    elsewhere: np.generic,
) -> NDArray[Any]:
    filled: NDArray[Any] = np.full(shape, elsewhere)
    filled[places] = values
    return filled
