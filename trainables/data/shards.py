"""A global batch is dealt out to workers: a fixed function that every worker computes alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shards:
    """For each worker the positions in the batch that it encodes, each sorted."""

    queries: tuple[NDArray[np.int64], ...]
    passages: tuple[NDArray[np.int64], ...]

    @property
    def columns(self) -> NDArray[np.int64]:
        """Positions of all passages in the order in which the workers' shares are gathered."""
        return np.concatenate(self.passages)

    @property
    def query_counts(self) -> tuple[int, ...]:
        """Queries of each worker; some may have none."""
        return tuple(len(part) for part in self.queries)

    @property
    def passage_counts(self) -> tuple[int, ...]:
        """Passages of each worker; some may have none."""
        return tuple(len(part) for part in self.passages)


def shard(
    query_lengths: NDArray[np.int64], passage_lengths: NDArray[np.int64], world_size: int
) -> Shards:
    """Deals queries and passages to `world_size` workers so that their tokens are about equal.

    Takes the tokens of each query, [Q], and of each passage, [P]. The longest text goes first, to
    the worker with the fewest tokens so far (Graham 1969: within 4/3 of the best balance); equals
    go to the lower rank.
    """
    loads = [0] * world_size
    queries = _dealt(query_lengths, loads)
    return Shards(queries, _dealt(passage_lengths, loads))


def _dealt(lengths: NDArray[np.int64], loads: list[int]) -> tuple[NDArray[np.int64], ...]:
    """Positions per worker; adds their tokens to `loads`."""
    hands: list[list[int]] = [[] for _ in loads]
    for position in np.argsort(-lengths, kind="stable").tolist():
        lightest = loads.index(min(loads))
        hands[lightest].append(position)
        loads[lightest] += int(lengths[position])
    return tuple(np.array(sorted(hand), dtype=np.int64) for hand in hands)
