"""A metric that is at its end in some cells, such as a recall of 1.0, still has its table."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.learn.stats import cell_summaries, compare
from ablate.learn.stats.cells import reduce


def test_a_saturated_cell_neither_breaks_nor_narrows_the_others() -> None:
    rng = np.random.default_rng(0)
    others = {name: rng.random((2, 60)) for name in ("a", "b")}
    with_full = {**others, "full": np.ones((2, 60)), "full too": np.ones((2, 60))}
    found = cell_summaries(with_full)
    assert found["full"].mean == 1.0
    alone = cell_summaries(others)
    for name in others:
        width, before = found[name].high - found[name].low, alone[name].high - alone[name].low
        assert width > 0.8 * before
    assert all(np.isfinite(row.p) for row in compare(with_full, [("a", "b"), ("a", "full")]))


def test_cells_that_are_all_saturated_do_not_differ() -> None:
    full = {name: np.ones((3, 20)) for name in ("a", "b")}
    (row,) = compare(full, [("a", "b")])
    assert row.effect == 0.0 and not row.different
    assert cell_summaries(full)["a"].low == 1.0


@pytest.mark.parametrize("seeds", [2, 3, 5, 6, 7])
def test_seeds_with_the_same_scores_do_not_speak_for_the_others(seeds: int) -> None:
    """Their mean may differ from them in the last bit, which is no variance of theirs."""
    rng = np.random.default_rng(1)
    ranks = 1 / rng.integers(1, 11, 200)
    same = np.tile(ranks, (seeds, 1))
    cells = reduce({"same": same})
    assert (cells.seed_variance[0], cells.interaction[0]) == (0.0, 0.0)
    others = {
        name: ranks + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.1, (3, 200)) for name in "ab"
    }
    (alone,) = compare(others, [("a", "b")])
    (beside,) = compare({**others, "same": same}, [("a", "b")])
    assert beside.high - beside.low > 0.8 * (alone.high - alone.low)
