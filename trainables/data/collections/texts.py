"""Texts with ids, kept in an Arrow file and read through a memory map: nothing is loaded to open.

An id is found by binary search in a sorted array of 64-bit hashes that is itself memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import read_array
from trainables.data.hashing import hash64

BATCH_ROWS = 4096
"""Rows of one Arrow record batch; row r stands in batch r // BATCH_ROWS."""


class Texts:
    """N texts, each with an id, in rows 0 to N - 1. Cheap to open and to send to a process."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def __reduce__(self) -> tuple[type[Texts], tuple[Path, str]]:
        return (Texts, (self._folder, self._name))

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(
            (self._folder / f"{self._name}.json").read_text(encoding="utf-8")
        )
        return facts

    @cached_property
    def _arrow(self) -> Any:
        return open_arrow(self._folder / f"{self._name}.arrow")

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        return read_array(self._folder / f"{self._name}.hashes.npy")

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return read_array(self._folder / f"{self._name}.order.npy")

    def __len__(self) -> int:
        return int(self._facts["count"])

    @property
    def fingerprint(self) -> str:
        """Hash of all ids and texts in their order."""
        return str(self._facts["fingerprint"])

    @property
    def duplicates(self) -> int:
        """Texts that repeat an earlier one, letter by letter."""
        return int(self._facts["duplicates"])

    @property
    def empty(self) -> int:
        """Texts without a letter."""
        return int(self._facts["empty"])

    @property
    def text_hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each text, uint64[N]."""
        return read_array(self._folder / f"{self._name}.texts.npy")

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The ids at `rows`, in that order. Raises IndexError outside of 0 to N - 1."""
        return self._column(0, rows)

    def text(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts at `rows`, in that order. Raises IndexError outside of 0 to N - 1."""
        return self._column(1, rows)

    def chunks(self) -> Iterator[tuple[list[str], list[str]]]:
        """All (ids, texts) from first to last, a few thousand at a time."""
        for batch in batches(self._arrow):
            yield batch.column(0).to_pylist(), batch.column(1).to_pylist()

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each id, int64[len(ids)]; -1 where it is absent."""
        wanted = list(dict.fromkeys(ids))
        found = dict(zip(wanted, self._rows(wanted).tolist(), strict=True))
        return np.fromiter((found[identifier] for identifier in ids), np.int64, len(ids))

    def _rows(self, ids: list[str]) -> NDArray[np.int64]:
        hashes = hash64(ids)
        starts = np.searchsorted(self._hashes, hashes, side="left")
        rows = np.full(len(ids), -1, dtype=np.int64)
        open_ = np.flatnonzero(starts < len(self))
        step = 0
        while len(open_):
            places = starts[open_] + step
            inside = places < len(self)
            open_, places = open_[inside], places[inside]
            same = self._hashes[places] == hashes[open_]
            open_, places = open_[same], places[same]
            candidates = np.asarray(self._order[places])
            seen = self.ids(candidates)
            right = np.array(
                [ids[i] == identifier for i, identifier in zip(open_, seen, strict=True)],
                dtype=bool,
            )
            rows[open_[right]] = candidates[right]
            open_ = open_[~right]
            step += 1
        return rows

    def _column(self, column: int, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows must lie in 0 to {len(self) - 1}")
        return take(self._arrow, column, wanted)


def open_arrow(path: Path) -> Any:
    """A reader of an Arrow file's record batches through a memory map."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path)))


def take(arrow: Any, column: int, rows: NDArray[np.int64]) -> list[str]:
    """The values at `rows` of a column whose batches hold BATCH_ROWS rows each, in that order."""
    values: list[str] = [""] * len(rows)
    batches = rows // BATCH_ROWS
    for index in np.unique(batches):
        places = np.flatnonzero(batches == index)
        inner = rows[places] - index * BATCH_ROWS
        taken = arrow.get_batch(int(index)).column(column).take(inner).to_pylist()
        for place, value in zip(places.tolist(), taken, strict=True):
            values[place] = value
    return values


def batches(arrow: Any) -> Iterator[Any]:
    """The record batches from first to last."""
    for index in range(arrow.num_record_batches):
        yield arrow.get_batch(index)
