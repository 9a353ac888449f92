"""Kept embeddings: never unless asked, then the same bytes without encoding, for the same texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data.cache import Cache
from trainables.data.collections import parse_ref
from trainables.evaluation import evaluate as room
from trainables.evaluation.embeddings import FILE, KIND
from trainables.evaluation.evaluate import evaluate
from trainables.model.encoder import Encoder
from trainables.spec import EncoderSpec


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALLEST_CHUNK", 7)


@pytest.fixture
def encoder(tiny_backbone: str) -> Encoder:
    return Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The role of every call of the encoder."""
    seen: list[str] = []
    real = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, tokens, role: seen.append(role) or real(self, tokens, role)
    )
    yield seen


def kept_files(cache: Cache) -> dict[str, str]:
    files = sorted((cache.root / KIND).glob(f"*/{FILE}"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_next_evaluation_encodes_nothing(
    encoder: Encoder, tiny_collection: str, tmp_path: Path, calls: list[str]
) -> None:
    ref, cache = parse_ref(f"{tiny_collection}/test"), Cache(tmp_path)
    (plain,) = evaluate(encoder, [ref], cache)
    assert not (tmp_path / KIND).exists() and calls.count("passage") > 2
    (first,) = evaluate(encoder, [ref], cache, keep_embeddings=True)
    files = kept_files(cache)
    calls.clear()
    (again,) = evaluate(encoder, [ref], cache)
    assert calls == [] and kept_files(cache) == files
    assert first.metrics == plain.metrics == again.metrics
    np.testing.assert_array_equal(plain.run.scores, again.run.scores)
    sizes = [np.load(path, mmap_mode="r").shape for path in files]
    assert sum(rows for rows, _ in sizes) == 60 + 7
    assert {np.load(path, mmap_mode="r").dtype for path in files} == {np.dtype("<f4")}


def test_other_weights_settings_or_queries_share_nothing(
    encoder: Encoder, tiny_backbone: str, tiny_collection: str, tmp_path: Path, calls: list[str]
) -> None:
    cache, ref = Cache(tmp_path), parse_ref(f"{tiny_collection}/test")
    evaluate(encoder, [ref], cache, keep_embeddings=True)
    calls.clear()
    evaluate(encoder, [parse_ref(f"{tiny_collection}/dev")], cache)
    assert set(calls) == {"query"}
    shorter = Encoder.load(EncoderSpec(backbone=tiny_backbone, passage_length=16), seed=0)
    with torch.no_grad():
        next(iter(encoder.parameters())).add_(1e-3)
    for other in (shorter, encoder):
        calls.clear()
        (cached,) = evaluate(other, [ref], cache)
        assert "passage" in calls
        assert cached.metrics == evaluate(other, [ref], Cache(tmp_path / "empty"))[0].metrics


def keep(backbone: str, collection: str, root: str) -> dict[str, float]:
    room.SMALLEST_CHUNK = 7
    torch.set_num_threads(1)
    encoder = Encoder.load(EncoderSpec(backbone=backbone), seed=0)
    ref = parse_ref(f"{collection}/test")
    return evaluate(encoder, [ref], Cache(Path(root)), keep_embeddings=True)[0].metrics


def test_processes_that_keep_at_once_leave_one_copy(
    tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    given = (tiny_backbone, tiny_collection, str(tmp_path))
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        one, two = [future.result() for future in [pool.submit(keep, *given) for _ in range(2)]]
    assert one == two
    files = kept_files(Cache(tmp_path))
    assert len(files) == 8 + 1
    alone = Cache(tmp_path / "alone")
    keep(tiny_backbone, tiny_collection, str(alone.root))
    assert sorted(kept_files(alone).values()) == sorted(files.values())
