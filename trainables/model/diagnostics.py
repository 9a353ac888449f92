"""Where the gradient goes: which positives pull, which negatives push, and what theory predicts.

G = dL/dlogits [Q, P] says all of it. A positive with G < 0 is pulled up by -G; one with G > 0 is
pushed down, which only JointLH does. A negative is pushed down by G. Every metric is a ratio of
two sums over queries, so that workers add their sums and divide once. It costs a few operations on
[Q, P], against the encoder's thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.model.losses import INF, LOSSES
from trainables.spec import LossSpec, Scalar

_STRENGTHS = ("strongest", "second", "third", "fourth")
SOURCES = {"human": 0, "machine": 1}

METRICS: dict[str, str] = {
    **{
        f"grad/{name}_rank_{rank}": f"share of a query's pull that its {which} positive {gets}"
        for name, gets in (("pull", "gets"), ("predicted", "should get by its score"))
        for rank, which in [*enumerate(_STRENGTHS, 1), ("last", "weakest")]
    },
    "grad/prediction_gap": "largest difference between a query's pull shares and those predicted",
    "grad/effective_positives": "positives that share a query's pull, as exp(entropy)",
    "grad/effective_negatives": "negatives that share a query's push, as exp(entropy)",
    "grad/positives_down": "share of the gradient on positives that pushes them down",
    "grad/pull_human": "share of all pull on human positives",
    "grad/pull_machine": "share of all pull on machine positives",
    "grad/positives_machine": "share of the positives that are machine positives",
    "grad/pull_wrong": "share of all pull on positives known to be wrong",
    "grad/positives_wrong": "share of the positives that are known to be wrong",
    "grad/push_hard": "share of all push on hard negatives",
    "grad/push_known": "share of all push that known positives get, or would get if not masked",
    "grad/negatives_known": "share of the negatives, unmasked, that are known positives",
    "grad/known_per_query": "known positives per query that are, or would be, negatives",
}
"""What each metric says. Queries count by their gradient: one that is solved says nothing. Those of
ranks, `prediction_gap` and `effective_positives` are over the queries with several positives, or,
for a loss that reads one, over all with a positive."""

Measures = dict[str, Tensor]
"""Metric name to tensor [2]: a numerator and a denominator, both sums over queries."""


@dataclass(frozen=True)
class Scored:
    """One worker's queries after the backward pass of the loss; every tensor is [Q, P]."""

    logits: Tensor
    gradient: Tensor
    """dL/dlogits."""
    positive: Tensor
    candidate: Tensor
    extras: Mapping[str, Tensor]

    @property
    def pull(self) -> Tensor:
        """How strongly each positive is pulled up; 0 elsewhere."""
        return _within(-self.gradient, self.positive)

    @property
    def push(self) -> Tensor:
        """How strongly each negative is pushed down; 0 elsewhere."""
        return _within(self.gradient, self.candidate & ~self.positive)


def measure(loss: LossSpec, scored: Scored) -> Measures:
    """This worker's part of every metric but those of known positives.

    `source`, `true` and `hard` are read from the extras where they are there.
    """
    pull, push, positive, extras = scored.pull, scored.push, scored.positive, scored.extras
    down = _within(scored.gradient, positive)
    measures = _by_rank(loss, scored)
    measures["grad/effective_negatives"] = _mean(_effective(push), push.sum(-1))
    measures["grad/positives_down"] = ratio(down, down + pull)
    if "source" in extras:
        for name, code in SOURCES.items():
            measures[f"grad/pull_{name}"] = _part(pull, extras["source"] == code)
        measures["grad/positives_machine"] = _part(positive, extras["source"] == SOURCES["machine"])
    if "true" in extras:
        measures["grad/pull_wrong"] = _part(pull, ~extras["true"])
        measures["grad/positives_wrong"] = _part(positive, ~extras["true"])
    if "hard" in extras:
        measures["grad/push_hard"] = _part(push, extras["hard"])
    return measures


def measure_known(scored: Scored) -> Measures:
    """This worker's part of the false-negative meter.

    Known positives that were not drawn must be candidates in `scored`, whatever the training mask.
    """
    answerable = scored.positive.any(-1)
    negative = scored.candidate & ~scored.positive & answerable[:, None]
    known = scored.extras["known"]
    return {
        "grad/push_known": _part(scored.push, known),
        "grad/negatives_known": _part(negative, known),
        "grad/known_per_query": ratio(negative & known, answerable),
    }


def ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """The measure whose numerator and denominator are the sums of `top` and of `bottom`."""
    return torch.stack([top.sum(dtype=torch.float32), bottom.sum(dtype=torch.float32)])


def ratios(measures: Measures) -> dict[str, float]:
    """The metrics of summed measures; one whose denominator is 0 has no value and is left out."""
    rows = torch.stack([*measures.values()]).tolist()
    pairs = zip(measures, rows, strict=True)
    return {name: top / bottom for name, (top, bottom) in pairs if bottom != 0}


def pull_shares(pull: Tensor) -> Tensor:
    """Each entry's share of its row's pull [Q, P]; a row without pull stays 0."""
    whole = pull.sum(-1, keepdim=True)
    return pull / whole.masked_fill(whole == 0, 1.0)


def predicted_shares(loss: LossSpec, logits: Tensor, positive: Tensor) -> Tensor:
    """Share of a query's pull that each of its positives gets according to theory [Q, P].

    From the scores alone: SumMargLH, and a loss of one positive, e^s; LSEPair e^-s, or all on the
    weakest or strongest when it reads one; JointLH 1/|P| - softmax(s), where positive.
    """
    pull = _PREDICTED[loss.name](logits, positive, loss.params)
    return pull_shares(_within(pull, positive))


def _by_rank(loss: LossSpec, scored: Scored) -> Measures:
    """Pull by score rank, practice and theory, over the queries with several positives, or over
    all where the loss reads one."""
    logits, positive, pull = scored.logits, scored.positive, scored.pull
    least = 2 if LOSSES[loss.name].reads == "all" else 1
    weight = pull.sum(-1).masked_fill(positive.sum(-1) < least, 0.0)
    practice, theory = pull_shares(pull), predicted_shares(loss, logits, positive)
    held = logits.masked_fill(~positive, -INF)
    order = torch.argsort(held, stable=True, dim=-1, descending=True)
    last = (positive.sum(-1, keepdim=True) - 1).clamp(min=0)
    measures = {}
    for name, share in (("pull", practice), ("predicted", theory)):
        ranked = share.gather(-1, order)
        for rank in range(min(len(_STRENGTHS), ranked.shape[-1])):
            measures[f"grad/{name}_rank_{rank + 1}"] = _mean(ranked[:, rank], weight)
        weakest = ranked.gather(-1, last).squeeze(-1)
        measures[f"grad/{name}_rank_last"] = _mean(weakest, weight)
    measures["grad/prediction_gap"] = _mean((practice - theory).abs().amax(-1), weight)
    measures["grad/effective_positives"] = _mean(_effective(pull), weight)
    return measures


def _effective(mass: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(pull_shares(mass)).sum(-1)
    return entropy.exp()


def _within(values: Tensor, mask: Tensor) -> Tensor:
    return values.clamp(min=0.0).masked_fill(~mask, 0.0)


def _part(values: Tensor, mask: Tensor) -> Tensor:
    return ratio(values.masked_fill(~mask, 0), values)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return ratio(values * weight, weight)


def _softmax(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -INF).softmax(-1).masked_fill(~mask, 0.0)


def _extreme(logits: Tensor, positive: Tensor) -> Tensor:
    held = logits.masked_fill(~positive, -INF)
    return (held == held.amax(-1, keepdim=True)).to(logits.dtype)


def _sum_marg(logits: Tensor, positive: Tensor, params: Mapping[str, Scalar]) -> Tensor:
    return _softmax(logits, positive)


def _joint(logits: Tensor, positive: Tensor, params: Mapping[str, Scalar]) -> Tensor:
    level = 1.0 / positive.sum(-1, keepdim=True, dtype=logits.dtype).clamp(min=1)
    return level - _softmax(logits, logits > -INF)


def _lse_pair(logits: Tensor, positive: Tensor, params: Mapping[str, Scalar]) -> Tensor:
    which = params.get("positives", "all")
    if which == "all":
        return _softmax(-logits, positive)
    return _extreme(logits if which == "max" else -logits, positive)


_PREDICTED: dict[str, Callable[[Tensor, Tensor, Mapping[str, Scalar]], Tensor]] = {
    "single_lh": _sum_marg,
    "rand1_lh": _sum_marg,
    "joint_lh": _joint,
    "sum_marg_lh": _sum_marg,
    "lse_pair": _lse_pair,
}
