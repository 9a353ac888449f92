"""Exact top-k: against a full sort, with ties, in any pieces, by either engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainables.errors import InvalidInput
from trainables.evaluation import search as search_module
from trainables.evaluation import topk as topk_module
from trainables.evaluation.search import Engine, Search
from trainables.evaluation.topk import (
    EMPTY,
    Ints,
    TopK,
    best,
    ordered,
    pack,
    unordered,
    unpack,
)

ENGINES: tuple[Engine, ...] = ("torch", "faiss")
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles and slack so small that every search crosses their borders."""
    monkeypatch.setitem(search_module.TILES, "cpu", (3, 5))
    monkeypatch.setattr(search_module, "SLACK", 2)
    monkeypatch.setattr(topk_module, "SMALLEST_ROOM", 3)


def small_vectors(seed: int, count: int, width: int = 3) -> torch.Tensor:
    """Whole numbers, so that products are exact in any order and ties are common."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (count, width), generator=generator).float()


def full_sort(queries: torch.Tensor, passages: torch.Tensor, depth: int, own: Ints) -> Ints:
    """Rows int64[Q, depth] by score descending and then row ascending, -1 at the end."""
    scores = (queries @ passages.T).double().numpy()
    rows = np.full((len(queries), depth), -1, dtype=np.int64)
    for i, line in enumerate(scores):
        order = sorted((-score, row) for row, score in enumerate(line) if row != own[i])
        rows[i, : len(order)] = [row for _, row in order[:depth]]
    return rows


def searched(
    queries: torch.Tensor,
    passages: torch.Tensor,
    depth: int,
    own: Ints,
    engine: Engine,
    pieces: Iterable[tuple[int, int]],
) -> Ints:
    search = Search(queries, depth, own, engine)
    for start, stop in pieces:
        search.add(passages[start:stop], start)
    return search.result()


def spans(count: int, cuts: Iterable[int]) -> list[tuple[int, int]]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < count}), count]
    return list(itertools.pairwise(edges))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(0, 8),
    count=st.integers(0, 40),
    depth=st.integers(1, 45),
    cuts=st.lists(st.integers(1, 39), max_size=6),
    engine=st.sampled_from(ENGINES),
    data=st.data(),
)
def test_any_cut_of_the_corpus_gives_the_full_sort(
    seed: int,
    queries: int,
    count: int,
    depth: int,
    cuts: list[int],
    engine: Engine,
    data: st.DataObject,
) -> None:
    asked, passages = small_vectors(seed, queries), small_vectors(seed + 1, count)
    own = np.array([data.draw(st.integers(-1, max(0, count - 1))) for _ in range(queries)], int)
    pieces = data.draw(st.permutations(spans(count, cuts)))
    rows, scores = unpack(searched(asked, passages, depth, own, engine, pieces))
    np.testing.assert_array_equal(rows, full_sort(asked, passages, depth, own))
    exact = asked @ passages.T
    for i, j in zip(*np.nonzero(rows >= 0), strict=True):
        assert scores[i, j] == exact[i, rows[i, j]]
    assert np.all(np.isneginf(scores) == (rows < 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_scorer_ranks_by_row(engine: Engine) -> None:
    keys = searched(
        torch.ones(4, 2), torch.ones(50, 2), 10, np.full(4, -1), engine, spans(50, [7, 20])
    )
    rows, _ = unpack(keys)
    np.testing.assert_array_equal(rows, np.tile(np.arange(10), (4, 1)))


def test_engines_agree_on_real_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(30, 24, generator=generator)
    passages = torch.randn(400, 24, generator=generator)
    results = [
        unpack(searched(queries, passages, 20, np.full(30, -1), engine, spans(400, [128, 300])))
        for engine in ENGINES
    ]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5)


def test_workers_merge_to_what_one_finds() -> None:
    queries, passages = small_vectors(5, 6), small_vectors(6, 60)
    own = np.full(6, -1)
    pieces = spans(60, [10, 20, 30, 40, 50])
    whole = searched(queries, passages, 12, own, "torch", pieces)
    for workers in (2, 3, 7):
        parts = [
            searched(queries, passages, 12, own, "torch", pieces[worker::workers])
            for worker in range(workers)
        ]
        np.testing.assert_array_equal(best(np.concatenate(parts, axis=1), 12), whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(FloatingPointError, match="query"):
        Search(torch.full((1, 2), value), 3)
    search = Search(torch.ones(1, 2), 3)
    with pytest.raises(FloatingPointError, match="passage"):
        search.add(torch.full((1, 2), value), 0)


def test_a_missing_faiss_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_faiss", lambda: None)
    with pytest.raises(InvalidInput, match="faiss"):
        Search(torch.ones(1, 2), 3, engine="faiss")


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=finite))
def test_order_of_keys_is_order_of_scores(scores: np.ndarray) -> None:
    order = ordered(scores)
    np.testing.assert_array_equal(unordered(order), scores)
    for i in range(len(scores)):
        np.testing.assert_array_equal(order < order[i], scores < scores[i])


@given(
    arrays.arrays(np.float32, 6, elements=finite),
    arrays.arrays(np.int64, 6, elements=st.integers(0, 2**32 - 1)),
)
def test_keys_hold_score_and_row(scores: np.ndarray, rows: np.ndarray) -> None:
    keys = pack(scores, rows)
    found_rows, found_scores = unpack(keys)
    np.testing.assert_array_equal(found_rows, rows)
    np.testing.assert_array_equal(found_scores, scores)
    expected = sorted(zip(-scores.astype(float), rows.tolist(), strict=True))
    ranked = unpack(np.sort(keys)[::-1])
    assert list(zip(-ranked[1].astype(float), ranked[0].tolist(), strict=True)) == expected
    assert (keys > EMPTY).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 30), st.integers(0, 10**6))
def test_offers_in_any_portions_keep_the_best(queries: int, k: int, offers: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    top = TopK(queries, k)
    seen: list[list[int]] = [[] for _ in range(queries)]
    row = 0
    for _ in range(offers):
        counts = generator.integers(0, 5, queries)
        query = np.repeat(np.arange(queries), counts)
        scores = generator.integers(-3, 3, len(query)).astype(np.float32)
        keys = pack(scores, row + np.arange(len(query)))
        row += len(query)
        kept = scores >= top.floor[query]
        for i, key in zip(query, keys, strict=True):
            seen[i].append(int(key))
        top.offer(query[kept], keys[kept])
    expected = np.full((queries, k), EMPTY, dtype=np.int64)
    for i, keys_of_query in enumerate(seen):
        ranked = sorted(keys_of_query, reverse=True)[:k]
        expected[i, : len(ranked)] = ranked
    np.testing.assert_array_equal(top.result(), expected)
