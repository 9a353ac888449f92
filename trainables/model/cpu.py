"""What torch does slowly on a CPU, done faster.

In training (`CpuKernels`):

- Dropout. torch draws masks one number at a time on one core, about 10 ns each, and its fused
  attention knows no dropout there. Here masks come from 16-bit numbers of a fast generator, which
  torch's own generator seeds: a random state that is saved and restored makes the same masks.
- Embeddings. Each backward pass through an embedding fills a gradient as large as its table, though
  few rows of it were read. Here the gradient is sparse until `densify`.

In inference (`InferenceKernels`):

- Linear layers. torch copies the bias into the result and has MKL add the product, for which the
  weights are laid out anew each time. Here oneDNN adds the bias, to weights laid out once, and
  applies the GELU of a feed-forward block before the result leaves the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEVELS = 1 << 16
"""Dropout rates are rounded to multiples of 1 / LEVELS; what is kept is scaled accordingly."""


class CpuKernels(TorchFunctionMode):
    """While it is entered, calls on CPU tensors that this module does faster are done by it."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch for each of its functions."""
        replacement = _REPLACEMENTS.get(func)
        if replacement is not None and args and args[0].device.type == "cpu":
            func = replacement
        return func(*args, **(kwargs or {}))


class InferenceKernels(TorchFunctionMode):
    """While it is entered, float32 linear layers on a CPU are computed by oneDNN.

    In the feed-forward blocks of `model` that `before_gelu` knows, the layer's GELU is computed
    with it. Results differ from torch's in the last bits. No gradient flows, and weights must not
    change meanwhile. Autocast and other types are left to torch.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self._layouts: dict[int, tuple[Tensor, Tensor]] = {}
        self._before_gelu = {} if model is None else {id(w): w for w in before_gelu(model)}
        self._activated: Tensor | None = None

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch for each of its functions."""
        if func is functional.linear and _plain(args) and not torch.is_autocast_enabled("cpu"):
            return self._linear(*args, **(kwargs or {}))
        if func is functional.gelu and self._activated is not None:
            activated, self._activated = self._activated, None
            if activated is (args or tuple((kwargs or {}).values()))[0]:
                return activated
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # The weight is kept beside its layout, so that its id cannot become another tensor's.
        if id(weight) not in self._layouts:
            layout = torch.ops.mkldnn._reorder_linear_weight(weight, None)
            self._layouts[id(weight)] = weight, layout
        layout = self._layouts[id(weight)][1]
        product = torch.ops.mkldnn._linear_pointwise
        if id(weight) not in self._before_gelu:
            return product(input, layout, bias, "none", [], "")  # type: ignore[no-any-return]
        self._activated = product(input, layout, bias, "gelu", [], "none")
        return self._activated


def one_dnn_available() -> bool:
    """Whether this build of torch has the operators that `InferenceKernels` calls."""
    present = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return present and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )


def before_gelu(model: nn.Module) -> list[Tensor]:
    """Weights of the linear layers whose result nothing but an exact GELU reads.

    Those of the feed-forward blocks of BERT and its kin, as transformers writes them: a `dense`
    layer, its `intermediate_act_fn`, and nothing else.
    """
    weights = []
    for block in model.modules():
        parts = dict(block.named_children())
        if set(parts) == {"dense", "intermediate_act_fn"}:
            dense, activation = parts["dense"], parts["intermediate_act_fn"]
            exact = getattr(activation, "act", None) is functional.gelu
            if exact and type(dense) is nn.Linear and not dense._forward_hooks:
                weights.append(dense.weight)
    return weights


def _plain(args: Sequence[Any]) -> bool:
    """Whether input and weight of a linear layer are what oneDNN is given here."""
    return (
        len(args) >= 2
        and args[1].dim() == 2
        and all(
            part.device.type == "cpu" and part.dtype == torch.float32 and part.numel() > 0
            for part in args[:2]
        )
    )


def densify(parameters: Iterable[nn.Parameter]) -> None:
    """Make the sparse gradients dense that an embedding left under `CpuKernels`."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`input` with each value 0 with probability `p`, else divided by 1 - p; as torch's."""
    if not training or p == 0.0:
        return input
    noise = _noise(input, p)
    return input.mul_(noise) if inplace else input * noise


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query key^T scale + mask) value, with dropout on the weights; as torch's.

    Without dropout, or with `is_causal` or `enable_gqa`, torch's own is used.
    """
    if dropout_p == 0.0 or is_causal or enable_gqa:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = (query * factor) @ key.transpose(-2, -1)
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -math.inf) if boolean else logits + attn_mask
    return dropout(logits.softmax(-1), dropout_p) @ value


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight`, with a sparse gradient; as torch's."""
    return functional.embedding(
        input,
        weight,
        padding_idx,
        max_norm,
        norm_type,
        scale_grad_by_freq,
        sparse or (max_norm is None and not scale_grad_by_freq),
    )


def _noise(like: Tensor, p: float) -> Tensor:
    """A tensor of `like`'s shape that is 0 with probability `p` and 1 / (1 - p) elsewhere."""
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return torch.zeros_like(like)
    seed = int(torch.randint(2**63 - 1, ()).item())
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    numbers = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    noise = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(numbers, dropped - LEVELS // 2, out=noise)
    return noise.mul_(LEVELS / (LEVELS - dropped))


_REPLACEMENTS = {
    functional.dropout: dropout,
    functional.scaled_dot_product_attention: attention,
    functional.embedding: embedding,
}
