"""Seeded choices that depend on nothing but their ingredients."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.arrays import offsets_of, ragged_take, ranks_within
from trainables.data.hashing import hash64, mix, permutation, uniform


def test_hashes_are_the_same_everywhere() -> None:
    assert hash64(["query", "", "é"]).tolist() == [
        int.from_bytes(bytes.fromhex(digest), "little")
        for digest in ("7b1fab666cbd6803", "e4a6a0577479b2b4", "cb1abf8beff3192f")
    ]


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_an_element_gets_the_same_number_in_any_company(seed: int, rows: list[int]) -> None:
    together = mix(seed, "purpose", np.array(rows, dtype=np.int64))
    alone = [int(mix(seed, "purpose", np.array([row], dtype=np.int64))[0]) for row in rows]
    assert together.tolist() == alone


def test_purposes_seeds_and_order_of_parts_all_matter() -> None:
    row = np.array([7], dtype=np.int64)
    draws = {
        int(values[0])
        for values in (
            mix(1, "a", row),
            mix(2, "a", row),
            mix(1, "b", row),
            mix("a", 1, row),
            mix(1, "a", row, row),
        )
    }
    assert len(draws) == 5


def test_draws_are_uniform() -> None:
    draws = uniform(mix(3, "draw", np.arange(200_000, dtype=np.int64)))
    assert draws.min() >= 0 and draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert abs(counts - 10_000).max() < 500


@given(st.integers(0, 300), st.integers(0, 5))
def test_a_permutation_holds_every_number_once(count: int, epoch: int) -> None:
    order = permutation(count, 0, "epoch", epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, permutation(count, 0, "epoch", epoch))


def test_epochs_are_in_different_orders() -> None:
    first, second = permutation(100, 0, "epoch", 0), permutation(100, 0, "epoch", 1)
    assert np.count_nonzero(first == second) < 10


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=8), st.data())
def test_ragged_rows_are_found_again(rows: list[list[int]], data: st.DataObject) -> None:
    offsets = offsets_of(np.array([len(row) for row in rows], dtype=np.int64))
    values = np.array([value for row in rows for value in row], dtype=np.int64)
    indices = st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([])
    chosen = data.draw(indices)
    owner, places = ragged_take(offsets, np.array(chosen, dtype=np.int64))
    expected = [(i, value) for i, row in enumerate(chosen) for value in rows[row]]
    assert list(zip(owner.tolist(), values[places].tolist(), strict=True)) == expected
    ranks = [rank for row in chosen for rank in range(len(rows[row]))]
    assert ranks_within(owner).tolist() == ranks
