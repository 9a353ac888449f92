"""Factors in the report: importance, interactions and the winner at each level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ablate.learn.report.document import Section, Table, Text
from ablate.learn.report.factors import design_of, factor_levels, factors, interactions
from ablate.learn.report.figures import Figure
from ablate.learn.report.lines import LinePlot, Point, Series, line_plot
from ablate.learn.results import Results, collect
from ablate.learn.stats import Effect, compare, importance, profiles
from ablate.plan.planner import PlannedTrial
from ablate.run.ledger import Ledger
from tests.learn import fake

CROSSED = {
    ("lse_pair", 0.02): 0.15, ("lse_pair", 0.1): -0.15,
    ("joint_lh", 0.02): -0.15, ("joint_lh", 0.1): 0.15,
}  # fmt: skip


def results_of(root: Path, text: str = fake.STUDY, **options: object) -> Results:
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger, **options)  # type: ignore[arg-type]
    return collect(plan, ledger)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def crossed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """LSEPair wins at the low temperature, JointLH at the high one."""
    honest = fake.quality

    def quality(trial: PlannedTrial) -> float:
        place = (str(trial.flat["loss.name"]), trial.flat["loss.temperature"])
        return honest(trial) + CROSSED.get(place, 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(fake, "quality", quality)
    return results_of(tmp_path)


def words(section: Section) -> str:
    return " ".join(block.words for block in section.blocks if isinstance(block, Text))


def test_a_change_of_winner_is_told_with_both_winners(crossed: Results) -> None:
    said = words(interactions(crossed))
    assert "**The winner changes**: joint_lh and lse_pair each beat every other one." in said
    tables = [b for b in interactions(crossed).blocks if isinstance(b, Table)]
    best = {row[0].shown: row[1].shown for row in tables[0].rows}
    assert best == {"0.02": "lse_pair", "0.1": "joint_lh"}
    surest = tables[1].rows[0]
    assert surest[-1].shown == "yes"


def test_without_an_interaction_none_is_claimed(results: Results) -> None:
    said = words(interactions(results))
    assert "No difference is shown to depend on `loss.temperature`" in said
    assert "winner changes" not in said


def test_the_plot_holds_every_loss_at_every_temperature(results: Results) -> None:
    (figure,) = (b for b in interactions(results).blocks if isinstance(b, Figure))
    for drawing in (figure.wide, figure.narrow):
        titles = [n.text or "" for n in ElementTree.fromstring(drawing).iter()]
        assert sum(": " in title and "[" in title for title in titles) >= 5 * 2


def test_profiles_are_means_against_the_mean_of_the_rows(results: Results) -> None:
    found = profiles(results.grid, design_of(results), "loss.name", "loss.temperature")
    assert len(found) == 10
    for column in (0.02, 0.1):
        own = [row for row in found if row.column == column]
        assert sum(row.effect for row in own) == pytest.approx(0.0, abs=1e-12)
        middle = sum(row.mean for row in own) / 5
        for row in own:
            assert row.effect == pytest.approx(row.mean - middle)
            assert row.low < row.effect < row.high
    name = {(c.values["loss.name"], c.values["loss.temperature"]): c for c in results.cells}
    pair = [name[loss, 0.1] for loss in ("lse_pair", "joint_lh")]
    (direct,) = compare(results.grid, [(pair[0].name, pair[1].name)])
    effects = {(row.row, row.column): row.effect for row in found}
    assert direct.effect == pytest.approx(effects["lse_pair", 0.1] - effects["joint_lh", 0.1])


def test_importance_is_drawn_for_a_full_grid_and_refused_for_another(
    results: Results, tmp_path: Path
) -> None:
    section = factors(results)
    assert "Shown to be more than noise: `loss.name`" in words(section)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert sum(row[1].sort or 0.0 for row in table.rows) == pytest.approx(1.0)
    holes = factors(results_of(tmp_path, only=lambda trial: not trial.cell.startswith("10")))
    assert holes.blocks == ()
    assert "lacks 1 of 10 combinations" in holes.left_out


def test_a_grid_without_variance_has_no_importance(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flat(*given: Any) -> list[Effect]:
        return [replace(one, share=0.0, sd=0.0) for one in importance(*given)]

    monkeypatch.setattr("ablate.learn.report.factors.importance", flat)
    section = factors(results)
    assert section.blocks == () and section.left_out == "every trial scores the same"


def test_named_options_are_levels(tmp_path: Path) -> None:
    named = (
        "loss.name: [single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]",
        "objective:\n    hard: {loss.name: lse_pair, loss.params.positives: min}\n"
        "    soft: {loss.name: lse_pair, loss.params.positives: all}\n"
        "    joint: {loss.name: joint_lh}",
    )
    found = results_of(tmp_path, fake.STUDY.replace(*named))
    assert factor_levels(found) == {
        "objective": ("hard", "soft", "joint"), "loss.temperature": (0.02, 0.1),
    }  # fmt: skip
    assert "`objective` by `loss.temperature`" in words(interactions(found))


def test_one_factor_has_no_interaction(tmp_path: Path) -> None:
    found = results_of(tmp_path, fake.STUDY.replace("[0.02, 0.1]", "[0.02]"))
    assert interactions(found).left_out == "fewer than two factors were compared"
    assert factors(found).blocks


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_line_plot_names_its_series(count: int) -> None:
    series = tuple(
        Series(f"series {place}", (Point(0, place, place - 1, place + 1), Point(1, 2, 2, 2)))
        for place in range(count)
    )
    figure = line_plot("x", "caption", "label", LinePlot(series, "across", "up"))
    for drawing in (figure.wide, figure.narrow):
        texts = [node.text for node in ElementTree.fromstring(drawing).iter()]
        assert all(any(f"series {place}" == text for text in texts) for place in range(count)) == (
            count > 1
        )
