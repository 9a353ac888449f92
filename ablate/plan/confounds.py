"""What would confound a plan's answer, as plain sentences that a plan and a report both show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablate.plan.cost import Sizes, collection_size
from ablate.plan.parts import Study
from ablate.plan.planner import Plan
from ablate.plan.power import ALPHA, POWER, Detectable, comparisons, detectable
from ablate.plan.prior import Prior
from trainables.data.collections import parse_ref

FEW_QUERIES = 300
"""Judged queries below which only large differences can be shown."""

FEW_DRAWS_PER_KEY = 4
"""Random draws for each tuned key below which the tuning itself decides by luck."""

FEW_DRAWS_TO_SEARCH = 12
"""Draws per cell below which an adaptive search came no nearer to the optimum of a smooth objective
in one or two keys than random draws did, over 20 seeds."""

LARGE_EFFECT = 0.02
"""A smallest detectable difference above it is worth a sentence."""


@dataclass(frozen=True)
class Confound:
    """One thing that could explain a difference other than what is compared."""

    code: str
    text: str


def warnings(
    plan: Plan, sizes: Sizes = collection_size, priors: Mapping[str, Prior] | None = None
) -> list[Confound]:
    """Every confound of the plan that can be seen before it runs; empty when there is none.

    `priors` are as for `detectable`.
    """
    found = [Confound(code, text) for check in _CHECKS for code, text in check(plan.study)]
    seen = list(detectable(plan, sizes, priors or {}))
    return found + [Confound(code, text) for code, text in _power(plan, seen)]


Found = Iterator[tuple[str, str]]


def _one_seed(study: Study) -> Found:
    if len(study.seeds) == 1:
        yield (
            "one-seed",
            "Every cell has one seed: a difference between cells may be the luck of their "
            "initialisation and order of batches. Three seeds or more show how large that luck is.",
        )


def _shared_settings(study: Study) -> Found:
    """One learning rate or temperature for losses that may need different ones."""
    if not _compared(study, "loss.name"):
        return
    for key, name, code in (
        ("optim.lr", "learning rate", "one-lr"),
        ("loss.temperature", "temperature", "one-temperature"),
    ):
        if key in study.fixed:
            yield (
                code,
                f"All losses share one {name} ({study.fixed[key]:g}): one that suits another value "
                f"looks worse than it is. Put {key} under tune.",
            )
    if False in study.listed("loss.params.normalize"):
        yield (
            "unnormalised-joint-lh",
            "Without normalize joint_lh sums over the positives: its gradient grows with their "
            "number, which acts as a higher learning rate.",
        )


def _negatives(study: Study) -> Found:
    """The paper's fixed group, in which positives displace hard negatives."""
    if not any(value is not None for value in study.listed("data.group_size")):
        return
    varied = [key for key in ("loss.name", "data.max_positives") if _compared(study, key)]
    if varied:
        yield (
            "unequal-negatives",
            f"With data.group_size positives displace hard negatives, so cells that differ in "
            f"{' and '.join(varied)} also differ in their number of negatives. Without it every "
            "cell has data.hard_negatives.",
        )


def _known_positives(study: Study) -> Found:
    if False in study.listed("data.mask_known_positives"):
        yield (
            "known-positives-as-negatives",
            "With data.mask_known_positives off, known positives of a query act as its negatives; "
            "losses that read fewer positives suffer differently from it.",
        )


def _steps(study: Study) -> Found:
    varied = [
        key for key in ("optim.steps", "optim.epochs", "optim.batch_size") if _compared(study, key)
    ]
    if varied:
        yield (
            "unequal-steps",
            f"Cells differ in {' and '.join(varied)}: those that train on more queries have an "
            "advantage that has nothing to do with the other compared keys.",
        )
    if "optim.epochs" in study.fixed and (
        _compared(study, "data.train") or _compared(study, "data.human_fraction")
    ):
        yield (
            "epochs-of-unequal-length",
            "optim.epochs is fixed while the data are compared: an epoch over more queries has "
            "more steps. optim.steps gives every cell the same number.",
        )


