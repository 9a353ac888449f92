"""The equations. Each loss maps (logits[Q, P], positive[Q, P] bool) to one loss per query [Q].

Logits s are scores divided by the temperature. An entry that is neither a positive nor a negative
holds -inf. P are a query's positives, N its negatives: the other finite entries. The first line of
each docstring is the equation; all but JointLH are computed as log(1 + e^gap), the same number,
which loses no digits when it is small. With one positive all losses are equal. A query without
positives has loss 0 with gradient 0, on the graph. Half precision is widened to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

INF = float("inf")


def joint_lh(logits: Tensor, positive: Tensor, normalize: bool = True) -> Tensor:
    """sum_P (log sum_{P+N} e^s - s_p), divided by |P| when `normalize`

    Wants its positives level: one that holds more than 1/|P| of the mass is pushed down, so
    raising a positive can raise this loss.
    """
    logits = widen(logits)
    total = (_log_sum(logits)[:, None] - logits).masked_fill(~positive, 0.0).sum(-1)
    return total / positive.sum(-1).clamp(min=1) if normalize else total


def sum_marg_lh(logits: Tensor, positive: Tensor) -> Tensor:
    """log sum_{P+N} e^s - log sum_P e^s

    Pulls each positive in proportion to e^s: the strongest most.
    """
    logits = widen(logits)
    gap = _log_sum(_only(logits, ~positive)) - _log_sum(_only(logits, positive))
    return _log1p_exp(gap, positive)


def lse_pair(
    logits: Tensor,
    positive: Tensor,
    positives: Literal["all", "min", "max"] = "all",
    negatives: Literal["all", "max"] = "all",
) -> Tensor:
    """log(1 + sum_P sum_N e^(s_n - s_p))

    Pulls each positive in proportion to e^-s: the weakest most. `positives` keeps all of them, the
    weakest (`min`) or the strongest (`max`); `negatives` all of them or the strongest (`max`).
    """
    logits = widen(logits)
    push = _OVER[negatives](_only(logits, ~positive))
    if positives == "max":
        return _log1p_exp(push - _largest(_only(logits, positive)), positive)
    pull = {"all": _log_sum, "min": _largest}[positives](_only(-logits, positive))
    return _log1p_exp(push + pull, positive)


def cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """log sum_{P+N} e^s - s_p, for the one positive p that is read

    The batch offers one positive per query; the query's other positives are no candidates.
    """
    return sum_marg_lh(logits, positive)


def widen(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 where they already are: half precision overflows."""
    return values.float() if values.element_size() < 4 else values


def _only(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -INF)


def _log_sum(logits: Tensor) -> Tensor:
    """log sum e^s of each row; of an empty one -inf, whose gradient is 0 where torch's is NaN."""
    empty = (logits == -INF).all(-1)
    return logits.masked_fill(empty[:, None], 0.0).logsumexp(-1).masked_fill(empty, -INF)


def _largest(logits: Tensor) -> Tensor:
    """The largest entry of each row, -inf of an empty one; ties share the gradient."""
    return logits.amax(-1)


def _log1p_exp(gap: Tensor, positive: Tensor) -> Tensor:
    """log(1 + e^gap); 0 without gradient for a row without positives, whatever its gap."""
    return gap.masked_fill(~positive.any(-1), -INF).logaddexp(gap.new_zeros(()))


_OVER: Mapping[str, Callable[[Tensor], Tensor]] = {"all": _log_sum, "max": _largest}


@dataclass(frozen=True)
class Loss:
    """One line of the registry: the equation, which positives it reads, and where it is from."""

    fn: Callable[..., Tensor]
    reads: Literal["best", "drawn", "all"]
    """The best-ranked positive, one drawn afresh each epoch, or all."""
    summary: str
    source: str
    params: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Legal values of each keyword of `fn`, whose default is the trial's."""

    @property
    def equation(self) -> str:
        """The loss of one query, as plain text."""
        return (self.fn.__doc__ or "").partition("\n")[0]


_EMNLP = "EMNLP 2025, arXiv 2504.05220"
_KDD = "KDD 2026, arXiv 2602.12727"

LOSSES: dict[str, Loss] = {
    "single_lh": Loss(cross_entropy, "best", "pulls the best-ranked positive alone", _EMNLP),
    "rand1_lh": Loss(cross_entropy, "drawn", "pulls one positive, drawn anew each epoch", _EMNLP),
    "joint_lh": Loss(
        joint_lh,
        "all",
        "wants every positive level with the others",
        _EMNLP,
        {"normalize": (True, False)},
    ),
    "sum_marg_lh": Loss(sum_marg_lh, "all", "is content with one strong positive", _EMNLP),
    "lse_pair": Loss(
        lse_pair,
        "all",
        "lifts the weakest positive over the strongest negative",
        _KDD,
        {"positives": ("all", "min", "max"), "negatives": ("all", "max")},
    ),
}
