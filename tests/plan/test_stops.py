"""Rules that stop trials, against plain restatements; who is compared; how studies say it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.plan.contest import Board, Contest, comparisons, contest
from ablate.plan.stops import Asha, Look, Median, Sequential, upper_bound
from ablate.plan.written import write_study
from tests.plan.conftest import STUDY, Read, plan_of
from trainables.errors import InvalidInput

WATCH = "watch: {split: tiny/dev, every: 2}\n"
EVERY, TOTAL = 5, 40
STEPS = range(EVERY, TOTAL + 1, EVERY)

curves = st.lists(
    st.lists(st.integers(0, 6).map(lambda n: n / 8), min_size=len(STEPS), max_size=len(STEPS)),
    min_size=1,
    max_size=7,
)
"""Scores of some trials at every look; few values, so that there are ties."""


def board_of(rule: Asha | Median | Sequential, trials: int, comparisons: int = 2) -> Board:
    ids = tuple(map(str, range(trials)))
    return Board(rule, Contest(dict.fromkeys(ids, ids), {i: i for i in ids}, comparisons), EVERY, 0)


def told(board: Board, scores: list[list[float]], order: list[tuple[int, int]]) -> dict[int, int]:
    """Trial -> step at which it is stopped, when looks (trial, index) come in `order`."""
    stopped: dict[int, int] = {}
    for trial, index in order:
        if trial not in stopped:
            step = STEPS[index]
            board.add(str(trial), step, Look(scores[trial][index]))
            if board.reason(str(trial), step, TOTAL) is not None:
                stopped[trial] = step
    return stopped


def in_some_order(trials: int, seed: int) -> list[tuple[int, int]]:
    """Every trial's looks in their own order, the trials' mixed."""
    owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(trials), len(STEPS)))
    seen = dict.fromkeys(range(trials), -1)
    order = []
    for owner in owners.tolist():
        seen[owner] += 1
        order.append((owner, seen[owner]))
    return order


@settings(max_examples=200, deadline=None)
@given(scores=curves, seed=st.integers(0, 999), reduction=st.integers(2, 4))
def test_asha_keeps_the_best_part_of_every_rung(
    scores: list[list[float]], seed: int, reduction: int
) -> None:
    order = in_some_order(len(scores), seed)
    rule = Asha("draws", grace=10, reduction=reduction)
    # By brute force: what stands at each rung, whether the newcomer is in its best part.
    rungs: dict[int, list[float]] = {
        10 * reduction**power: [] for power in range(6) if 10 * reduction**power < TOTAL
    }
    expected: dict[int, int] = {}
    for trial, index in order:
        step, before = STEPS[index], STEPS[index] - EVERY
        if trial in expected or step == TOTAL:
            continue
        for rung, there in rungs.items():
            if before < rung <= step:
                there.append(scores[trial][index])
                best = sorted(there, reverse=True)[: max(1, len(there) // reduction)]
                if scores[trial][index] < best[-1]:
                    expected[trial] = step
    assert told(board_of(rule, len(scores)), scores, order) == expected


@settings(max_examples=200, deadline=None)
@given(scores=curves, seed=st.integers(0, 999), least=st.integers(1, 3))
def test_the_median_rule_is_the_papers(scores: list[list[float]], seed: int, least: int) -> None:
    order = in_some_order(len(scores), seed)
    expected: dict[int, int] = {}
    seen: dict[int, list[float]] = {}
    for trial, index in order:
        if trial in expected:
            continue
        seen.setdefault(trial, []).append(scores[trial][index])
        others = [found[: index + 1] for t, found in seen.items() if t != trial]
        averages = [mean(found) for found in others if len(found) == index + 1]
        step = STEPS[index]
        if 10 <= step < TOTAL and len(averages) >= least and max(seen[trial]) < median(averages):
            expected[trial] = step
    rule = Median("draws", grace=10, least=least)
    assert told(board_of(rule, len(scores)), scores, order) == expected


def test_only_looks_at_the_same_step_are_compared() -> None:
    for rule in (Asha("cells", grace=5, reduction=2), Median("cells", grace=1, least=1)):
        board = board_of(rule, 2)
        board.add("0", 6, Look(0.9))
        board.add("1", 5, Look(0.1))
        assert board.reason("1", 5, TOTAL) is None
        board.add("0", 5, Look(0.9))
        reason = board.reason("1", 5, TOTAL)
        assert reason is not None and reason.startswith(f"{rule.name}: 0.1000 at step 5 of 40")


def test_no_trial_is_stopped_before_the_grace_or_at_its_end() -> None:
    board = board_of(Median("cells", grace=10, least=1), 2)
    for step in STEPS:
        board.add("0", step, Look(0.9))
        board.add("1", step, Look(0.1))
    stopped = [step for step in STEPS if board.reason("1", step, TOTAL)]
    assert stopped == [step for step in STEPS if 10 <= step < TOTAL]


def test_the_bound_is_that_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.random((2, 50))
    high = stats.ttest_rel(own, other).confidence_interval(0.9).high
    assert upper_bound(own - other, 0.05) == pytest.approx(high)
    assert upper_bound(own - other, 0.05, seed_sd=0.01) > high
    assert upper_bound(own[:1], 0.05) == float("inf")


def stops(rule: Sequential, own: np.ndarray, other: np.ndarray, margin: float = 0.0) -> str | None:
    board = board_of(rule, 2)
    board.margin = margin
    board.add("0", 10, Look(float(own.mean()), own))
    board.add("1", 10, Look(float(other.mean()), other))
    return board.reason("0", 10, TOTAL)


def test_a_trial_that_is_surely_worse_stops_and_says_by_how_much() -> None:
    rng = np.random.default_rng(1)
    other = rng.random(200)
    own = other - 0.2 + 0.1 * rng.standard_normal(200)
    rule = Sequential("cells", error=0.05)
    reason = stops(rule, own, other)
    assert reason is not None and "below 1" in reason and "false alarms of 0.05" in reason
    assert stops(rule, other, own) is None
    assert stops(rule, own, other, margin=0.25) is None
    assert stops(Sequential("cells", error=0.05, seed_sd=0.2), own, other) is None
    board = board_of(rule, 2)
    board.add("0", 10, Look(0.1))
    board.add("1", 10, Look(0.9))
    assert board.reason("0", 10, TOTAL) is None, "without scores per query there is no pairing"


def test_looking_again_and_again_stops_no_equal_trial_too_often() -> None:
    rng = np.random.default_rng(0)
    studies, queries = 2000, 200
    rule, stopped = Sequential("cells", error=0.05, seed_sd=0.0), 0
    for _ in range(studies):
        # A trial that is worse by just the margin, on sparse scores that hardly change from look
        # to look: the hardest case that must not be stopped.
        board = board_of(rule, 2)
        board.margin = 0.01
        chance = rng.beta(0.5, 0.5, queries)
        fixed, moving = rng.random((2, queries)), rng.random((len(STEPS), 2, queries))
        for step, draw in zip(STEPS, moving, strict=True):
            mixed = np.where(rng.random(queries) < 0.7, fixed, draw)
            reference = (mixed[0] < chance).astype(float)
            candidate = (mixed[1] < chance).astype(float) - 0.01
            board.add("0", step, Look(candidate.mean(), candidate))
            board.add("1", step, Look(reference.mean(), reference))
            if board.reason("0", step, TOTAL) or board.reason("1", step, TOTAL):
                stopped += 1
                break
    assert stopped / studies <= 0.05 + 2.33 * (0.05 * 0.95 / studies) ** 0.5


def groups(found: Contest) -> set[tuple[str, ...]]:
    return set(found.groups.values())


def test_cells_compete_at_the_same_draw_and_seed_and_draws_within_a_cell(read: Read) -> None:
    plan = plan_of(read())
    trials = list(plan.choose())
    assert (len(plan.cells), len(plan.draws), len(trials)) == (4, 4, 16)
    where = {trial.trial_id: trial for trial in trials}
    for group in groups(contest(plan, trials, "cells", chosen=False)):
        assert len(group) == 4 and len({where[t].draw for t in group}) == 1
    for group in groups(contest(plan, trials, "draws", chosen=False)):
        assert len(group) == 4 and len({where[t].cell for t in group}) == 1
    repeated = list(plan.repeat({cell.name: i for i, cell in enumerate(plan.cells)}))
    seeds = {trial.trial_id: trial.seed for trial in repeated}
    chosen = groups(contest(plan, repeated, "cells", chosen=True))
    assert len(chosen) == 3 and all(len({seeds[t] for t in group}) == 1 for group in chosen)
    assert {len(g) for g in groups(contest(plan, repeated, "draws", chosen=True))} == {1}


def pairs(found: Contest) -> int:
    return sum(len(found.rivals(trial)) for trial in found.groups)


def test_one_error_rate_covers_every_comparison_of_a_study(read: Read) -> None:
    plan = plan_of(read())
    choosing = contest(plan, plan.choose(), "cells", chosen=False)
    repeated = [t for t in plan.repeat({c.name: 0 for c in plan.cells}) if t.seed != plan.seeds[0]]
    fresh = contest(plan, repeated, "cells", chosen=True)
    assert comparisons(plan, "cells") == choosing.comparisons == pairs(choosing) + pairs(fresh)
    within = contest(plan, plan.choose(), "draws", chosen=False)
    assert comparisons(plan, "draws") == pairs(within)
    frozen = plan_of(read(sets={"optim.lr": "1.0e-5"}))
    everyone = contest(frozen, frozen.repeat(), "cells", chosen=True)
    assert comparisons(frozen, "cells") == pairs(everyone) == 3 * 4 * 3


@pytest.mark.parametrize(
    ("stop", "rule"),
    [
        ("rule: asha, among: draws, grace: 4, reduction: 3", Asha("draws", 4, 3)),
        ("rule: median, among: cells, grace: 4, least: 2", Median("cells", 4, 2)),
        ("rule: sequential, among: cells, error: 0.05", Sequential("cells", 0.05)),
        (
            "rule: sequential, among: draws, error: 0.1, grace: 4, seed_sd: 0.01",
            Sequential("draws", 0.1, 4, 0.01),
        ),
    ],
)
def test_a_rule_is_read_and_written(read: Read, stop: str, rule: object) -> None:
    study = read(("budget:", f"{WATCH}stop: {{{stop}}}\nbudget:"))
    assert study.stop == rule
    assert read(text=write_study(study)) == study
    assert write_study(study) == write_study(read(text=write_study(study)))


def test_settings_of_a_rule_can_be_set(read: Read) -> None:
    sets = {"stop.rule": "asha", "stop.among": "draws", "stop.grace": "3", "stop.reduction": "2"}
    assert read(("budget:", f"{WATCH}budget:"), sets=sets).stop == Asha("draws", 3, 2)


MISTAKES: Mapping[str, tuple[str, ...]] = {
    "{rule: ahsa}": ("stop.rule: is unknown", "did you mean 'asha'?"),
    "{among: cells}": ("stop.rule: is missing; known: asha, median, sequential",),
    "{rule: asha, among: cell, grace: 0}": (
        "stop.among: should be 'cells' or 'draws'",
        "stop.grace: should be greater than or equal to 1",
        "stop.reduction: is missing and has no default",
    ),
    "{rule: sequential, error: 0.9, least: 3}": (
        "stop.error: should be less than 0.5",
        "stop.among: is missing and has no default: cells or draws",
        "stop.least: is not a key of stop",
    ),
    "{rule: median, among: draws, grace: 20, least: 1}": (
        "stop.grace: must be below optim.steps (20)",
    ),
}


@pytest.mark.parametrize("stop", MISTAKES)
def test_mistakes_are_listed_together(read: Read, stop: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(("budget:", f"{WATCH}stop: {stop}\nbudget:"))
    for said in MISTAKES[stop]:
        assert said in str(caught.value)


def test_a_study_that_cannot_stop_trials_says_why(read: Read) -> None:
    asha = "stop: {rule: asha, among: draws, grace: 4, reduction: 3}\n"
    alone = STUDY.replace("tune:\n  optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}\n", "").replace(
        "budget: {draws_per_cell: 4}\nselect: {maximize: tiny/dev/mrr_at_10}\n", asha
    )
    with pytest.raises(InvalidInput) as caught:
        read(text=alone)
    for said in ("stop: needs watch", "stop: needs select.maximize", "and nothing is tuned"):
        assert said in str(caught.value)
    other = WATCH.replace("tiny/dev", "tiny/test").replace("tiny/test", "tiny/dev>=2")
    with pytest.raises(InvalidInput, match="the split that selects, for trials to be stopped"):
        read(("budget:", f"{other}{asha}budget:"))
    cells = asha.replace("draws", "cells")
    one = ("compare:\n  loss.name: [joint_lh, sum_marg_lh]\n  loss.temperature: [0.02, 0.1]\n",
           "compare: {loss.name: [joint_lh], loss.temperature: [0.1]}\n")  # fmt: skip
    with pytest.raises(InvalidInput, match="compares cells, and there is one"):
        read(one, ("budget:", f"{WATCH}{cells}budget:"))
