"""Vectors to scores to logits to loss to mean, and one training step over all workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainables.model import diagnostics
from trainables.model.collectives import gather_rows, rank, sum_gradients, sum_own_rows, total
from trainables.model.cpu import densify
from trainables.model.diagnostics import Measures, Scored
from trainables.model.gradcache import represent
from trainables.model.losses import INF, LOSSES, widen
from trainables.spec import LossSpec
from trainables.tokens import Tokens

if TYPE_CHECKING:
    from trainables.model.encoder import Encoder


@dataclass(frozen=True)
class Objective:
    """The loss of a batch as a function of its vectors."""

    loss: LossSpec

    def logits(self, queries: Tensor, passages: Tensor, candidate: Tensor) -> Tensor:
        """Dot products over the temperature [Q, P]; -inf where a passage is no `candidate`.

        `queries` [Q, D] and `passages` [P, D] are widened to float32, also under autocast.
        """
        with torch.autocast(queries.device.type, enabled=False):
            scores = widen(queries) @ widen(passages).T
            logits = scores / self.loss.temperature
        return logits.masked_fill(~candidate, -INF)

    def per_query(self, logits: Tensor, positive: Tensor) -> Tensor:
        """The loss of each query [Q]; 0 for one without a positive, which no mean should count."""
        with torch.autocast(logits.device.type, enabled=False):
            return LOSSES[self.loss.name].fn(logits, positive, **self.loss.params)


@dataclass(frozen=True)
class StepInputs:
    """One worker's share of a global batch: Ql of its queries, and all P of its passages.

    Every unique passage of the batch is encoded by one worker and serves all of them. Columns of
    the masks are the passages of worker 0, then those of worker 1, and so on. A share may be empty.
    Raises ValueError when the shapes contradict each other.
    """

    queries: Tokens
    passages: Tokens
    query_counts: tuple[int, ...]
    """Queries of each worker."""
    passage_counts: tuple[int, ...]
    """Passages of each worker; P in all."""
    positive: Tensor
    """bool [Ql, P]"""
    candidate: Tensor
    """bool [Ql, P]: the positives and the negatives."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """[Ql, P] each, read by diagnostics alone: `source`, `true`, `known`, `hard`."""

    def __post_init__(self) -> None:
        shape = (len(self.queries), sum(self.passage_counts))
        named = {"positive": self.positive, "candidate": self.candidate, **self.extras}
        for name, mask in named.items():
            if tuple(mask.shape) != shape:
                raise ValueError(f"{name} must be {shape}, queries x passages, not {mask.shape}")
        if shape[1] == 0:
            raise ValueError("a step needs at least one passage")
        if bool((self.positive & ~self.candidate).any()):
            raise ValueError("every positive must be a candidate")

    def check_share(self, worker: int) -> None:
        """Raise ValueError unless this is the share of `worker` that the counts announce."""
        held = (len(self.queries), len(self.passages))
        announced = (self.query_counts[worker], self.passage_counts[worker])
        if held != announced:
            raise ValueError(f"worker {worker} holds {held} texts, its counts say {announced}")


@dataclass(frozen=True)
class StepResult:
    """What one step over all workers was; the same on each of them."""

    loss: float
    """Mean over the queries with a positive; 0 when there are none."""
    queries: int
    without_positive: int
    """Those of `queries` that have no positive: no loss, no gradient, no part in the mean."""
    shares: dict[str, float]
    """Where the gradient went; see `trainables.model.diagnostics`."""


def training_step(
    encoder: Encoder, inputs: StepInputs, objective: Objective, chunk_size: int | None
) -> StepResult:
    """Leave the gradient of the global batch's mean loss in `.grad`, the same on every worker.

    Earlier gradients are dropped, and every trainable parameter has one afterwards. The mean is
    over the queries with a positive, of all workers. `chunk_size` texts at a time keep their
    activations, or all at once (null); the gradient is the same. Workers are those of the default
    process group. The scale factor between workers is 1.0: see `trainables.model.collectives`.
    """
    inputs.check_share(rank())
    encoder.zero_grad(set_to_none=True)
    device = encoder.device
    answerable = total(inputs.positive.any(-1).sum().to(device))
    queries = represent(encoder, inputs.queries, "query", chunk_size)
    passages = represent(encoder, inputs.passages, "passage", chunk_size)
    everywhere = gather_rows(passages.vectors, inputs.passage_counts)
    own = queries.vectors.requires_grad_()
    everywhere.requires_grad_()
    measures = _differentiate(objective, own, everywhere, inputs, answerable)
    queries.backward(_gradient(own))
    passages.backward(sum_own_rows(_gradient(everywhere), inputs.passage_counts))
    densify(encoder.parameters())
    sum_gradients(encoder.parameters())
    totals = total(torch.stack([*measures.values()]))
    ratios = diagnostics.ratios(dict(zip(measures, totals, strict=True)))
    number = sum(inputs.query_counts)
    return StepResult(ratios.pop("loss", 0.0), number, number - int(answerable), ratios)


def _differentiate(
    objective: Objective, queries: Tensor, passages: Tensor, inputs: StepInputs, answerable: Tensor
) -> Measures:
    """Differentiate this worker's part of the mean loss; its measures, ready to be summed."""
    device = queries.device
    positive, candidate = inputs.positive.to(device), inputs.candidate.to(device)
    extras = {name: values.to(device) for name, values in inputs.extras.items()}
    count = answerable.clamp(min=1)
    logits = objective.logits(queries, passages, candidate)
    logits.retain_grad()
    losses = objective.per_query(logits, positive)
    torch.autograd.backward(losses.sum() / count)
    scored = Scored(logits.detach(), _gradient(logits), positive, candidate, extras)
    measures = {"loss": diagnostics.ratio(losses.detach(), positive.any(-1))}
    measures |= diagnostics.measure(objective.loss, scored)
    if "known" in extras:
        measures |= diagnostics.measure_known(
            _unmasked(objective, queries, passages, scored, count)
        )
    return measures


def _unmasked(
    objective: Objective, queries: Tensor, passages: Tensor, scored: Scored, count: Tensor
) -> Scored:
    """`scored` as it would be if known positives that were not drawn stood among the negatives."""
    candidate = scored.candidate | scored.extras["known"]
    logits = objective.logits(queries.detach(), passages.detach(), candidate).requires_grad_()
    torch.autograd.backward(objective.per_query(logits, scored.positive).sum() / count)
    return Scored(logits.detach(), _gradient(logits), scored.positive, candidate, scored.extras)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
