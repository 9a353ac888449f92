"""Statistics: agreement with textbook tests where they apply, and the laws of the tables."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as textbook

from ablate.learn.stats import (
    cell_summaries,
    cell_summary,
    compare,
    equivalent,
    mean_of_sets,
    seed_noise_floor,
    sign_flip,
    variance_components,
)
from ablate.learn.stats import seeds as seeds_module
from ablate.learn.stats.cells import reduce
from ablate.learn.stats.errors import mixture_reach
from ablate.learn.stats.family import holm
from trainables.errors import InvalidInput

Floats = NDArray[np.float64]


def study(
    seeds: tuple[int, ...],
    queries: int = 300,
    seed: float = 0.005,
    interaction: float = 0.1,
    taste: float = 0.05,
    gains: tuple[float, ...] = (),
    key: int = 0,
) -> dict[str, Floats]:
    """Cells "c0", "c1", ... with the model's four parts, all normal."""
    rng = np.random.default_rng(key)
    base = rng.normal(0.4, 0.3, queries)
    scores = {}
    for index, count in enumerate(seeds):
        own = base + rng.normal(0, taste, queries) + (gains[index] if gains else 0.0)
        shift = rng.normal(0, seed, (count, 1))
        scores[f"c{index}"] = own + shift + rng.normal(0, interaction, (count, queries))
    return scores


def pairs_of(scores: dict[str, Floats]) -> list[tuple[str, str]]:
    return list(combinations(scores, 2))


def test_one_seed_is_the_paired_t_test_and_is_flagged() -> None:
    scores = study((1, 1), gains=(0.02, 0.0))
    row = compare(scores, [("c0", "c1")])[0]
    expected = textbook.ttest_rel(scores["c0"][0], scores["c1"][0])
    interval = expected.confidence_interval()
    assert row.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert row.scope == "checkpoints"
    assert row.p_adjusted == row.p


def test_identical_seeds_are_the_paired_t_test() -> None:
    single = study((1, 1), gains=(0.02, 0.0))
    scores = {name: np.repeat(array, 3, axis=0) for name, array in single.items()}
    row = compare(scores, [("c0", "c1")])[0]
    expected = textbook.ttest_rel(single["c0"][0], single["c1"][0])
    assert row.p == pytest.approx(expected.pvalue, rel=1e-5)
    assert row.scope == "method"


def test_without_query_variance_it_is_the_t_test_on_seed_means() -> None:
    rng = np.random.default_rng(3)
    for seeds in (5, 10):
        means = rng.normal([[0.41], [0.40]], 0.01, (2, seeds))
        scores = {name: row[:, None] + np.zeros(40) for name, row in zip("ab", means, strict=True)}
        row = compare(scores, [("a", "b")])[0]
        pooled = textbook.ttest_ind(*means).pvalue
        welch = textbook.ttest_ind(*means, equal_var=False).pvalue
        assert 0.97 * pooled < row.p < 1.15 * welch
        assert row.seed_share == pytest.approx(1.0, abs=1e-9)


def test_cells_that_seeds_show_to_differ_in_noise_have_welchs_test() -> None:
    rng = np.random.default_rng(5)
    for _ in range(4):
        means = rng.normal([[0.415], [0.40]], [[0.002], [0.02]], (2, 12))
        scores = {name: row[:, None] + np.zeros(40) for name, row in zip("ab", means, strict=True)}
        (row,) = compare(scores, [("a", "b")])
        welch = textbook.ttest_ind(*means, equal_var=False)
        interval = welch.confidence_interval()
        assert row.p == pytest.approx(welch.pvalue, rel=0.15, abs=0.003)
        assert row.high - row.low == pytest.approx(interval.high - interval.low, rel=0.1)


