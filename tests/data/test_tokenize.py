"""Token ids: what the tokenizer says, once per content, cut to length, memory-mapped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.data import tokenize as module
from trainables.data.cache import Cache
from trainables.data.collections import Collection, open_collection
from trainables.data.tokenize import (
    load_tokenizer,
    pad_id,
    tokenize,
    tokenize_texts,
    tokenizer_fingerprint,
)
from trainables.errors import InvalidInput
from trainables.tokens import Tokens


@pytest.fixture
def collection(tiny_collection: str, cache: Cache) -> Collection:
    return open_collection(tiny_collection, cache)


def tokens(collection: Collection, backbone: str, cache: Cache, **changes: object) -> Tokens:
    texts = collection.passages
    settings = {"prefix": "", "max_length": 16} | changes
    return tokenize(texts, backbone, cache=cache, fingerprint=texts.fingerprint, **settings)  # type: ignore[arg-type]


def test_ids_are_the_tokenizers(collection: Collection, tiny_backbone: str, cache: Cache) -> None:
    found = tokens(collection, tiny_backbone, cache, prefix="passage: ")
    tokenizer = load_tokenizer(tiny_backbone)
    texts = collection.passages.text(range(len(collection.passages)))
    assert len(found) == len(texts)
    for i, text in enumerate(texts):
        expected = tokenizer("passage: " + text, truncation=True, max_length=16)["input_ids"]
        assert found[i].tolist() == expected
    assert found.lengths.max() == 16
    assert {int(found[i][0]) for i in range(60)} == {tokenizer.cls_token_id}
    assert {int(found[i][-1]) for i in range(60)} == {tokenizer.sep_token_id}
    assert isinstance(found.ids, np.memmap) and pad_id(tiny_backbone) == tokenizer.pad_token_id
    few = tokenize_texts(texts[:5], tiny_backbone, "passage: ", 16)
    assert all(few[i].tolist() == found[i].tolist() for i in range(5))
    assert len(tokenize_texts([], tiny_backbone, "", 16)) == 0


def test_they_are_made_once_per_content(
    collection: Collection, tiny_backbone: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokens(collection, tiny_backbone, cache)
    calls: list[int] = []
    encode = module._encode

    def counted(*given: Any) -> list[list[int]]:
        calls.append(1)
        return encode(*given)

    monkeypatch.setattr(module, "_encode", counted)
    again = tokens(collection, tiny_backbone, cache)
    assert not calls and np.array_equal(first.ids, again.ids)
    for changes in ({"prefix": "x "}, {"max_length": 8}):
        tokens(collection, tiny_backbone, cache, **changes)
    assert len(calls) == 2


def test_the_fingerprint_follows_what_decides_ids(tiny_backbone: str, tmp_path: Path) -> None:
    first = tokenizer_fingerprint(tiny_backbone)
    tokenize_texts(["array matrix"], tiny_backbone, "", 8)
    tokenizer_fingerprint.cache_clear()
    assert tokenizer_fingerprint(tiny_backbone) == first
    copy = shutil.copytree(tiny_backbone, tmp_path / "copy")
    assert tokenizer_fingerprint(str(copy)) == first
    other = shutil.copytree(tiny_backbone, tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace('"array"', '"arrax"'), encoding="utf-8")
    assert tokenizer_fingerprint(str(other)) != first


def test_what_is_no_tokenizer_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no tokenizer that can be loaded"):
        load_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidInput, match=r"encoder\.backbone"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", ['{"broken": 1', '{"version": "1.0", "model": {"type": "?"}}'])
def test_a_broken_tokenizer_file_is_a_mistake(
    tiny_backbone: str, tmp_path: Path, content: str
) -> None:
    broken = shutil.copytree(tiny_backbone, tmp_path / "broken")
    (broken / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidInput, match="has no tokenizer that can be loaded"):
        load_tokenizer(str(broken))


def test_a_model_without_the_files_of_a_tokenizer_is_a_mistake(
    tiny_backbone: str, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_backbone, tmp_path / "bare")
    removed = [*bare.glob("tokenizer*"), *bare.glob("vocab*"), *bare.glob("special_tokens*")]
    assert removed
    for file in removed:
        file.unlink()
    with pytest.raises(InvalidInput, match="tokenizer"):
        load_tokenizer(str(bare))
