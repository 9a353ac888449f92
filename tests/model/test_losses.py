"""The contract of a loss, over every line of the registry."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.model import losses
from trainables.model.losses import INF, LOSSES

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (name, dict(zip(loss.params, values, strict=True)))
    for name, loss in LOSSES.items()
    for values in itertools.product(*loss.params.values())
]
"""Every loss with every combination of its parameters' legal values."""

NAMES = [f"{name}{sorted(params.items()) or ''}" for name, params in VARIANTS]
every_loss = pytest.mark.parametrize(("name", "params"), VARIANTS, ids=NAMES)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def apply(name: str, params: Mapping[str, Any], logits: Tensor, positive: Tensor) -> Tensor:
    return LOSSES[name].fn(logits, positive, **params)


def log_sum(values: list[float]) -> float:
    if not values:
        return -INF
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def naive(name: str, params: Mapping[str, Any], row: list[float], positive: list[bool]) -> float:
    """One query's loss by DESIGN's table, in plain Python."""
    up = [s for s, p in zip(row, positive, strict=True) if p]
    down = [s for s, p in zip(row, positive, strict=True) if not p and s > -INF]
    if not up:
        return 0.0
    if name == "joint_lh":
        total = math.fsum(log_sum(up + down) - s for s in up)
        return total / len(up) if params["normalize"] else total
    if name == "lse_pair":
        up = {"all": up, "min": [min(up)], "max": [max(up)]}[params["positives"]]
        down = [max(down)] if down and params["negatives"] == "max" else down
        return math.log1p(math.fsum(math.exp(n - p) for n in down for p in up))
    return log_sum(up + down) - log_sum(up)


def closed_form(
    name: str, params: Mapping[str, Any], row: list[float], positive: list[bool]
) -> list[float]:
    """dL/ds of one query by the closed forms of the papers."""
    up = [i for i, p in enumerate(positive) if p]
    down = [i for i, p in enumerate(positive) if not p and row[i] > -INF]
    gradient = [0.0] * len(row)
    if not up:
        return gradient
    everything = log_sum([row[i] for i in up + down])
    share = {i: math.exp(row[i] - everything) for i in up + down}
    if name == "joint_lh":
        m = len(up)
        for i in up + down:
            gradient[i] = m * share[i] - (i in up)
            gradient[i] /= m if params["normalize"] else 1
        return gradient
    if name == "lse_pair":
        up = {
            "all": up,
            "min": [min(up, key=lambda i: row[i])],
            "max": [max(up, key=lambda i: row[i])],
        }[params["positives"]]
        if down and params["negatives"] == "max":
            down = [max(down, key=lambda i: row[i])]
        log_n, log_b = log_sum([row[i] for i in down]), log_sum([-row[i] for i in up])
        sigma = 1.0 / (1.0 + math.exp(-log_n - log_b)) if down else 0.0
        for i in up:
            gradient[i] = -sigma * math.exp(-row[i] - log_b)
        for i in down:
            gradient[i] = sigma * math.exp(row[i] - log_n)
        return gradient
    log_a = log_sum([row[i] for i in up])
    rest = math.fsum(share[i] for i in down)
    for i in up:
        gradient[i] = -rest * math.exp(row[i] - log_a)
    for i in down:
        gradient[i] = share[i]
    return gradient