def test_no_error_is_smaller_than_the_queries_alone_make_it() -> None:
    ratios = []
    for key in range(20):
        scores = study((2, 2), queries=200, seed=0.0, key=key)
        (row,) = compare(scores, [("c0", "c1")])
        interval = textbook.ttest_rel(
            scores["c0"].mean(axis=0), scores["c1"].mean(axis=0)
        ).confidence_interval()
        ratios.append((row.high - row.low) / (interval.high - interval.low))
    assert min(ratios) > 0.99
    assert np.median(ratios) < 2, "or where seeds do not matter nothing would be found"


def test_a_balanced_mixed_model_gives_the_same_error_where_freedom_is_plenty() -> None:
    statsmodels = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    queries, seeds = 60, 20
    scores = study((seeds, seeds), queries, seed=0.03, interaction=0.1, taste=0.0, key=4)
    low = compare(scores, [("c0", "c1")])[0].low
    stacked = np.concatenate([scores["c0"], scores["c1"]])
    cell = np.repeat([1.0, 0.0], seeds)
    centred = stacked - stacked.mean(axis=0)
    y = centred.ravel()
    x = np.column_stack([np.ones(y.size), np.repeat(cell, queries)])
    groups = np.repeat(np.arange(2 * seeds), queries)
    fitted = statsmodels.MixedLM(y, x, groups).fit()
    effect, error = fitted.params[1], fitted.bse[1]
    assert compare(scores, [("c0", "c1")])[0].effect == pytest.approx(effect, abs=1e-9)
    assert effect - low == pytest.approx(2.02 * error, rel=0.06)


def test_more_seeds_narrow_the_interval_until_queries_rule() -> None:
    widths = []
    for seeds in (2, 5, 20, 80):
        rows = [compare(study((seeds,) * 4, key=key), [("c0", "c1")])[0] for key in range(6)]
        widths.append(np.mean([row.high - row.low for row in rows]))
    assert widths[0] > widths[1] > widths[2] > widths[3]
    by_query = 2 * 1.96 * 0.05 * np.sqrt(2 / 300)
    assert widths[3] == pytest.approx(by_query, rel=0.15)


def test_cells_lend_each_other_their_seed_variance() -> None:
    together, alone = [], []
    for key in range(12):
        scores = study((2,) * 8, queries=500, taste=0.0, key=key)
        few = {name: scores[name] for name in ("c0", "c1")}
        for found, cells in ((together, scores), (alone, few)):
            row = compare(cells, [("c0", "c1")])[0]
            found.append(row.high - row.low)
    assert np.mean(together) < 0.7 * np.mean(alone)


def test_a_noisy_cell_keeps_its_own_variance_when_seeds_show_it() -> None:
    scores = study((8,) * 6, queries=3000, taste=0.0, key=1)
    rng = np.random.default_rng(0)
    scores["noisy"] = scores["c0"] + rng.normal(0, 0.05, (8, 1))
    wide, usual = compare(scores, [("noisy", "c1"), ("c2", "c1")])
    assert wide.high - wide.low > 4 * (usual.high - usual.low)


def test_a_cell_with_one_seed_borrows_and_says_so() -> None:
    scores = study((3, 1, 3, 3), queries=3000)
    borrowed, own = compare(scores, [("c0", "c1"), ("c0", "c2")])
    assert (borrowed.scope, own.scope) == ("borrowed", "method")
    assert borrowed.high - borrowed.low > own.high - own.low


def test_numbers_of_seeds_may_differ() -> None:
    row = compare(study((2, 7, 3)), [("c0", "c1")])[0]
    assert (row.seeds_a, row.seeds_b, row.queries) == (2, 7, 300)


def test_reversing_a_pair_reverses_its_row() -> None:
    scores = study((3, 3), gains=(0.02, 0))
    forth, back = compare(scores, [("c0", "c1")])[0], compare(scores, [("c1", "c0")])[0]
    assert forth.reversed() == back
    assert forth.reversed().reversed() == forth


