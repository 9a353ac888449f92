"""A study with an adaptive search: what it may say, and what its plan knows before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.plan.draws import first_draws
from ablate.plan.search import Search
from ablate.plan.study import read_study
from ablate.plan.written import write_study
from tests.plan.conftest import STUDY, Read, plan_of
from trainables.errors import InvalidInput

ADAPTIVE = ("draws_per_cell: 4", "draws_per_cell: 12, search: adaptive")
TUNE = "{log_uniform: [1.0e-6, 1.0e-4]}"


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            (("draws_per_cell: 4", "draws_per_cell: 4, search: adaptiv"),),
            "study.yaml:13: budget.search: should be 'random' or 'adaptive' (got 'adaptiv'); "
            "did you mean 'adaptive'?",
        ),
        (
            (("draws_per_cell: 4", "draws_per_cell: 4, serch: adaptive"),),
            "did you mean 'search'?",
        ),
        (
            (ADAPTIVE, ("draws_per_cell: 12", "draws_per_cell: 1")),
            "budget.search: chooses by earlier draws and needs a budget.draws_per_cell of at least "
            "2 (got 'adaptive'); did you mean 'random'?",
        ),
        (
            (ADAPTIVE, (TUNE, "[1.0e-5, 1.0e-4]")),
            "budget.search: has nothing to search: tune draws nothing at random (got 'adaptive'); "
            "did you mean 'random'?",
        ),
        (
            (ADAPTIVE, (TUNE, f"{TUNE}\n  optim.warmup: [0.0, 0.1]")),
            "study.yaml:12: optim.warmup: is a grid, of which every value is tried; under an "
            "adaptive search write a choice (got [0.0, 0.1]); did you mean '{choice: [0.0, 0.1]}'?",
        ),
        (
            (ADAPTIVE, ("select: {maximize: tiny/dev/mrr_at_10}\n", "")),
            "select.maximize: is missing: tune needs a metric",
        ),
        (
            (("{draws_per_cell: 4}", "{search: adaptive}"),),
            "budget.draws_per_cell: is missing: optim.lr is drawn at random; say how often",
        ),
    ],
)
def test_mistakes_are_named(
    read: Read, replaced: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(*replaced)
    found = [str(problem) for problem in caught.value.problems]
    assert any(message in problem for problem in found), found


def test_choices_that_only_a_search_would_join_are_checked(read: Read) -> None:
    """Every pair of choices is built beforehand: a later draw may have any of them."""
    tune = "optim.steps: {choice: [20, null]}\n  optim.epochs: {choice: [1.0, null]}"
    replaced = (
        ("  optim.steps: 20\n", "  optim.lr: 1.0e-5\n"),
        (f"optim.lr: {TUNE}", tune),
        ("draws_per_cell: 4", "draws_per_cell: 2, search: adaptive"),
    )
    with pytest.raises(InvalidInput, match="optim"):
        read(*replaced)


def test_a_fixed_value_ends_the_search(read: Read) -> None:
    study = read(ADAPTIVE, sets={"optim.lr": "1.0e-5"})
    assert (study.adaptive, study.budget.draws_per_cell) == (False, None)
    with pytest.raises(InvalidInput, match="nothing to search"):
        read(sets={"optim.lr": "1.0e-5", "budget.search": "adaptive"})


def test_it_is_written_and_read_back(read: Read, tiny: Path) -> None:
    study = read(ADAPTIVE)
    assert read_study(write_study(study), "study") == study
    assert read(sets={"budget.search": "adaptive"}).adaptive


def test_random_search_is_the_default_and_as_it_was(read: Read) -> None:
    plain, said = plan_of(read()), plan_of(read(("4}", "4, search: random}")))
    assert list(plain.choose()) == list(said.choose())
    assert plain.resumed(pytest.fail) is plain
    assert "to_come" not in plain.to_json() and plain.to_come == 0
    assert plain.shared_draws == len(plain.draws) == 4


@pytest.mark.parametrize(
    ("draws", "first"), [(2, 1), (3, 1), (4, 2), (8, 4), (12, 4), (16, 6), (48, 16)]
)
def test_a_search_begins_with_a_third_of_its_draws(draws: int, first: int) -> None:
    assert first_draws(draws) == first


def test_a_plan_counts_what_is_to_come_and_names_what_is_known(read: Read) -> None:
    plan, plain = plan_of(read(ADAPTIVE)), plan_of(read())
    assert (plan.trial_count, plan.to_come, plan.shared_draws) == (4 * 12 + 4 * 2, 32, 4)
    assert [t.trial_id for t in plan.choose()] == [t.trial_id for t in plain.choose()]
    content = json.loads(json.dumps(plan.to_json()))
    assert (content["trial_count"], content["to_come"]) == (56, 32)
    assert (len(content["draws"]), len(content["trials"])) == (4, 16)

    cell = plan.cells[1]
    begun = Search(4, 1, ({"optim.lr": 2e-5}, {"optim.lr": 3e-5}))
    kept = {plan.search_id(cell): json.loads(json.dumps(begun.to_json(cell.name, ["a", "b"])))}
    later = plan.resumed(kept.get)
    assert later.searches == {cell.name: begun}
    assert (later.to_come, later.trial_count) == (30, 56)
    chosen = [t for t in later.choose() if t.cell == cell.name]
    assert [t.draw for t in chosen] == [0, 1, 2, 3, 4, 5]
    assert [t.flat["optim.lr"] for t in chosen[4:]] == [2e-5, 3e-5]
    repeated = list(later.repeat({cell.name: 5}))
    assert [t.flat["optim.lr"] for t in repeated] == [3e-5] * 3
    with pytest.raises(InvalidInput, match="index of one of the 6 draws"):
        later.repeat({cell.name: 6})
    assert later.possible({cell.name: 6, plan.cells[0].name: 4}) == {}


def test_a_search_is_known_by_all_that_its_draws_follow_from(read: Read) -> None:
    plan = plan_of(read(ADAPTIVE))
    ids = [plan.search_id(cell) for cell in plan.cells]
    assert len(set(ids)) == 4
    assert ids == [
        plan_of(read(ADAPTIVE, ("draws_per_cell: 12", "draws_per_cell: 20"))).search_id(cell)
        for cell in plan.cells
    ]
    for other in (
        ("steps: 20", "steps: 21"),
        ("1.0e-4", "2.0e-4"),
        ("adaptive", "adaptive, seed: 1"),
        ("mrr_at_10", "mrr_at_5"),
        ("seed: [0, 1, 2]", "seed: [1, 2]"),
    ):
        changed = plan_of(read(ADAPTIVE, other))
        assert not {changed.search_id(cell) for cell in changed.cells} & set(ids)


def test_the_plan_says_what_is_chosen_while_running(tiny: Path) -> None:
    old, new = ADAPTIVE
    (tiny / "search.yaml").write_text(STUDY.replace(old, new), encoding="utf-8")
    found = CliRunner().invoke(app, ["plan", "search.yaml", "--json"])
    assert found.exit_code == 0, found.output
    content = json.loads(found.output)
    assert (content["to_come"], content["estimate"]["trials"]) == (32, 56)
