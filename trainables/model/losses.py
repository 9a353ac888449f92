"""The equations. Each loss maps (logits[Q, P], positive[Q, P] bool) to one loss per query [Q].

Logits are scores divided by the temperature. A column that is neither a positive nor a negative
of a row holds -inf there. With P the positives, N the other finite columns and s the logits, every
equation stands above its loss. With one positive per row all five are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def _log_sum(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, float("-inf")).logsumexp(-1)


def cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """log sum_{P+N} e^s - s_p, for the one positive that is read."""
    return logits.logsumexp(-1) - _log_sum(logits, positive)


def joint_lh(logits: Tensor, positive: Tensor, normalize: bool = True) -> Tensor:
    """sum_P (log sum_{P+N} e^s - s_p), divided by |P| when `normalize`."""
    terms = logits.logsumexp(-1, keepdim=True) - logits
    total = terms.masked_fill(~positive, 0.0).sum(-1)
    return total / positive.sum(-1).clamp(min=1) if normalize else total


def sum_marg_lh(logits: Tensor, positive: Tensor) -> Tensor:
    """log sum_{P+N} e^s - log sum_P e^s."""
    return logits.logsumexp(-1) - _log_sum(logits, positive)


def lse_pair(
    logits: Tensor, positive: Tensor, positives: str = "all", negatives: str = "all"
) -> Tensor:
    """log(1 + sum_P sum_N e^(s_n - s_p))."""
    hard = _log_sum(logits, ~positive)
    weak = _log_sum(-logits, positive)
    return (hard + weak).logaddexp(logits.new_zeros(()))


@dataclass(frozen=True)
class Loss:
    """One line of the registry: the equation, which positives it reads, and its parameters."""

    fn: Callable[..., Tensor]
    reads: Literal["best", "drawn", "all"]
    params: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    source: str = ""


LOSSES: dict[str, Loss] = {
    "single_lh": Loss(cross_entropy, "best"),
    "rand1_lh": Loss(cross_entropy, "drawn"),
    "joint_lh": Loss(joint_lh, "all", {"normalize": (True, False)}),
    "sum_marg_lh": Loss(sum_marg_lh, "all"),
    "lse_pair": Loss(
        lse_pair, "all", {"positives": ("all", "min", "max"), "negatives": ("all", "max")}
    ),
}
