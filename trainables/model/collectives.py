"""What workers exchange, and the one scale factor: 1.0.

The loss of a step is a sum over the queries of all workers divided by a count over all workers.
Each worker differentiates its own queries' part of that sum, so what is missing is always a SUM:

- a passage's vector enters every worker's part, so its gradient is the sum of theirs (the backward
  of a gather is a sum, scattered to the owners of the rows);
- a parameter serves every worker's texts, so its gradient is the sum of theirs.

The mean over workers that data-parallel wrappers take would divide by their number once more.
Hence gradients are summed, and nothing is multiplied: k workers give the gradient of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 32 * 2**20
"""Gradients travel in flat buckets of about this size: few messages, little extra memory."""


def world_size() -> int:
    """Number of workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This worker's place among them; 0 outside a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of all workers [sum(counts), D] in the order of their ranks, outside the graph.

    Worker r contributes `counts[r]` rows, possibly none. They are padded to one length on the
    way, because a gather refuses unequal sizes.
    """
    if world_size() == 1:
        return rows.detach()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def sum_own_rows(gradient: Tensor, counts: Sequence[int]) -> Tensor:
    """This worker's rows [counts[rank], D] of the sum of all workers' `gradient` [sum(counts), D].

    The backward of `gather_rows`.
    """
    own = rank()
    start = sum(counts[:own])
    return total(gradient)[start : start + counts[own]]


def total(values: Tensor) -> Tensor:
    """The sum of all workers' `values`, which keep their own."""
    if world_size() == 1:
        return values
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def from_first(value: str | None) -> str | None:
    """What worker 0 holds, on every worker."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every trainable parameter's gradient by its sum over the workers.

    A parameter that this worker's texts did not reach takes part with zeros: it may have been
    reached elsewhere, and every worker must send the same buckets. One worker does likewise, so
    that an optimiser treats such a parameter alike however many workers there are.
    """
    gradients = []
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    if world_size() == 1:
        return
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`tensors` in order, cut where the type changes or BUCKET_BYTES is passed."""
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if bucket and (filled + size > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += size
    if bucket:
        yield bucket