def _curriculum(study: Study) -> Found:
    mixing = study.listed("data.mixing")
    if "curriculum" in mixing and len(mixing) > 1:
        share = study.listed("data.curriculum_share")
        text = f"last {share[0]:.0%}" if len(share) == 1 else "last part"
        yield (
            "curriculum-steps",
            "Curriculum has the same number of steps as the other mixing policies and trains on "
            f"human labels alone in the {text} of them; published curricula add an epoch instead.",
        )


def _idle_mixing(study: Study) -> Found:
    """Mixing policies make no difference where one kind of label is left."""
    if len(study.listed("data.mixing")) < 2 and not _compared(study, "data.machine_labels"):
        return
    fractions = study.listed("data.human_fraction")
    if 1.0 in fractions and "replace" in (study.listed("data.mixing") or ("replace",)):
        yield (
            "idle-machine-labels",
            "Under replace with data.human_fraction 1 every query keeps its human labels and no "
            "machine label is used.",
        )


def _few_draws(study: Study) -> Found:
    tuned = len(study.random)
    draws = study.budget.draws_per_cell
    if draws is not None and draws < FEW_DRAWS_PER_KEY * tuned:
        yield (
            "few-draws",
            f"{_count(draws, 'draw')} for {_count(tuned, 'tuned key')}: which cell wins may depend "
            f"on which draws came near its optimum. {FEW_DRAWS_PER_KEY * tuned} or more are safer.",
        )


def _short_search(study: Study) -> Found:
    draws = study.budget.draws_per_cell
    if study.adaptive and draws is not None and draws < FEW_DRAWS_TO_SEARCH:
        yield (
            "short-search",
            f"{_count(draws, 'draw')} for an adaptive search: with fewer than "
            f"{FEW_DRAWS_TO_SEARCH} it finds no more than random draws do, which are the same in "
            "every cell.",
        )


def _selected_on_training(study: Study) -> Found:
    select = study.select
    if select is None:
        return
    for text in study.listed("data.train"):
        ref = parse_ref(str(text), "train")
        if (ref.collection, ref.split) == (select.ref.collection, select.ref.split):
            yield (
                "selects-on-training-queries",
                f"{select.ref.label} selects and is trained on: draws that memorise it win.",
            )


def _stops_early(study: Study) -> Found:
    stop = study.stop
    if stop is None:
        return
    if stop.among == "cells":
        yield (
            "stops-cells",
            f"The rule {stop.name} stops trials of cells that look worse in training. A cell's "
            "mean is over the seeds that were not stopped, so it flatters the cell.",
        )
    if len(study.listed("optim.steps")) > 1 or len(study.listed("optim.epochs")) > 1:
        yield (
            "stops-at-unequal-lengths",
            "Trials of different lengths are compared at equal steps before they are stopped: "
            "there the shorter one has the lower learning rate, which helps its score.",
        )


_CHECKS: tuple[Callable[[Study], Found], ...] = (
    _one_seed,
    _shared_settings,
    _negatives,
    _known_positives,
    _steps,
    _curriculum,
    _idle_mixing,
    _few_draws,
    _short_search,
    _stops_early,
    _selected_on_training,
)


def _power(plan: Plan, seen: Sequence[Detectable]) -> Found:
    """Test splits with few queries, and differences too small for the plan."""
    few = [each for each in seen if each.queries < FEW_QUERIES]
    large = [each for each in seen if each.effect > LARGE_EFFECT and len(plan.cells) > 1]
    weak = [each for each in large if each not in few]
    if few:
        said = f"Few queries: differences will mostly be missed below {basis_of(plan, few)}."
        yield "few-queries", said
    if weak:
        yield "low-power", f"Differences will mostly be missed below {basis_of(plan, weak)}."


def basis_of(plan: Plan, seen: Sequence[Detectable]) -> str:
    """The smallest differences, and what they rest on."""
    spreads = "; ".join(dict.fromkeys(str(each.prior) for each in seen))
    return (
        f"{', '.join(map(str, seen))} (power {POWER:g}; error rate {ALPHA:g} over "
        f"{_count(comparisons(plan), 'comparison')}; {_count(len(plan.seeds), 'seed')}; {spreads})"
    )


def _count(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else one + 's'}"


def _compared(study: Study, key: str) -> bool:
    """Whether cells differ in `key`."""
    return key in study.compared and len(study.listed(key)) > 1
