"""Saved embeddings: the vectors of a chunk of texts, kept in the cache when they are asked for.

A chunk's folder is named by all that its vectors depend on: the encoder's weights and settings, its
tokenizer, the texts, which of them, the precision and the kind of device. So it is never out of
date, and workers and processes that want the same chunk share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.arrays import read_array
from trainables.data.cache import JSON, Cache
from trainables.data.collections import Texts
from trainables.data.tokenize import tokens_key
from trainables.model.encoder import Encoder, Role

KIND = "embeddings"
FILE = "vectors.npy"


class Embeddings:
    """The kept vectors of one encoder. Chunks that are absent are made, and kept if `write`."""

    def __init__(self, encoder: Encoder, cache: Cache, precision: str, write: bool) -> None:
        self._encoder, self._cache = encoder, cache
        self._precision, self._write = precision, write

    def chunk(
        self, texts: Texts, role: Role, rows: NDArray[np.int64], encode: Callable[[], Tensor]
    ) -> Tensor:
        """The vectors float32[len(rows), D] of the texts at `rows`, which `encode` would make."""
        if not self._write and not (self._cache.root / KIND).is_dir():
            return encode()
        key = {**self._key, **self._text_key(texts, role), "rows": _digest(rows)}

        def make(folder: Path) -> None:
            np.save(folder / FILE, encode().float().cpu().numpy())

        found = self._cache.find(KIND, key)
        if found is None and not self._write:
            return encode()
        found = found or self._cache.folder(KIND, key, make)
        return torch.from_numpy(np.array(read_array(found / FILE))).to(self._encoder.device)

    @cached_property
    def _key(self) -> dict[str, JSON]:
        return {
            "encoder": self._encoder.fingerprint(),
            "precision": self._precision,
            "device": self._encoder.device.type,
        }

    def _text_key(self, texts: Texts, role: Role) -> dict[str, JSON]:
        settings = self._encoder.settings
        prefix = getattr(settings, f"{role}_prefix")
        length = getattr(settings, f"{role}_length")
        path = self._encoder.tokenizer_path
        return {"role": role, **tokens_key(texts.fingerprint, path, prefix, length)}


def _digest(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:20]