def batch(
    seed: int, queries: int = 7, passages: int = 9, scale: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Logits with non-candidates and masks; row 0 has no positive, row 1 no negative, row 2 one."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(queries, passages, generator=generator, dtype=torch.float64) * scale
    positive = torch.rand(queries, passages, generator=generator) < 0.35
    candidate = positive | (torch.rand(queries, passages, generator=generator) < 0.7)
    positive[0] = False
    positive[1, :3], candidate[1] = True, positive[1]
    candidate[1, :3] = True
    positive[2], candidate[2] = False, True
    positive[2, 4] = True
    return logits.masked_fill(~candidate, -INF), positive


def gradient(name: str, params: Mapping[str, Any], logits: Tensor, positive: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(apply(name, params, leaf, positive).sum(), leaf)
    return found


def test_the_registry_is_complete() -> None:
    assert set(LOSSES) == {"single_lh", "rand1_lh", "joint_lh", "sum_marg_lh", "lse_pair"}
    assert len(VARIANTS) == 3 + 2 + 6
    for loss in LOSSES.values():
        assert loss.summary
        assert loss.source
        assert "sum" in loss.equation
        assert "\n" not in loss.equation


def test_the_page_is_short_and_needs_no_torch() -> None:
    page = Path(losses.__file__)
    assert len(page.read_text(encoding="utf-8").splitlines()) < 150
    names = ", ".join(f"trainables.model.{name}" for name in ("losses", "backbones", "layout"))
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert done.returncode == 0


@every_loss
@pytest.mark.parametrize("seed", range(5))
def test_values_and_gradients_are_those_of_plain_loops(
    name: str, params: dict[str, Any], seed: int
) -> None:
    logits, positive = batch(seed)
    values, slopes = apply(name, params, logits, positive), gradient(name, params, logits, positive)
    assert values.shape == (len(logits),)
    for row, mask, value, slope in zip(
        logits.tolist(), positive.tolist(), values.tolist(), slopes.tolist(), strict=True
    ):
        assert value == pytest.approx(naive(name, params, row, mask), rel=1e-9, abs=1e-12)
        assert slope == pytest.approx(closed_form(name, params, row, mask), rel=1e-9, abs=1e-12)


@every_loss
def test_gradients_are_those_of_finite_differences(name: str, params: dict[str, Any]) -> None:
    logits, positive = batch(11)
    candidate = logits > -INF
    dense = logits.masked_fill(~candidate, 0.0).requires_grad_()

    def loss(values: Tensor) -> Tensor:
        return apply(name, params, values.masked_fill(~candidate, -INF), positive)

    assert torch.autograd.gradcheck(loss, (dense,), eps=1e-5, atol=1e-7, rtol=1e-7)
    step = 1e-3
    slopes = gradient(name, params, logits, positive)
    for column in range(logits.shape[1]):
        nudge = torch.zeros_like(logits)
        nudge[:, column] = step
        points = [apply(name, params, logits + k * nudge, positive) for k in (-2, -1, 1, 2)]
        central = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * step)
        assert torch.allclose(central, slopes[:, column], rtol=0, atol=1e-9)


score_rows = st.lists(st.floats(-30, 30), min_size=2, max_size=8)


@given(score_rows, st.data())
@settings(max_examples=60, deadline=None)
def test_with_one_positive_all_are_cross_entropy(row: list[float], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(row) - 1))
    logits = torch.tensor([row], dtype=torch.float64)
    positive = torch.zeros(1, len(row), dtype=torch.bool)
    positive[0, target] = True
    leaf = logits.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(leaf, torch.tensor([target]))
    (slope,) = torch.autograd.grad(wanted, leaf)
    checked = 0
    for name, params in VARIANTS:
        if params.get("negatives") == "max" and len(row) > 2:
            continue
        value = apply(name, params, logits, positive)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-9, abs=1e-12)
        assert torch.allclose(gradient(name, params, logits, positive), slope, rtol=0, atol=1e-9)
        checked += 1
    assert checked >= 8


@every_loss
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50))
@settings(max_examples=15, deadline=None)
def test_shifts_and_permutations_change_nothing(
    name: str, params: dict[str, Any], seed: int, shift: float
) -> None:
    logits, positive = batch(seed)
    values, slopes = apply(name, params, logits, positive), gradient(name, params, logits, positive)
    shifts = shift * torch.linspace(-1, 1, len(logits), dtype=torch.float64)[:, None]
    assert torch.allclose(apply(name, params, logits + shifts, positive), values, atol=1e-9)
    assert torch.allclose(gradient(name, params, logits + shifts, positive), slopes, atol=1e-9)
    assert slopes.sum(-1).abs().max() < 1e-12
    columns = torch.randperm(logits.shape[1], generator=torch.Generator().manual_seed(seed))
    moved, mask = logits[:, columns], positive[:, columns]
    assert torch.allclose(apply(name, params, moved, mask), values, atol=1e-12)
    assert torch.allclose(gradient(name, params, moved, mask), slopes[:, columns], atol=1e-12)


@every_loss
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_loss_is_negative_and_a_raised_negative_never_lowers_it(
    name: str, params: dict[str, Any], seed: int
) -> None:
    logits, positive = batch(seed)
    values = apply(name, params, logits, positive)
    assert (values >= 0).all()
    negative = ~positive & (logits > -INF)
    for column in range(logits.shape[1]):
        raised = logits.clone()
        raised[:, column] += negative[:, column] * 1.5
        assert (apply(name, params, raised, positive) >= values - 1e-12).all()


