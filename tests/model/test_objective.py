"""Scores, temperature, the mean over the global batch, and one whole step in one process."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from trainables.model import collectives
from trainables.model import objective as module
from trainables.model.losses import INF, LOSSES
from trainables.model.objective import Objective, StepInputs, training_step
from trainables.spec import LossSpec
from trainables.tokens import Tokens


def make(name: str = "sum_marg_lh", temperature: float = 0.1) -> Objective:
    return Objective(LossSpec(name=name, temperature=temperature))


def test_logits_are_dot_products_over_the_temperature() -> None:
    queries = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    passages = torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 5.0]])
    candidate = torch.tensor([[True, False, True], [True, True, True]])
    logits = make(temperature=0.5).logits(queries, passages, candidate)
    assert logits.tolist() == [[10.0, -INF, 20.0], [-2.0, -2.0, -10.0]]


def test_the_temperature_is_applied_in_one_line() -> None:
    sources = sorted(Path(module.__file__).parents[1].rglob("*.py"))
    assert len(sources) > 10
    uses = [
        (source.name, ast.unparse(node))
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "temperature"
    ]
    assert uses == [("objective.py", "self.loss.temperature")]


def test_scores_are_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(4, 256, generator=generator)
    passages = torch.randn(5, 256, generator=generator)
    everything = torch.ones(4, 5, dtype=torch.bool)
    wanted = make().logits(queries, passages, everything)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make().logits(queries, passages, everything), wanted)
        halves = make().logits(queries.bfloat16(), passages.bfloat16(), everything)
        losses = make().per_query(wanted, everything)
    assert halves.dtype == losses.dtype == torch.float32
    exact = queries.bfloat16().double() @ passages.bfloat16().double().T / 0.1
    assert torch.allclose(halves.double(), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_step_is_the_gradient_of_the_mean_over_queries_with_a_positive(
    name: str, workers: ModuleType, tiny_backbone: str
) -> None:
    encoder = workers.build(tiny_backbone).double()
    inputs = workers.global_batch(0, 6, 11)
    result = training_step(encoder, inputs, make(name), None)
    found = {key: p.grad.clone() for key, p in encoder.named_parameters()}
    queries = encoder.encode(inputs.queries, "query")
    passages = encoder.encode(inputs.passages, "passage")
    logits = (queries @ passages.T / 0.1).masked_fill(~inputs.candidate, -INF)
    answered = inputs.positive.any(-1)
    assert answered.tolist() == [False] + [True] * 5
    mean = LOSSES[name].fn(logits, inputs.positive)[answered].mean()
    wanted = torch.autograd.grad(mean, list(encoder.parameters()))
    for gradient, (key, value) in zip(wanted, found.items(), strict=True):
        assert torch.allclose(value, gradient.to_dense(), rtol=1e-9, atol=1e-13), key
    assert result.loss == pytest.approx(mean.item(), rel=1e-6)
    assert (result.queries, result.without_positive) == (6, 1)
    assert result.shares


def test_a_step_drops_earlier_gradients(workers: ModuleType, tiny_backbone: str) -> None:
    encoder = workers.build(tiny_backbone)
    inputs = workers.global_batch(0, 6, 11)
    training_step(encoder, inputs, make(), None)
    once = [p.grad.clone() for p in encoder.parameters()]
    training_step(encoder, inputs, make(), None)
    assert all(torch.equal(p.grad, g) for p, g in zip(encoder.parameters(), once, strict=True))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_batch_without_positives_is_a_zero_with_zero_gradients(
    chunk_size: int | None, workers: ModuleType, tiny_backbone: str
) -> None:
    encoder = workers.build(tiny_backbone)
    whole = workers.global_batch(0, 6, 11)
    none = torch.zeros_like(whole.positive)
    result = training_step(encoder, replace(whole, positive=none, extras={}), make(), chunk_size)
    assert result.loss == 0.0
    assert result.without_positive == result.queries == 6
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_batch_without_queries_is_a_zero_too(
    chunk_size: int | None, workers: ModuleType, tiny_backbone: str
) -> None:
    encoder = workers.build(tiny_backbone, tied=False)
    whole = workers.global_batch(0, 6, 11)
    inputs = workers.share(whole, (0,), (11,), 0)
    result = training_step(encoder, inputs, make(), chunk_size)
    assert (result.loss, result.queries) == (0.0, 0)
    assert all(p.grad is not None and not p.grad.any() for p in encoder.parameters())


def test_contradicting_inputs_are_refused(workers: ModuleType, tiny_backbone: str) -> None:
    whole = workers.global_batch(0, 6, 11)
    with pytest.raises(ValueError, match=r"candidate must be \(6, 11\)"):
        replace(whole, candidate=whole.candidate[:, :-1])
    with pytest.raises(ValueError, match="known must be"):
        replace(whole, extras={"known": whole.positive[:2]})
    with pytest.raises(ValueError, match="must be a candidate"):
        replace(whole, candidate=torch.zeros_like(whole.candidate))
    empty = Tokens(np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
    mask = torch.zeros(0, 0, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one passage"):
        StepInputs(empty, empty, (0,), (0,), mask, mask)
    with pytest.raises(ValueError, match="worker 0 holds"):
        training_step(workers.build(tiny_backbone), replace(whole, query_counts=(5,)), make(), None)


def test_a_fault_in_the_vectors_reaches_the_loss(workers: ModuleType, tiny_backbone: str) -> None:
    encoder = workers.build(tiny_backbone)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    result = training_step(encoder, workers.global_batch(0, 6, 11), make(), None)
    assert np.isnan(result.loss)


def test_buckets_hold_one_type_and_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "BUCKET_BYTES", 40)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.float64)]
    tensors = [torch.zeros(size, dtype=dtype) for size, dtype in [*sizes, (100, torch.float64)]]
    buckets = list(collectives._buckets(tensors))
    assert [[len(tensor) for tensor in bucket] for bucket in buckets] == [[4, 6], [1], [2], [100]]
    assert list(collectives._buckets([])) == []
