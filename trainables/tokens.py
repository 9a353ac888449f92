"""Token ids of many texts in two flat arrays: small, memory-mappable, and sliced without copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, special tokens included, without padding.

    `ids` is int32[T], all texts end to end; `offsets` is int64[N + 1]: text i is
    `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per text, int64[N]."""
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Tokens:
        """The texts at `rows`, in that order, copied into memory."""
        parts = [self[int(row)] for row in rows]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return Tokens(ids, offsets)

    def padded(self, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and attention mask, int64[N, longest], padded on the right with `pad_id`."""
        width = int(self.lengths.max()) if len(self) else 0
        mask = (np.arange(width)[None, :] < self.lengths[:, None]).astype(np.int64)
        ids = np.full((len(self), width), pad_id, dtype=np.int64)
        ids[mask.astype(bool)] = self.ids[self.offsets[0] : self.offsets[-1]]
        return ids, mask