@every_loss
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_everything_is_finite(
    name: str, params: dict[str, Any], dtype: torch.dtype, size: float
) -> None:
    corners = [size, -size, 0.0, size / 2]
    orders = torch.tensor(list(itertools.permutations(corners)), dtype=torch.float64)
    rows = [(order, positives) for positives in range(5) for order in orders]
    logits = torch.stack([order for order, _ in rows] * 2)
    positive = torch.stack([torch.arange(4) < positives for _, positives in rows] * 2)
    logits[len(rows) :, 3].masked_fill_(~positive[len(rows) :, 3], -INF)
    leaf = logits.to(dtype).requires_grad_()
    values = apply(name, params, leaf, positive)
    values.sum().backward()
    assert values.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision_is_that_of_its_inputs(
    name: str, params: dict[str, Any], dtype: torch.dtype
) -> None:
    logits, positive = batch(5)
    rounded = logits.to(dtype)
    values = apply(name, params, rounded, positive)
    assert values.dtype == torch.float32
    exact = apply(name, params, rounded.double(), positive)
    assert torch.allclose(values.double(), exact, rtol=1e-5, atol=1e-6)
    slopes = gradient(name, params, rounded, positive)
    assert slopes.dtype == dtype
    wide = gradient(name, params, rounded.double(), positive)
    assert torch.allclose(slopes.double(), wide, rtol=1e-2, atol=1e-6)


@every_loss
def test_a_query_without_positives_is_a_zero_on_the_graph(
    name: str, params: dict[str, Any]
) -> None:
    logits = torch.tensor([[1.0, 2.0, -3.0], [5.0, -INF, 0.0], [-INF] * 3], requires_grad=True)
    values = apply(name, params, logits, torch.zeros(3, 3, dtype=torch.bool))
    assert values.tolist() == [0.0] * 3
    assert values.grad_fn is not None
    values.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0] * 3] * 3
    empty = torch.zeros(0, 3, requires_grad=True)
    nothing = apply(name, params, empty, torch.zeros(0, 3, dtype=torch.bool))
    assert nothing.shape == (0,)
    nothing.sum().backward()


@every_loss
def test_a_query_without_negatives_has_what_the_equation_says(
    name: str, params: dict[str, Any]
) -> None:
    row = [2.0, -1.0, -INF]
    logits = torch.tensor([row], dtype=torch.float64)
    value = apply(name, params, logits, torch.tensor([[True, True, False]])).item()
    if name == "joint_lh":
        assert value == pytest.approx(naive(name, params, row, [True, True, False]), rel=1e-12)
        assert value > 1.0
    else:
        assert value == 0.0


@every_loss
def test_faults_in_the_logits_are_not_hidden(name: str, params: dict[str, Any]) -> None:
    logits = torch.tensor([[1.0, float("nan"), 0.0], [1.0, 2.0, 0.0]])
    positive = torch.tensor([[True, False, False], [True, False, False]])
    values = apply(name, params, logits, positive)
    assert values[0].isnan()
    assert values[1].isfinite()


def test_a_small_loss_keeps_its_digits() -> None:
    logits = torch.tensor([[30.0, 0.0]])
    positive = torch.tensor([[True, False]])
    for name in ("single_lh", "sum_marg_lh", "lse_pair"):
        assert apply(name, {}, logits, positive).item() == pytest.approx(math.exp(-30), rel=1e-6)


def test_joint_lh_pushes_a_strong_positive_down() -> None:
    logits = torch.tensor([[5.0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    positive = torch.tensor([[True] * 4 + [False] * 4])
    slopes = gradient("joint_lh", {"normalize": False}, logits, positive)
    assert slopes[0, 0].item() == pytest.approx(2.82, abs=0.005)
    assert gradient("sum_marg_lh", {}, logits, positive)[0, 0] < 0
    assert gradient("lse_pair", {}, logits, positive)[0, 0] < 0


@pytest.mark.parametrize(
    ("temperature", "share"), [(1.0, 0.29), (0.1, 0.64), (0.05, 0.865), (0.02, 0.99)]
)
def test_sum_marg_lh_favours_the_strongest_and_lse_pair_the_weakest(
    temperature: float, share: float
) -> None:
    cosines = torch.tensor([[0.8, 0.7, 0.6, 0.5, 0.6, 0.4]], dtype=torch.float64)
    positive = torch.tensor([[True] * 4 + [False] * 2])
    for name, favoured in (("sum_marg_lh", 0), ("lse_pair", 3)):
        pull = -gradient(name, {}, cosines / temperature, positive)[0, :4]
        assert (pull[favoured] / pull.sum()).item() == pytest.approx(share, abs=0.005)
        assert pull.argmax().item() == favoured


def test_tied_extremes_share_the_gradient() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    positive = torch.tensor([[True, True, False, False]])
    slopes = gradient("lse_pair", {"positives": "min", "negatives": "max"}, logits, positive)
    assert slopes[0, 0] == slopes[0, 1] < 0
    assert slopes[0, 2] == slopes[0, 3] > 0
