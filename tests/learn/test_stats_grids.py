"""Statistics over grids, curves, slices and selection: known truths are recovered."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.learn.stats import (
    Variances,
    break_even,
    compare,
    importance,
    interaction,
    pareto,
    power_of,
    queries_needed,
    seeds_needed,
    slices,
    smallest_effect,
    variance_components,
    winners,
    winners_curse,
)
from ablate.learn.stats.curves import isotonic
from trainables.errors import InvalidInput

Floats = NDArray[np.float64]
LOSSES = ("joint_lh", "lse_pair", "sum_marg_lh")
TEMPERATURES = (0.01, 0.05, 0.2)


def grid(
    means: dict[tuple[str, float], float], seeds: int = 3, queries: int = 400, key: int = 0
) -> tuple[dict[str, Floats], dict[str, dict[str, str | float]]]:
    """Scores and design of a loss x temperature grid with the given cell means."""
    rng = np.random.default_rng(key)
    base = rng.normal(0, 0.3, queries)
    base -= base.mean()
    scores, design = {}, {}
    for index, ((loss, temperature), mean) in enumerate(means.items()):
        name = f"{index:02d} {loss} {temperature}"
        noise = rng.normal(0, 0.05, (seeds, queries)) + rng.normal(0, 0.003, (seeds, 1))
        scores[name] = mean + base + rng.normal(0, 0.03, queries) + noise
        design[name] = {
            "loss.name": loss,
            "loss.temperature": temperature,
            "optim.steps": 100,
        }
    return scores, design


def additive() -> dict[tuple[str, float], float]:
    gains = {"joint_lh": 0.0, "lse_pair": 0.04, "sum_marg_lh": 0.02}
    slopes = {0.01: 0.0, 0.05: 0.03, 0.2: -0.02}
    return {(a, t): 0.4 + gains[a] + slopes[t] for a, t in product(LOSSES, TEMPERATURES)}


def crossing() -> dict[tuple[str, float], float]:
    means = dict.fromkeys(product(LOSSES, TEMPERATURES), 0.4)
    return {**means, ("lse_pair", 0.05): 0.5, ("joint_lh", 0.2): 0.5}


def test_parallel_lines_have_no_interaction_and_crossing_ones_do() -> None:
    scores, design = grid(additive())
    table = interaction(scores, design, "loss.name", "loss.temperature")
    assert len(table) == 9
    assert not table["different"].any()
    scores, design = grid(crossing())
    table = interaction(scores, design, "loss.name", "loss.temperature")
    crossed = [row for row in table if row.crossover]
    assert [(row.row_a, row.row_b) for row in crossed] == [("joint_lh", "lse_pair")]
    row = crossed[0]
    assert (row.column_a, row.column_b) == (0.05, 0.2)
    assert row.different
    assert row.effect == pytest.approx(-0.2, abs=0.03)
    assert row.effect == pytest.approx(row.effect_a - row.effect_b)


def test_an_interaction_is_the_difference_of_two_compared_effects() -> None:
    scores, design = grid(crossing())
    row = interaction(scores, design, "loss.name", "loss.temperature")[0]
    names = {(v["loss.name"], v["loss.temperature"]): name for name, v in design.items()}
    pairs = [
        (names[row.row_a, column], names[row.row_b, column])
        for column in (row.column_a, row.column_b)
    ]
    first, second = compare(scores, pairs)["effect"]
    assert row.effect == pytest.approx(first - second)


def test_the_winner_changes_with_the_temperature() -> None:
    scores, design = grid(crossing())
    table = winners(scores, design, "loss.name", "loss.temperature")
    by_column = {row.column: row for row in table}
    assert by_column[0.05].winner == "lse_pair"
    assert by_column[0.2].winner == "joint_lh"
    assert by_column[0.05].clear and by_column[0.05].chance > 0.99
    assert not by_column[0.01].clear
    assert by_column[0.01].chance < 0.9
    assert by_column[0.05].low > 0


def test_further_factors_are_averaged_over_what_all_corners_share() -> None:
    scores, design = grid(crossing(), key=1)
    doubled, both = dict(scores), dict(design)
    for name, array in scores.items():
        doubled[f"{name} long"] = array + 0.1
        both[f"{name} long"] = {**design[name], "optim.steps": 200}
    lone = "00 joint_lh 0.01 long"
    del doubled[lone], both[lone]
    one = interaction(scores, design, "loss.name", "loss.temperature")
    two = interaction(doubled, both, "loss.name", "loss.temperature")
    assert two["effect"] == pytest.approx(one["effect"])


def test_importance_splits_the_variance_by_factor() -> None:
    means = additive()
    scores, design = grid(means, seeds=5)
    table = importance(scores, design)
    by_factors = {row.factors: row for row in table}
    assert sum(row.share for row in table) == pytest.approx(1.0)
    table_of_means = np.array([means[a, t] for a, t in product(LOSSES, TEMPERATURES)]).reshape(3, 3)
    expected = table_of_means.mean(axis=1).std()
    assert by_factors[("loss.name",)].sd == pytest.approx(expected, rel=0.25)
    assert by_factors[("loss.name",)].p_adjusted < 0.01
    assert by_factors[("loss.temperature",)].p_adjusted < 0.01
    both = by_factors[("loss.name", "loss.temperature")]
    assert both.p > 0.05
    assert both.share < 0.1
    assert by_factors[()].sd == pytest.approx(0.003, abs=0.003)


def test_importance_of_a_crossing_grid_is_mostly_interaction() -> None:
    scores, design = grid(crossing(), seeds=5)
    first = importance(scores, design)[0]
    assert first.factors == ("loss.name", "loss.temperature")
    assert first.p_adjusted < 0.01


def test_importance_names_the_combinations_that_are_missing() -> None:
    scores, design = grid(additive())
    del scores["00 joint_lh 0.01"]
    with pytest.raises(InvalidInput, match="joint_lh"):
        importance(scores, design)


def test_designs_are_checked() -> None:
    scores, design = grid(additive())
    with pytest.raises(InvalidInput, match=r"loss\.temperature"):
        interaction(scores, design, "loss.name", "loss.temprature")
    with pytest.raises(InvalidInput, match="00 joint_lh"):
        interaction(scores, {}, "loss.name", "loss.temperature")
    same = {name: {**values, "loss.temperature": 0.05} for name, values in design.items()}
    with pytest.raises(InvalidInput, match="tell every cell"):
        importance(scores, same)
    diagonal = {name: scores[name] for i, name in enumerate(scores) if i in (0, 4, 8)}
    with pytest.raises(InvalidInput, match="four combinations"):
        interaction(diagonal, design, "loss.name", "loss.temperature")
    with pytest.raises(InvalidInput, match="two rows"):
        winners(diagonal, design, "loss.name", "loss.temperature")


def curve(key: int, seeds: int = 4) -> dict[str, Floats]:
    """Cells at 0, 20, 50 and 100 % of the labels; the truth reaches full - 0.01 at 40 %."""
    truth = {"0": 0.30, "20": 0.37, "50": 0.40, "100": 0.40}
    rng = np.random.default_rng(key)
    base = rng.normal(0, 0.3, 400)
    return {
        name: mean + base + rng.normal(0, 0.06, (seeds, 400)) + rng.normal(0, 0.004, (seeds, 1))
        for name, mean in truth.items()
    }


def test_the_break_even_interval_covers_the_truth() -> None:
    costs = {"0": 0.0, "20": 20.0, "50": 50.0, "100": 100.0}
    covered = []
    for key in range(40):
        found = break_even(curve(key), costs, target="100", margin=0.01)
        assert found.low <= found.cost <= found.high
        covered.append(found.low <= 40.0 <= found.high)
    assert np.mean(covered) > 0.85
    assert found.reached == 1.0
    assert found.scope == "method"


def test_a_target_out_of_reach_has_no_break_even() -> None:
    found = break_even(curve(0), {"0": 0.0, "50": 1.0}, target=0.9)
    assert found.cost == np.inf and found.reached == 0.0
    free = break_even(curve(0), {"0": 3.0, "50": 5.0}, target=-0.5)
    assert (free.low, free.cost, free.high) == (3.0, 3.0, 3.0)


def test_costs_are_checked() -> None:
    with pytest.raises(InvalidInput) as wrong:
        break_even(curve(0), {"0": 1.0, "2O": 1.0}, target="10O", margin=-1)
    assert len(wrong.value.problems) == 4
    assert "'100'" in str(wrong.value)


def test_isotonic_agrees_with_scipy() -> None:
    from scipy.optimize import isotonic_regression

    values = np.random.default_rng(0).normal(size=(20, 7))
    expected = [isotonic_regression(row).x for row in values]
    assert isotonic(values) == pytest.approx(np.array(expected))


def test_the_pareto_front_tells_sure_losers_from_unlucky_ones() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.2, (2, 300))

    def cell(first: float, second: float) -> list[Floats]:
        return [
            mean + base[i] + rng.normal(0, 0.05, (3, 300)) for i, mean in enumerate((first, second))
        ]

    cells = {"mrr": cell(0.5, 0.7), "recall": cell(0.4, 0.8), "poor": cell(0.35, 0.6)}
    cells["close"] = cell(0.499, 0.6995)
    first = {name: parts[0] for name, parts in cells.items()}
    second = {name: parts[1] for name, parts in cells.items()}
    by_cell = {row.cell: row for row in pareto(first, second)}
    assert by_cell["mrr"].beaten_by is None
    assert by_cell["recall"].on_front and by_cell["recall"].beaten_by is None
    assert by_cell["poor"].beaten_by is not None and not by_cell["poor"].on_front
    assert by_cell["close"].beaten_by is None
    with pytest.raises(InvalidInput, match="same cells"):
        pareto(first, {"mrr": first["mrr"]})


def test_a_slice_shows_the_loss_that_the_mean_hides() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array(["lexical"] * 200 + ["semantic"] * 100 + ["rare"] * 3)
    gain = np.where(kinds == "lexical", 0.1, np.where(kinds == "semantic", -0.08, 0.0))
    base = rng.normal(0.4, 0.2, 303)
    scores = {
        "new": base + gain + rng.normal(0, 0.05, (3, 303)),
        "old": base + rng.normal(0, 0.05, (3, 303)),
    }
    assert compare(scores, [("new", "old")])[0].effect > 0
    by_slice = {row.slice: row for row in slices(scores, [("new", "old")], kinds)}
    assert by_slice["lexical"].different and not by_slice["lexical"].hidden_loss
    assert by_slice["semantic"].different and by_slice["semantic"].hidden_loss
    assert by_slice["rare"].p == 1.0 and by_slice["rare"].high == np.inf
    assert by_slice["rare"].queries == 3
    with pytest.raises(InvalidInput, match="303 queries"):
        slices(scores, [("new", "old")], kinds[:5])


def test_the_winners_curse_is_foreseen() -> None:
    gaps, foreseen = [], []
    for key in range(80):
        rng = np.random.default_rng(key)
        dev = {f"draw {i}": rng.normal(0.4, 0.3, (1, 100)) for i in range(16)}
        found = winners_curse(dev, rng.normal(0.4, 0.3, (1, 100)))
        gaps.append(found.gap)
        foreseen.append(found.optimism)
        assert found.chosen == max(dev, key=lambda name: dev[name].mean())
    assert np.mean(gaps) > 0.03, "choosing among equals must look like a gain"
    assert np.mean(foreseen) == pytest.approx(np.mean(gaps), rel=0.4)
    unopened = winners_curse(dev)
    assert unopened.test is None and unopened.gap is None


def test_power_planning_agrees_with_simulation() -> None:
    parts = Variances(seed=0.006**2, interaction=0.1**2, difference=0.06**2, query=0.09, freedom=0)
    effect = smallest_effect(parts, seeds=6, queries=300, cells=4)
    assert power_of(effect, parts, 6, 300, cells=4) == pytest.approx(0.8, abs=1e-6)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(120):
        base = rng.normal(0.4, 0.3, 300)
        scores = {
            f"c{i}": base
            + effect * (i == 0)
            + rng.normal(0, 0.06 / np.sqrt(2), 300)
            + rng.normal(0, 0.006, (6, 1))
            + rng.normal(0, 0.1, (6, 300))
            for i in range(4)
        }
        seen.append(compare(scores, [("c0", "c1")])[0].different)
    assert np.mean(seen) == pytest.approx(0.8, abs=0.12)


def test_what_is_needed_is_the_least_that_is_enough() -> None:
    parts = Variances(seed=0.005**2, interaction=0.1**2, difference=0.06**2, query=0.1, freedom=9)
    seeds = seeds_needed(0.015, parts, queries=300, cells=4, pairs=6)
    assert seeds is not None
    assert power_of(0.015, parts, seeds, 300, 4, 6) >= 0.8
    assert power_of(0.015, parts, seeds - 1, 300, 4, 6) < 0.8
    queries = queries_needed(0.015, parts, seeds=4, cells=4, pairs=6)
    assert queries is not None
    assert power_of(0.015, parts, 4, queries, 4, 6) >= 0.8
    assert power_of(0.015, parts, 4, queries - 1, 4, 6) < 0.8
    assert seeds_needed(0.001, parts, queries=300) is None, "queries rule here"
    assert queries_needed(0.001, parts, seeds=3) is None, "seeds rule here"
    assert smallest_effect(parts, seeds=1, queries=300) == np.inf
    assert power_of(1.0, parts, seeds=1, queries=300) == 0.0
    # However large the effect, where scipy's distribution has no number any more.
    found = [power_of(effect, parts, 5, 300, 4, 6) for effect in np.linspace(0.05, 3.0, 400)]
    assert np.isfinite(found).all() and (np.diff(found) >= -1e-9).all() and found[-1] == 1.0
    with pytest.raises(InvalidInput, match="power"):
        smallest_effect(parts, 3, 300, power=2)


def test_planning_starts_from_the_components_of_a_study() -> None:
    scores, _ = grid(additive())
    parts = variance_components(scores)
    assert 0.001 < smallest_effect(parts, 3, 400, cells=9, pairs=36) < 0.05
