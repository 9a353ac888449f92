"""Text becomes token ids: once per content, streamed to disk, read as a memory map."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.arrays import ArrayWriter, read_array
from trainables.data.cache import JSON, Cache
from trainables.data.collections.texts import Texts
from trainables.errors import InvalidInput, Problem
from trainables.tokens import Tokens

_IDS, _OFFSETS = "ids.npy", "offsets.npy"
_SET_BY_EACH_CALL = ("truncation", "padding")
_TOKENIZER = 1
"""Version of what this module makes of texts."""


@lru_cache(maxsize=8)
def load_tokenizer(path: str) -> Any:
    """The fast tokenizer in a folder or of a Hugging Face name.

    Raises InvalidInput when there is none, or none that is fast or that can pad.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        rule = f"has no tokenizer that can be loaded: {reason}"
        raise InvalidInput([Problem("encoder.backbone", rule, path)]) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InvalidInput([Problem("encoder.backbone", "has no fast tokenizer", path)])
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        # transformers makes an empty one of the architecture where the files are missing.
        raise InvalidInput([Problem("encoder.backbone", "has no files of a tokenizer", path)])
    if tokenizer.pad_token_id is None:
        raise InvalidInput([Problem("encoder.backbone", "has no padding token", path)])
    return tokenizer


def pad_id(path: str) -> int:
    """The id that pads shorter texts."""
    return int(load_tokenizer(path).pad_token_id)


@lru_cache(maxsize=8)
def tokenizer_fingerprint(path: str) -> str:
    """Hash of everything that decides a text's token ids, 20 hex digits."""
    tokenizer = load_tokenizer(path)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    decisive = {part: value for part, value in state.items() if part not in _SET_BY_EACH_CALL}
    text = json.dumps([_TOKENIZER, decisive], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def tokens_key(
    fingerprint: str, tokenizer_path: str, prefix: str, max_length: int
) -> dict[str, JSON]:
    """What the tokens of texts with this `fingerprint` depend on."""
    return {
        "texts": fingerprint,
        "tokenizer": tokenizer_fingerprint(tokenizer_path),
        "prefix": prefix,
        "max_length": max_length,
    }


def tokenize_texts(texts: list[str], tokenizer_path: str, prefix: str, max_length: int) -> Tokens:
    """Token ids of a few texts, in memory: `prefix` + text, cut to `max_length` ids in all."""
    rows = _encode(load_tokenizer(tokenizer_path), texts, prefix, max_length)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    flat = [number for row in rows for number in row]
    return Tokens(np.array(flat, dtype=np.int32), offsets)


def tokenize(
    texts: Texts,
    tokenizer_path: str,
    prefix: str,
    max_length: int,
    cache: Cache,
    fingerprint: str,
) -> Tokens:
    """Token ids of all `texts`, in their order: memory-mapped, made once per content.

    Each text is `prefix` + text, cut so that it has at most `max_length` ids with the special
    tokens. `fingerprint` identifies the texts (`texts.fingerprint`). Raises InvalidInput when the
    tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(tokenizer_path)

    def make(folder: Path) -> None:
        with (
            ArrayWriter(folder / _IDS, np.int32) as ids,
            ArrayWriter(folder / _OFFSETS, np.int64) as offsets,
        ):
            offsets.append([0])
            for _, chunk in texts.chunks():
                rows = _encode(tokenizer, chunk, prefix, max_length)
                ends = len(ids) + np.cumsum([len(row) for row in rows])
                ids.append([number for row in rows for number in row])
                offsets.append(ends)

    key = tokens_key(fingerprint, tokenizer_path, prefix, max_length)
    folder = cache.folder("tokens", key, make)
    return Tokens(read_array(folder / _IDS), read_array(folder / _OFFSETS))


def _encode(tokenizer: Any, texts: list[str], prefix: str, max_length: int) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        [prefix + text for text in texts],
        add_special_tokens=True,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    rows: list[list[int]] = encoded["input_ids"]
    return rows
