"""Arrays on disk: written in pieces without knowing their length, read as memory maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_HEADER_BYTES = 128


class ArrayWriter:
    """Writes a one-dimensional `.npy` file piece by piece; its header is completed on closing."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._file = path.open("wb")
        self._file.write(b"\0" * _HEADER_BYTES)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def append(self, values: NDArray[Any] | list[int]) -> None:
        """Adds `values`, converted to the array's type, at the end."""
        piece = np.asarray(values, dtype=self._dtype)
        self._file.write(piece.tobytes())
        self._count += piece.size

    def close(self) -> None:
        """Writes the header and closes the file."""
        content = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        text = repr(content).encode("latin1")
        magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(magic + text.ljust(_HEADER_BYTES - len(magic) - 1) + b"\n")
        self._file.close()


def read_array(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, memory-mapped and read-only; object arrays are refused."""
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def ragged_take(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the elements of some rows of a ragged array stand, all rows end to end.

    Row r of a ragged array is `values[offsets[r]:offsets[r + 1]]`. Returns (owner, places), both
    int64[T]: element t belongs to `rows[owner[t]]` and is `values[places[t]]`.
    """
    starts = np.asarray(offsets[rows])
    lengths = np.asarray(offsets[rows + 1]) - starts
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    ends = np.cumsum(lengths)
    places = np.arange(len(owner), dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)
    return owner, places


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The offsets of a ragged array from the lengths of its rows, int64[N + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranks_within(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each element in its run of equal owners, from 0; `owner` is sorted."""
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    lengths = np.diff(np.r_[starts, len(owner)])
    return np.arange(len(owner), dtype=np.int64) - np.repeat(starts, lengths)
