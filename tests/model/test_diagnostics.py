"""Where the gradient goes: worked by hand, and practice against theory."""

from __future__ import annotations

import itertools
import math
import re
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.model import diagnostics
from trainables.model.diagnostics import METRICS, Scored, measure, measure_known, ratios
from trainables.model.losses import INF, LOSSES
from trainables.model.objective import Objective, training_step
from trainables.spec import LossSpec

VARIANTS = [
    (name, dict(zip(loss.params, values, strict=True)))
    for name, loss in LOSSES.items()
    for values in itertools.product(*loss.params.values())
]
NOTHING: dict[str, Tensor] = {}


def spec(name: str, params: dict[str, Any] | None = None) -> LossSpec:
    return LossSpec(name=name, temperature=1.0, params=params or {})


def scored(
    loss: LossSpec, logits: Tensor, positive: Tensor, extras: dict[str, Tensor] = NOTHING
) -> Scored:
    leaf = logits.clone().requires_grad_()
    losses = LOSSES[loss.name].fn(leaf, positive, **loss.params)
    (gradient,) = torch.autograd.grad(losses.mean(), leaf)
    return Scored(logits, gradient, positive, logits > -INF, extras)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def mask(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


def test_every_metric_has_a_legal_name_and_a_meaning(
    workers: ModuleType, tiny_backbone: str
) -> None:
    assert len(METRICS) > 15
    for name, meaning in METRICS.items():
        assert re.fullmatch(r"grad/[A-Za-z0-9_\-. /]+", name)
        assert meaning
    objective = Objective(LossSpec(name="joint_lh", temperature=0.1))
    inputs = workers.global_batch(0, 6, 11)
    result = training_step(workers.build(tiny_backbone), inputs, objective, None)
    assert set(result.shares) == set(METRICS)
    assert all(math.isfinite(value) for value in result.shares.values())


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=str)
@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.02, 0.2, 1.0]))
@settings(max_examples=20, deadline=None)
def test_practice_follows_theory(
    name: str, params: dict[str, Any], seed: int, temperature: float
) -> None:
    assert set(diagnostics._PREDICTED) == set(LOSSES)
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(6, 12, generator=generator, dtype=torch.float64) * 0.8
    positive = torch.rand(6, 12, generator=generator) < 0.3
    candidate = positive | (torch.rand(6, 12, generator=generator) < 0.8)
    logits = (cosines / temperature).masked_fill(~candidate, -INF)
    loss = spec(name, params)
    seen = scored(loss, logits, positive)
    practice = diagnostics.pull_shares(seen.pull)
    theory = diagnostics.predicted_shares(loss, logits, positive)
    # Below, shares are quotients of rounding errors: 1e-16 of a logit's gradient over the pull.
    pulled = seen.pull.sum(-1) > 1e-6
    assert torch.allclose(practice[pulled], theory[pulled], atol=1e-9)
    assert torch.allclose(practice[pulled].sum(-1), torch.ones(1, dtype=torch.float64))
    metrics = ratios(measure(loss, seen))
    if pulled[positive.sum(-1) > 1].any():
        assert metrics["grad/prediction_gap"] < 1e-6
        shares = [metrics[f"grad/pull_rank_{rank}"] for rank in range(1, 5)]
        assert 0 <= sum(shares) < 1 + 1e-6


def test_pull_by_rank_worked_by_hand() -> None:
    """SumMargLH on scores ln 4, ln 1, ln 3 shares its pull as 4 : 1 : 3; LSEPair as 3 : 12 : 4."""
    logits = row(math.log(4), 0.0, math.log(3), 0.5, 0.1)
    positive = mask(1, 1, 1, 0, 0)
    found = ratios(measure(spec("sum_marg_lh"), scored(spec("sum_marg_lh"), logits, positive)))
    ranks = ("1", "2", "3", "4", "last")
    for name in ("pull", "predicted"):
        shares = [found[f"grad/{name}_rank_{rank}"] for rank in ranks]
        assert shares == pytest.approx([4 / 8, 3 / 8, 1 / 8, 0, 1 / 8], abs=1e-6)
    found = ratios(measure(spec("lse_pair"), scored(spec("lse_pair"), logits, positive)))
    shares = [found[f"grad/pull_rank_{rank}"] for rank in ranks]
    assert shares == pytest.approx([3 / 19, 4 / 19, 12 / 19, 0, 12 / 19], abs=1e-6)


def test_effective_numbers_fall_with_the_temperature() -> None:
    cosines, positive = row(0.8, 0.6, 0.5, 0.4, 0.3), mask(1, 1, 0, 0, 0)
    level = ratios(measure(spec("sum_marg_lh"), scored(spec("sum_marg_lh"), 0 * cosines, positive)))
    assert level["grad/effective_positives"] == pytest.approx(2)
    assert level["grad/effective_negatives"] == pytest.approx(3)
    numbers = []
    for temperature in (1.0, 0.1, 0.01):
        seen = scored(spec("sum_marg_lh"), cosines / temperature, positive)
        found = ratios(measure(spec("sum_marg_lh"), seen))
        numbers.append((found["grad/effective_positives"], found["grad/effective_negatives"]))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == pytest.approx((1, 1), abs=1e-2)


