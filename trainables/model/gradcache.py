"""The same gradient in less memory.

A loss over a batch needs all vectors at once, but not all activations. So the vectors are computed
first, the loss is differentiated down to them, and their gradient is carried into the parameters
afterwards: through the kept activations, or (the gradient cache, Gao et al. 2021, arXiv 2101.06983)
by encoding one chunk at a time again. Memory then grows with the chunk, not with the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.tokens import Tokens

if TYPE_CHECKING:
    from trainables.model.encoder import Encoder, Role


@dataclass(frozen=True)
class Represented:
    """Vectors of N texts, cut from the graph, and the way from their gradient to the parameters."""

    vectors: Tensor
    """[N, D], in the order of the texts."""
    backward: Callable[[Tensor], None]
    """Adds the gradient of the parameters, given that of `vectors` [N, D]. Called at most once."""


def represent(encoder: Encoder, tokens: Tokens, role: Role, chunk_size: int | None) -> Represented:
    """Encode `tokens`, keeping all activations (null) or those of `chunk_size` texts at a time."""
    if chunk_size is None:
        vectors = encoder.encode(tokens, role)
        return Represented(vectors.detach(), lambda gradient: _backward(vectors, gradient))
    chunks = _chunks(tokens, chunk_size)
    states: list[list[Tensor]] = []
    parts = []
    with torch.no_grad():
        for rows in chunks:
            states.append(_random_state(encoder.device))
            parts.append(encoder.encode(tokens.take(rows), role))
    order = np.concatenate([*chunks, np.empty(0, dtype=np.int64)])
    stacked = torch.cat(parts) if parts else encoder.encode(tokens, role)
    vectors = stacked[torch.from_numpy(np.argsort(order)).to(stacked.device)]

    def backward(gradient: Tensor) -> None:
        # Some versions of torch go on using weights that autocast cast while no graph was kept.
        torch.clear_autocast_cache()
        for rows, state in zip(chunks, states, strict=True):
            with _replay(state, encoder.device):
                again = encoder.encode(tokens.take(rows), role)
            _backward(again, gradient[torch.from_numpy(rows).to(gradient.device)])

    return Represented(vectors, backward)


def _chunks(tokens: Tokens, size: int) -> list[NDArray[np.int64]]:
    """Rows of `tokens`, `size` at a time, the longest texts first: a chunk's lengths are alike."""
    order = np.argsort(-tokens.lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def _backward(vectors: Tensor, gradient: Tensor) -> None:
    if vectors.requires_grad:
        torch.autograd.backward(vectors, gradient)


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


@contextmanager
def _replay(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Random numbers as they were when `states` was taken (dropout), then as they are now."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield
