"""Mined hard negatives: where they lie in the cache and how they are read.

Mining itself stands in `trainables.prepare.negatives`; it leaves its result here, so that all
trials on the same content share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import read_array
from trainables.data.cache import JSON, Cache
from trainables.data.collections import Collection
from trainables.data.sources import machine_source, training_ref
from trainables.errors import InvalidInput, Problem
from trainables.spec import DataSpec

NEGATIVES_KIND = "negatives"
"""Kind of cache folder that holds mined negatives."""

_FORMAT = 1


@dataclass(frozen=True)
class Negatives:
    """Mined passages of N queries, the hardest first.

    `query_rows` is int64[N], sorted; query i has `rows[offsets[i]:offsets[i + 1]]`, int64, with
    the miner's `scores`, float32 (of supplied ones minus their place in the list). No row is a
    known positive of its query, of any source.
    """

    query_rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def aligned(self, query_rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the negatives of the given queries start and end in `rows`, int64[Q] each; an
        absent query has none."""
        places = np.searchsorted(self.query_rows, query_rows)
        places = np.minimum(places, max(len(self.query_rows) - 1, 0))
        if not len(self.query_rows):
            nowhere = np.zeros(len(query_rows), dtype=np.int64)
            return nowhere, nowhere
        there = self.query_rows[places] == query_rows
        starts = np.where(there, self.offsets[places], 0)
        return starts, np.where(there, self.offsets[places + 1], 0)


def negatives_key(collection_fingerprint: str, data: DataSpec, miner: str = "") -> dict[str, JSON]:
    """The cache key (kind NEGATIVES_KIND) of the negatives that `data` asks for.

    `miner` is the fingerprint of the model that mines; empty for BM25. The labels are part of the
    key because known positives are never mined.
    """
    ref = training_ref(data)
    machine = machine_source(data, ref)
    return {
        "collection": collection_fingerprint,
        "split": ref.split,
        "min_grade": ref.min_grade,
        "human_labels": data.human_labels,
        "machine_labels": None if machine is None else list(machine),
        "negatives": data.negatives,
        "depth": data.negative_depth,
        "margin": None if data.negatives == "supplied" else data.negative_margin,
        "miner": miner,
        "format": _FORMAT,
    }


def write_negatives(folder: Path, negatives: Negatives) -> None:
    """Writes mined negatives to a folder that `load_negatives` reads."""
    for name in ("query_rows", "offsets", "rows", "scores"):
        np.save(folder / f"{name}.npy", getattr(negatives, name))


def load_negatives(
    collection: Collection, data: DataSpec, cache: Cache, miner: str = ""
) -> Negatives:
    """The mined negatives that `data` asks for, memory-mapped.

    Raises InvalidInput when they have not been mined.
    """
    folder = cache.find(NEGATIVES_KIND, negatives_key(collection.fingerprint, data, miner))
    if folder is None:
        rule = f"no negatives of {collection.name} have been mined with these settings"
        raise InvalidInput([Problem("data.negatives", rule, data.negatives)])
    return Negatives(
        query_rows=read_array(folder / "query_rows.npy"),
        offsets=read_array(folder / "offsets.npy"),
        rows=read_array(folder / "rows.npy"),
        scores=read_array(folder / "scores.npy"),
    )
