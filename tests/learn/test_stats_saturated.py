"""A metric that is at its end in some cells, such as a recall of 1.0, still has its table."""

from __future__ import annotations

import numpy as np

from ablate.learn.stats import cell_summaries, compare


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