def test_the_same_seed_gives_the_same_table_and_another_hardly_differs() -> None:
    scores = study((3,) * 4)
    first, again = compare(scores, pairs_of(scores)), compare(scores, pairs_of(scores))
    assert list(first) == list(again)
    other = compare(scores, pairs_of(scores), seed=7)
    assert other["p"] == pytest.approx(first["p"], abs=0.02)
    assert other["high"] == pytest.approx(first["high"], abs=0.002)


def test_adjusted_p_values_are_ordered_and_between_p_and_holm() -> None:
    scores = study((3,) * 6, gains=(0.06, 0.05, 0.02, 0, 0, 0), key=5)
    table = compare(scores, pairs_of(scores))
    p, adjusted = table["p"], table["p_adjusted"]
    assert (adjusted >= p).all()
    assert (adjusted <= holm(p) + 1e-12).all()
    assert (adjusted < holm(p) - 1e-3).any(), "correlated pairs should gain over Holm"
    assert (table["different"] == (adjusted <= 0.05)).all()
    assert table["different"].any()
    assert not table["different"].all()
    assert (table["low_family"] <= table["low"]).all()


def test_an_interval_excludes_zero_exactly_when_p_is_below_alpha() -> None:
    for key in range(30):
        row = compare(study((3, 4), key=key, gains=(0.015, 0)), [("c0", "c1")], alpha=0.1)[0]
        assert (row.p <= 0.1) == (row.low >= 0 or row.high <= 0)


def test_identical_cells_do_not_differ_and_a_sure_shift_does() -> None:
    scores = study((3,))
    twin = {"a": scores["c0"], "b": scores["c0"].copy(), "c": scores["c0"] + 0.3}
    same, shifted = compare(twin, [("a", "b"), ("a", "c")])
    assert same.effect == 0.0
    assert not same.different
    assert shifted.different


def test_a_table_has_rows_and_columns() -> None:
    table = compare(study((3, 3, 3)), [("c0", "c1"), ("c0", "c2")])
    assert table[0].b == "c1"
    assert table.effect.tolist() == [row.effect for row in table]
    frame = table.to_frame()
    assert list(frame.columns) == list(table.columns)
    assert frame["different"].tolist() == table["different"].tolist()
    with pytest.raises(KeyError, match="effects"):
        table["effects"]
    with pytest.raises(AttributeError):
        _ = table.effects
    assert list(pickle.loads(pickle.dumps(table))) == list(table)
    with pytest.raises(FrozenInstanceError):
        table[0].effect = 1.0  # type: ignore[misc]
    assert len(compare(study((3, 3)), [])) == 0


def test_wrong_input_is_listed_together() -> None:
    scores = study((3, 3))
    with pytest.raises(InvalidInput) as wrong:
        compare({**scores, "short": scores["c0"][:, :9]}, [("c0", "c1")])
    assert "300 queries" in str(wrong.value)
    with pytest.raises(InvalidInput) as wrong:
        compare(scores, [("c0", "c7"), ("c1", "c1")])
    assert "c7" in str(wrong.value)
    assert "itself" in str(wrong.value)
    bad = {"a": np.full((2, 5), np.nan), "b": np.zeros((2, 3, 4)), "c": np.zeros((0, 5))}
    with pytest.raises(InvalidInput) as wrong:
        compare(bad, [("a", "b")])
    assert len(wrong.value.problems) == 3
    with pytest.raises(InvalidInput, match="alpha"):
        compare(scores, [("c0", "c1")], alpha=1.5)
    with pytest.raises(InvalidInput, match="at least one"):
        compare({}, [])


def test_equivalence_needs_a_narrow_interval_not_a_large_p() -> None:
    few = study((3, 3), queries=30, key=1)
    many = study((20, 20), queries=3000, key=1)
    assert not compare(few, [("c0", "c1")])[0].different
    assert not equivalent(few, [("c0", "c1")], margin=0.01)[0].equivalent
    row = equivalent(many, [("c0", "c1")], margin=0.01)[0]
    assert row.equivalent
    assert -0.01 < row.low < row.high < 0.01
    assert not equivalent(many, [("c0", "c1")], margin=0.0005)[0].equivalent
    with pytest.raises(InvalidInput, match="margin"):
        equivalent(many, [("c0", "c1")], margin=0)


