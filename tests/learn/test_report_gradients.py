"""Where the gradient goes: what the trials logged, beside theory, and the check between them."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import pytest

from ablate.learn.report import gradients as section
from ablate.learn.report.document import Table, Text
from ablate.learn.report.figures import Figure
from ablate.learn.results import Results, collect
from ablate.plan.planner import PlannedTrial
from ablate.run.ledger import Ledger
from tests.learn import fake

TEMPERATURES = fake.STUDY.replace("[0.02, 0.1]", "[0.02, 0.05, 0.1]")


def study(root: Path, text: str = TEMPERATURES) -> Results:
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger)
    return collect(plan, ledger)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return study(tmp_path_factory.mktemp("runs"))


def words(results: Results) -> str:
    return " ".join(
        block.words for block in section.gradients(results).blocks if isinstance(block, Text)
    )


def test_every_metric_is_one_that_trials_log() -> None:
    from trainables.model.diagnostics import METRICS

    keys = {f"grad/{name}_{rank}" for name in ("pull", "predicted") for rank in section.RANKS}
    keys |= {
        section.GAP,
        *(o.pull for o in section.ORIGINS),
        *(o.positives for o in section.ORIGINS),
    }
    assert keys <= set(METRICS)


def test_groups_hold_the_trials_of_a_loss_at_a_temperature(results: Results) -> None:
    found = section.groups(results)
    assert len(found) == 5 * 3
    for group in found:
        own = [
            trial.metrics["grad/pull_machine"]
            for trial in results.trials
            if trial.planned.flat["loss.name"] == group.loss
            and trial.planned.flat["loss.temperature"] == group.temperature
        ]
        assert len(own) == 3
        assert group.mean("grad/pull_machine") == pytest.approx(fmean(own))
        assert group.ends("grad/pull_machine") == (min(own), max(own))
        assert (group.gap is None) == (group.loss in {"single_lh", "rand1_lh"})
    for loss in dict.fromkeys(group.loss for group in found):
        own_temperatures = [group.temperature for group in found if group.loss == loss]
        assert own_temperatures == [0.02, 0.05, 0.1]


def test_the_figure_draws_practice_beside_theory(results: Results) -> None:
    several = [group for group in section.groups(results) if group.gap is not None]
    figure = section.by_rank(several)
    for drawing in (figure.wide, figure.narrow):
        root = ElementTree.fromstring(drawing)
        kinds = [node.get("class") for node in root.iter()]
        assert kinds.count("bar") == kinds.count("expected") == 3 * 3 * 5
    for group in several:
        assert f"theory {group.mean('grad/predicted_rank_1'):.3f}" in figure.wide


def test_theory_is_followed_or_its_breach_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "**Practice follows theory** in all 27 trials" in words(study(tmp_path / "a"))
    honest = fake.shares

    def off(trial: PlannedTrial) -> dict[str, float]:
        found = honest(trial)
        if trial.flat["loss.name"] == "lse_pair" and trial.flat["loss.temperature"] == 0.02:
            found["grad/prediction_gap"] = 0.2
        return found

    monkeypatch.setattr(fake, "shares", off)
    said = words(study(tmp_path / "b"))
    assert "**Practice leaves theory** for `lse_pair` at 0.02" in said
    assert "follows theory" not in said


def test_sources_are_told_beside_an_even_split(results: Results) -> None:
    blocks = section.gradients(results).blocks
    assert {block.name for block in blocks if isinstance(block, Figure)} == {
        "gradients", "pull-machine",
    }  # fmt: skip
    (table,) = (b for b in blocks if isinstance(b, Table) and b.caption.startswith("The machine"))
    assert len(table.rows) == len(results.cells)
    for cell, row in zip(results.cells, table.rows, strict=True):
        pull = fmean(trial.metrics["grad/pull_machine"] for trial in cell.counted)
        assert row[1].sort == pytest.approx(pull)
        assert row[3].sort == pytest.approx(pull / 0.5)


def test_a_parameter_of_a_loss_parts_its_groups(tmp_path: Path) -> None:
    text = fake.STUDY.replace(
        "loss.name: [single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]",
        "loss.name: [sum_marg_lh, lse_pair]\n  loss.params.positives: [all, min]",
    )
    losses = {group.loss for group in section.groups(study(tmp_path, text))}
    assert losses == {"sum_marg_lh", "lse_pair positives=all", "lse_pair positives=min"}


def test_without_shares_there_is_no_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "shares", lambda trial: {})
    assert section.gradients(study(tmp_path)).blocks == ()


@pytest.mark.parametrize("count", [1, 6, 7, 40])
def test_many_temperatures_keep_both_ends(count: int) -> None:
    groups = [section.Group("lse_pair", float(place), ()) for place in range(count)]
    kept = section.spread(groups, 6)
    assert len(kept) == min(count, 6)
    assert (kept[0], kept[-1]) == (groups[0], groups[-1])
