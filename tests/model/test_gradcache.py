"""The gradient cache: the plain gradient, in memory that does not grow with the batch."""

from __future__ import annotations

import itertools
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.model.cpu import densify
from trainables.model.losses import INF, LOSSES
from trainables.model.objective import Objective, training_step
from trainables.spec import LossSpec

VARIANTS = [
    (name, dict(zip(loss.params, values, strict=True)))
    for name, loss in LOSSES.items()
    for values in itertools.product(*loss.params.values())
]


def make(name: str = "lse_pair", params: dict[str, Any] | None = None) -> Objective:
    return Objective(LossSpec(name=name, temperature=0.1, params=params or {}))


def gradients(encoder: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.detach().double().reshape(-1) for p in encoder.parameters()])


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_there_are_losses_to_check() -> None:
    assert len(VARIANTS) == 11


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=str)
def test_chunked_is_plain(
    name: str, params: dict[str, Any], workers: ModuleType, tiny_backbone: str
) -> None:
    inputs = workers.global_batch(3, 6, 11)
    for tied, dtype, tolerance in ((True, torch.float32, 3e-6), (False, torch.float64, 1e-12)):
        encoder = workers.build(tiny_backbone, tied=tied).to(dtype)
        plain = training_step(encoder, inputs, make(name, params), None)
        wanted = gradients(encoder)
        for chunk_size in (1, 4, 100):
            cached = training_step(encoder, inputs, make(name, params), chunk_size)
            assert distance(gradients(encoder), wanted) < tolerance
            assert cached.loss == pytest.approx(plain.loss, rel=1e-5)
            assert cached.shares == pytest.approx(plain.shares, rel=1e-3, abs=1e-6)


def test_dropout_is_replayed(workers: ModuleType, tiny_backbone: str) -> None:
    """Against the same chunks encoded once with all activations kept, from the same seed."""
    encoder = workers.build(tiny_backbone, dropout=0.3).double()
    inputs, size = workers.global_batch(3, 6, 11), 4
    torch.manual_seed(5)
    training_step(encoder, inputs, make(), size)
    found, after = gradients(encoder), torch.get_rng_state()

    encoder.zero_grad()
    torch.manual_seed(5)
    sides = []
    for tokens, role in ((inputs.queries, "query"), (inputs.passages, "passage")):
        order = np.argsort(-tokens.lengths, kind="stable")
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        vectors = torch.cat([encoder.encode(tokens.take(rows), role) for rows in chunks])
        sides.append(vectors[np.argsort(order)])
    logits = (sides[0] @ sides[1].T / 0.1).masked_fill(~inputs.candidate, -INF)
    answered = inputs.positive.any(-1)
    make().per_query(logits, inputs.positive)[answered].mean().backward()
    densify(encoder.parameters())
    assert distance(found, gradients(encoder)) < 1e-12
    assert torch.equal(after, torch.get_rng_state())

    torch.manual_seed(6)
    training_step(encoder, inputs, make(), size)
    assert distance(gradients(encoder), found) > 1e-2, "dropout is off: the test says nothing"


def test_the_cache_works_under_autocast(workers: ModuleType, tiny_backbone: str) -> None:
    encoder = workers.build(tiny_backbone)
    inputs = workers.global_batch(3, 6, 11)
    with torch.autocast("cpu", torch.bfloat16):
        training_step(encoder, inputs, make(), None)
    wanted = gradients(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        training_step(encoder, inputs, make(), 4)
    assert distance(gradients(encoder), wanted) < 0.05
    assert all(p.grad.any() for p in encoder.parameters() if p.ndim == 2)


class Peak:
    """Largest number of bytes that autograd held for backward passes at one time."""

    def __init__(self) -> None:
        self.live = self.largest = 0

    def pack(self, tensor: Tensor) -> list[Tensor]:
        held = Held([tensor])
        size = tensor.numel() * tensor.element_size()
        self.live += size
        self.largest = max(self.largest, self.live)
        weakref.finalize(held, self.drop, size)
        return held

    def drop(self, size: int) -> None:
        self.live -= size


class Held(list[Tensor]):
    """A list that can be referred to weakly."""


def peak_bytes(workers: ModuleType, backbone: str, times: int, chunk_size: int | None) -> int:
    encoder = workers.build(backbone)
    inputs = workers.global_batch(0, 4 * times, 12 * times)
    peak = Peak()
    with torch.autograd.graph.saved_tensors_hooks(peak.pack, lambda held: held[0]):
        training_step(encoder, inputs, make(), chunk_size)
    return peak.largest


def test_memory_stays_flat_while_the_batch_grows_16_times(
    workers: ModuleType, tiny_backbone: str
) -> None:
    small, large = (peak_bytes(workers, tiny_backbone, times, 4) for times in (1, 16))
    plain = [peak_bytes(workers, tiny_backbone, times, None) for times in (1, 16)]
    assert large < 1.2 * small
    assert plain[1] > 8 * plain[0]
    assert plain[1] > 20 * large


def test_the_random_state_moves_as_in_one_forward(workers: ModuleType, tiny_backbone: str) -> None:
    encoder = workers.build(tiny_backbone, dropout=0.0)
    before = torch.get_rng_state()
    training_step(encoder, workers.global_batch(3, 6, 11), make(), 4)
    assert torch.equal(before, torch.get_rng_state())