def test_equivalence_agrees_with_two_one_sided_t_tests() -> None:
    scores = study((1, 1), queries=80)
    difference = scores["c0"][0] - scores["c1"][0]
    above = textbook.ttest_1samp(difference, -0.05, alternative="greater").pvalue
    below = textbook.ttest_1samp(difference, 0.05, alternative="less").pvalue
    row = equivalent(scores, [("c0", "c1")], margin=0.05)[0]
    assert row.p == pytest.approx(max(above, below), rel=1e-9)


def test_a_summary_of_one_seed_is_students_interval() -> None:
    scores = study((1,), queries=40)["c0"]
    summary = cell_summary(scores)
    interval = textbook.ttest_1samp(scores[0], 0).confidence_interval()
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert summary.sd is None
    assert cell_summary(scores[0]) == summary


def test_a_summary_of_seeds_alone_is_students_interval_over_seeds() -> None:
    for seeds in (2, 3, 6):
        means = np.random.default_rng(seeds).normal(0.4, 0.01, seeds)
        scores = means[:, None] + np.zeros(50)
        interval = textbook.ttest_1samp(means, 0).confidence_interval()
        for summary in (cell_summary(scores), cell_summaries({"only": scores})["only"]):
            assert summary.sd == pytest.approx(means.std(ddof=1))
            assert summary.high - summary.low == pytest.approx(
                interval.high - interval.low, rel=0.04
            )


def test_summaries_of_a_family_are_narrower_than_each_alone() -> None:
    scores = study((2,) * 10, queries=3000, taste=0.0)
    family = cell_summaries(scores)
    assert list(family) == list(scores)
    alone = {name: cell_summary(array) for name, array in scores.items()}
    narrower = [family[c].high - family[c].low < alone[c].high - alone[c].low for c in scores]
    assert sum(narrower) > 6
    assert all(family[c].mean == alone[c].mean for c in scores)


def test_variance_components_recover_the_truth() -> None:
    scores = study((20,) * 6, queries=4000, seed=0.02, interaction=0.12, taste=0.07, key=8)
    found = variance_components(scores)
    assert found.seed == pytest.approx(0.02**2, rel=0.3)
    assert found.interaction == pytest.approx(0.12**2, rel=0.02)
    assert found.difference == pytest.approx(2 * 0.07**2, rel=0.05)
    assert found.query == pytest.approx(0.3**2 + 0.07**2, rel=0.05)
    assert found.freedom == 6 * 19


def test_the_seed_noise_floor_holds_for_equal_cells() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for key in range(200):
        scores = study((4,) * 4, queries=60, seed=0.03, interaction=0.1, taste=0.0, key=key)
        floor = seed_noise_floor(scores)
        assert floor is not None
        base, noise = rng.normal(0.4, 0.3, 60), rng.normal(0, 0.1, (2, 60))
        trials = base + rng.normal(0, 0.03, (2, 1)) + noise
        inside.append(abs(trials[0].mean() - trials[1].mean()) < floor.trials)
    assert 0.91 < np.mean(inside) < 0.99
    assert seed_noise_floor(study((1, 1))) is None


def test_sets_weigh_the_same_whatever_their_size() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0.2, 0.1, (3, 20)), rng.normal(0.8, 0.1, (3, 200))]
    joined = mean_of_sets(parts)
    by_seed = np.mean([part.mean(axis=1) for part in parts], axis=0)
    assert joined.mean(axis=1) == pytest.approx(by_seed)
    error = np.sqrt(sum(part.mean(axis=0).var(ddof=1) / part.shape[1] for part in parts)) / 2
    cells = reduce({"joined": joined})
    assert cells.sets == (20, 200)
    weighed = cells.centred()[0] ** 2 @ cells.query_weights
    assert np.sqrt(weighed) == pytest.approx(error)
    assert mean_of_sets([joined, parts[0]]).sets == (20, 200, 20)
    with pytest.raises(InvalidInput, match="same seeds"):
        mean_of_sets([np.zeros((2, 5)), np.zeros((3, 5))])


