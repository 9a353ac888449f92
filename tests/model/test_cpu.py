"""The faster CPU kernels: what torch's own compute, in distribution and in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers.activations import ACT2FN

from trainables.model.cpu import (
    CpuKernels,
    InferenceKernels,
    before_gelu,
    densify,
    one_dnn_available,
)


def fast_dropout(values: Tensor, rate: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    with CpuKernels():
        return functional.dropout(values, rate)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.floats(0.001, 1.0),
    shape=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_dropout_keeps_or_drops(rate: float, shape: list[int], seed: int) -> None:
    """Each value is 0 or scaled by 1 / (1 - rate), the rate to within 2^-17; the same seed drops
    the same ones."""
    dropped = fast_dropout(torch.ones(shape), rate, seed)
    kept = dropped[dropped != 0]
    if len(kept):
        wanted = 65536 / (65536 - round(rate * 65536))
        assert torch.allclose(kept, torch.tensor(wanted), rtol=1e-6)
    assert torch.equal(dropped, fast_dropout(torch.ones(shape), rate, seed))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(rate: float) -> None:
    """Within five standard deviations of a million independent draws, in rows and in columns."""
    dropped = fast_dropout(torch.ones(1000, 1000), rate, 1) == 0
    deviation = math.sqrt(rate * (1 - rate))
    assert abs(dropped.double().mean() - rate) < 5 * deviation / 1000
    for side in (0, 1):
        shares = dropped.double().mean(side)
        assert (shares - rate).abs().max() < 6 * deviation / math.sqrt(1000)
    neighbours = (dropped[:, 1:] & dropped[:, :-1]).double().mean()
    assert abs(neighbours - rate**2) < 5 * math.sqrt(rate**2 * (1 - rate**2)) / 1000


def test_dropout_draws_anew_each_time() -> None:
    torch.manual_seed(0)
    with CpuKernels():
        first, second = (functional.dropout(torch.ones(1000), 0.5) for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_in_place_and_out_of_training() -> None:
    values = torch.ones(100)
    with CpuKernels():
        assert functional.dropout(values, 0.5, training=False) is values
        assert functional.dropout(values, 0.0) is values
        assert functional.dropout(values, 0.5, inplace=True) is values
    assert set(values.tolist()) == {0.0, 2.0}


def test_gradient_of_dropout_is_its_mask() -> None:
    values = torch.ones(1000, requires_grad=True)
    dropped = fast_dropout(values, 0.3, 2)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_torchs(mask: str, scale: float | None) -> None:
    """With a rate so small that nothing is dropped (below 2^-17), where torch's may not be used."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    seen = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    seen[1, ..., 3:] = False
    given_mask = {
        "none": None,
        "boolean": seen,
        "additive": torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(~seen, -math.inf),
    }[mask]

    def run(rate: float) -> list[Tensor]:
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=given_mask, dropout_p=rate, scale=scale
        )
        return [found, *torch.autograd.grad(found.square().sum(), [query, key, value])]

    with CpuKernels():
        found = run(1e-6)
    for mine, theirs in zip(found, run(0.0), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_attention_drops_weights() -> None:
    """Uniform attention to ones sums the kept weights: their mean over many rows is 1."""
    query = torch.zeros(1, 1, 4000, 8)
    key, value = torch.zeros(1, 1, 50, 8), torch.ones(1, 1, 50, 8)
    torch.manual_seed(3)
    with CpuKernels():
        sums = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.2)[..., 0]
    assert 0.9 < sums.var() / (0.25 / 50) < 1.1
    assert abs(sums.mean() - 1) < 5 * math.sqrt(0.25 / 50 / 4000)


def test_embedding_gradient_is_sparse_then_dense() -> None:
    """Two passes through one table, one index padding: the dense gradient of torch."""
    table = nn.Embedding(50, 4, padding_idx=0, dtype=torch.float64)
    first, second = torch.tensor([[1, 2, 2, 0]]), torch.tensor([[2, 49, 0, 7]])

    def run() -> None:
        for ids in (first, second):
            (table(ids) * torch.arange(4.0, dtype=torch.float64)).square().sum().backward()

    run()
    wanted = table.weight.grad
    table.weight.grad = None
    with CpuKernels():
        run()
    assert table.weight.grad.is_sparse
    densify(table.parameters())
    assert not table.weight.grad.is_sparse
    assert torch.allclose(table.weight.grad, wanted, rtol=1e-14)


def test_densify_leaves_the_rest_alone() -> None:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad
    densify([*layer.parameters(), nn.Parameter(torch.ones(1))])
    assert layer.weight.grad is before


needs_one_dnn = pytest.mark.skipif(not one_dnn_available(), reason="torch without oneDNN")


@needs_one_dnn
@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_linear_layers_of_inference(
    shape: list[int], width: int, height: int, bias: bool, seed: int
) -> None:
    """Torch's float64 result, within the rounding of sums of `width` float32 products."""
    torch.manual_seed(seed)
    layers = [nn.Linear(width, height, bias=bias), nn.Linear(width, height, bias=bias)]
    values = torch.randn(*shape, width)
    with torch.inference_mode(), InferenceKernels():
        found = [layer(values) for layer in layers for _ in range(2)]
    for layer, first, second in zip(layers, found[::2], found[1::2], strict=True):
        exact = layer.double()(values.double())
        assert torch.equal(first, second)
        assert first.shape == exact.shape
        assert torch.allclose(first.double(), exact, rtol=0, atol=1e-7 * width + 1e-6)


@needs_one_dnn
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(dtype: torch.dtype) -> None:
    layer, values = nn.Linear(5, 3, dtype=dtype), torch.randn(4, 5, dtype=dtype)
    with torch.inference_mode():
        wanted = layer(values)
        with InferenceKernels():
            assert torch.equal(layer(values), wanted)
        single = nn.Linear(5, 3)
        with torch.autocast("cpu", torch.bfloat16), InferenceKernels():
            assert single(values.float()).dtype == torch.bfloat16


class Block(nn.Module):
    """A feed-forward block as transformers writes BERT's."""

    def __init__(self, activation: str = "gelu") -> None:
        super().__init__()
        self.dense = nn.Linear(24, 40)
        self.intermediate_act_fn = ACT2FN[activation]

    def forward(self, values: Tensor) -> Tensor:
        return self.intermediate_act_fn(self.dense(values))


class Residual(Block):
    """One whose linear layer is read by more than the GELU: it has a part more."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(40)

    def forward(self, values: Tensor) -> Tensor:
        inner = self.dense(values)
        return self.norm(inner + self.intermediate_act_fn(inner))


@needs_one_dnn
@pytest.mark.parametrize(
    ("block", "fused"), [(Block(), True), (Block("gelu_new"), False), (Residual(), False)]
)
def test_the_gelu_of_a_feed_forward_block_is_computed_with_its_linear_layer(
    block: Block, fused: bool
) -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 24)
    with torch.inference_mode():
        wanted = block(values)
        with profile(activities=[ProfilerActivity.CPU]) as seen, InferenceKernels(block):
            found, again = block(values), block(values)
    names = {event.key for event in seen.key_averages()}
    assert "mkldnn::_linear_pointwise" in names
    assert not fused or "aten::gelu" not in names
    assert torch.equal(found, again)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
    assert [id(w) for w in before_gelu(block)] == ([id(block.dense.weight)] if fused else [])