def test_only_joint_lh_pushes_positives_down() -> None:
    logits, positive = row(5.0, 0, 0, 0, 0, 0, 0, 0), mask(1, 1, 1, 1, 0, 0, 0, 0)
    for name in LOSSES:
        found = ratios(measure(spec(name), scored(spec(name), logits, positive)))
        if name == "joint_lh":
            down, up = 4 * 0.9550 - 1, 3 * (1 - 4 * 0.00643)
            assert found["grad/positives_down"] == pytest.approx(down / (down + up), abs=1e-3)
        else:
            assert found["grad/positives_down"] == 0.0


def test_sources_and_truth_worked_by_hand() -> None:
    """Positives that share the pull as 1 : 2 : 5, over two queries weighted by their pull."""
    logits = torch.stack([row(0.0, math.log(2), math.log(5), 0.0)[0], row(0, 0, 0, 0)[0]])
    positive = torch.tensor([[True, True, True, False], [True, False, False, False]])
    extras = {
        "source": torch.tensor([[0, 1, 1, -1], [0, -1, -1, -1]]),
        "true": torch.tensor([[True, True, False, False], [True, False, False, False]]),
        "hard": torch.tensor([[False, False, False, False], [False, True, False, False]]),
    }
    seen = scored(spec("sum_marg_lh"), logits, positive, extras)
    found = ratios(measure(spec("sum_marg_lh"), seen))
    first, second = 1 / 9, 3 / 4
    whole = first + second
    assert found["grad/pull_machine"] == pytest.approx(first * 7 / 8 / whole)
    assert found["grad/pull_human"] == pytest.approx((first / 8 + second) / whole)
    assert found["grad/positives_machine"] == pytest.approx(2 / 4)
    assert found["grad/pull_wrong"] == pytest.approx(first * 5 / 8 / whole)
    assert found["grad/positives_wrong"] == pytest.approx(1 / 4)
    assert found["grad/push_hard"] == pytest.approx(1 / 4 / whole)


def test_the_false_negative_meter_worked_by_hand() -> None:
    logits = torch.stack([row(0.0, 1.0, 0.0, 0.0)[0], row(0, 0, 0, 0)[0], row(0, 9, 0, 0)[0]])
    positive = torch.tensor([[True, False, False, False]] * 2 + [[False] * 4])
    known = torch.tensor([[True, True, False, False], [True] + [False] * 3, [False, True] * 2])
    seen = scored(spec("single_lh"), logits, positive, {"known": known})
    found = ratios(measure_known(seen))
    first = math.e + 2
    push = first / (first + 1) + 3 / 4
    assert found["grad/push_known"] == pytest.approx(math.e / (first + 1) / push)
    assert found["grad/negatives_known"] == pytest.approx(1 / 6)
    assert found["grad/known_per_query"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("masked", [True, False])
def test_the_meter_reads_the_same_with_and_without_the_mask(
    masked: bool, workers: ModuleType, tiny_backbone: str
) -> None:
    """With the mask it says what known positives would get; without it, what they do get."""
    whole = workers.global_batch(0, 6, 11)
    known = whole.extras["known"]
    inputs = workers.share(whole, (6,), (11,), 0)
    candidate = inputs.candidate if masked else inputs.candidate | known
    inputs = type(inputs)(
        *(inputs.queries, inputs.passages, (6,), (11,), inputs.positive, candidate, inputs.extras)
    )
    encoder = workers.build(tiny_backbone)
    objective = Objective(LossSpec(name="sum_marg_lh", temperature=0.1))
    found = training_step(encoder, inputs, objective, None).shares
    gradient = encoder.passage.embeddings.word_embeddings.weight.grad.clone()

    queries, passages = encoder.encode(inputs.queries, "query"), inputs.passages
    logits = objective.logits(queries, encoder.encode(passages, "passage"), candidate | known)
    seen = scored(spec("sum_marg_lh"), logits.detach(), inputs.positive, {"known": known})
    wanted = ratios(measure_known(seen))
    assert wanted["grad/push_known"] > 0
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-4)

    bare = type(inputs)(*(inputs.queries, inputs.passages, (6,), (11,), inputs.positive, candidate))
    training_step(encoder, bare, objective, None)
    assert torch.equal(encoder.passage.embeddings.word_embeddings.weight.grad, gradient)


def test_what_has_no_value_is_left_out() -> None:
    logits, positive = row(0.0, 1.0, 2.0), mask(0, 0, 0)
    extras = {"source": torch.full((1, 3), -1), "true": mask(0, 0, 0), "known": mask(1, 0, 0)}
    seen = scored(spec("sum_marg_lh"), logits, positive, extras)
    assert ratios(measure(spec("sum_marg_lh"), seen) | measure_known(seen)) == {}
    empty = Scored(*(torch.zeros(0, 3),) * 2, *(torch.zeros(0, 3, dtype=torch.bool),) * 2, {})
    assert ratios(measure(spec("lse_pair"), empty)) == {}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_only_positive_has_the_whole_pull(name: str) -> None:
    """Told of a loss that reads one; a query of a loss that reads several says nothing then."""
    logits, positive = row(0.3, 0.9, -0.2), mask(1, 0, 0)
    found = ratios(measure(spec(name), scored(spec(name), logits, positive)))
    shares = {
        key: found[key] for key in ("grad/pull_rank_1", "grad/pull_rank_last") if key in found
    }
    one = LOSSES[name].reads != "all"
    assert shares == ({"grad/pull_rank_1": 1.0, "grad/pull_rank_last": 1.0} if one else {})
    assert found.get("grad/prediction_gap") == (0.0 if one else None)