def test_a_small_set_beside_a_large_one_is_tested_with_its_own_freedom() -> None:
    """Welch's test: half of the difference of either set's mean, with its own error."""
    rng = np.random.default_rng(3)
    small, large = rng.normal(0.02, 0.2, 12), rng.normal(0.0, 0.2, 900)
    scores = {
        "a": mean_of_sets([small[None], large[None]]),
        "b": mean_of_sets([np.zeros((1, 12)), np.zeros((1, 900))]),
    }
    (row,) = compare(scores, [("a", "b")])
    own = np.array([part.var(ddof=1) / len(part) for part in (small, large)])
    freedom = own.sum() ** 2 / (own**2 / np.array([11, 899])).sum()
    error = np.sqrt(own.sum()) / 2
    effect = (small.mean() + large.mean()) / 2
    assert row.p == pytest.approx(2 * textbook.t.sf(abs(effect) / error, freedom), rel=1e-6)
    assert freedom < 15
    with pytest.raises(InvalidInput, match="same sets"):
        reduce({"a": scores["a"], "b": np.zeros((1, 912))})


def test_sign_flips_agree_with_scipy_and_correct_together() -> None:
    scores = study((1, 1, 1, 1), queries=80, gains=(0.03, 0.0, 0.0, 0.0), interaction=0.05)
    table = sign_flip(scores, pairs_of(scores))
    difference = scores["c0"][0] - scores["c1"][0]
    expected = textbook.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=1
    )
    assert table[0].p == pytest.approx(expected.pvalue, abs=0.01)
    assert (table["p_adjusted"] >= table["p"]).all()
    assert (table["p_adjusted"] <= holm(table["p"]) + 1e-12).all()
    with pytest.raises(InvalidInput, match="draws"):
        sign_flip(scores, pairs_of(scores), draws=5)


def test_the_reach_of_a_mixture_has_the_stated_tail() -> None:
    rng = np.random.default_rng(0)
    sds = np.exp(rng.normal(0, 2, (500, 7)))
    weights = rng.dirichlet(np.ones(500))
    for level in (0.3, 0.05, 1e-4):
        reach = mixture_reach(sds, weights, level)
        tail = 2 * weights @ textbook.norm.sf(reach / sds)
        assert tail == pytest.approx(np.full(7, level), rel=1e-5)


def test_holm_is_the_textbook_one() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(20) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_draws_are_placed_as_a_naive_search_places_them() -> None:
    rng = np.random.default_rng(0)
    summed = np.cumsum(rng.random((4, 71, 3)), axis=1)
    points, marks = rng.integers(0, 4, 500), 40 * rng.random((500, 3))
    naive = (summed[points] < marks[:, None]).sum(axis=1)
    assert naive.min() < 3 and naive.max() == 71
    assert (seeds_module._places(summed, points, marks) == naive).all()


def test_a_large_family_learns_from_a_part_what_it_would_from_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    shape = (600, 3, 40)
    raw = rng.normal(0, 0.1, shape) + rng.normal(0, 0.03, (600, 3, 1))
    cells = reduce({f"cell {place}": array for place, array in enumerate(raw)})
    part = seeds_module.draw_seed_variances(cells, 512, np.random.default_rng(1))
    monkeypatch.setattr(seeds_module, "_TEACHERS", 10_000)
    whole = seeds_module.draw_seed_variances(cells, 512, np.random.default_rng(1))
    medians = np.median(part, axis=0) / np.median(whole, axis=0)
    assert np.abs(np.log(medians)).mean() < 0.15
