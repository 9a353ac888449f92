"""Global batches for the tests of a training step, and one worker of a gloo group that trains on
them: `python workers.py RANK BACKBONE FOLDER`, started once per rank by test_distributed.py."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from trainables.model import collectives
from trainables.model.encoder import Encoder
from trainables.model.losses import LOSSES
from trainables.model.objective import Objective, StepInputs, StepResult, training_step
from trainables.spec import EncoderSpec, LossSpec
from trainables.tokens import Tokens

LARGEST = 3
WORLDS = (3, 2)
SHARES: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {
    1: [((6,), (11,)), ((6,), (11,)), ((2,), (5,))],
    2: [((4, 2), (6, 5)), ((6, 0), (4, 7)), ((1, 1), (0, 5))],
    3: [((2, 3, 1), (4, 4, 3)), ((0, 4, 2), (5, 0, 6)), ((1, 1, 0), (2, 1, 2))],
}
"""Queries and passages of each worker at each step, by the number of workers; the last is short."""


class Case(NamedTuple):
    """One training run that must be the same on any number of workers."""

    name: str
    params: dict[str, Any]
    chunk_size: int | None
    tied: bool
    dtype: torch.dtype


class Outcome(NamedTuple):
    """What a run left behind."""

    parameters: torch.Tensor
    first_gradient: torch.Tensor
    moved: torch.Tensor
    results: list[StepResult]


def cases() -> Iterator[Case]:
    """Every loss plain and chunked in float32; every parameter in float64; untied towers."""
    for name, loss in LOSSES.items():
        for chunk_size in (None, 3):
            yield Case(name, {}, chunk_size, True, torch.float32)
        for index, values in enumerate(itertools.product(*loss.params.values())):
            params = dict(zip(loss.params, values, strict=True))
            yield Case(name, params, 3 if index % 2 else None, True, torch.float64)
    yield Case("lse_pair", {}, None, False, torch.float32)
    yield Case("joint_lh", {}, 3, False, torch.float64)


def random_tokens(rng: np.random.Generator, number: int, longest: int = 14) -> Tokens:
    """Texts of 2 to `longest` tokens of the tiny backbone's vocabulary."""
    lengths = rng.integers(2, longest + 1, number)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(rng.integers(5, 100, offsets[-1]).astype(np.int32), offsets)


def global_batch(seed: int, queries: int, passages: int) -> StepInputs:
    """The batch as one worker sees it: several positives, query 0 none, query 1 no negatives."""
    rng = np.random.default_rng(seed)
    shape = (queries, passages)
    positive = torch.from_numpy(rng.random(shape) < 0.3)
    candidate = torch.from_numpy(rng.random(shape) < 0.8) | positive
    positive[0] = False
    positive[1:, 0] = True
    candidate |= positive
    candidate[1] = positive[1]
    known = positive | ~candidate
    extras = {
        "source": torch.from_numpy(rng.integers(0, 2, shape)).masked_fill(~positive, -1),
        "true": torch.from_numpy(rng.random(shape) < 0.7) & positive,
        "known": known,
        "hard": torch.from_numpy(rng.random(shape) < 0.3) & candidate & ~positive,
    }
    return StepInputs(
        random_tokens(rng, queries),
        random_tokens(rng, passages),
        (queries,),
        (passages,),
        positive,
        candidate,
        extras,
    )


def share(
    whole: StepInputs, queries: tuple[int, ...], passages: tuple[int, ...], rank: int
) -> StepInputs:
    """Worker `rank`'s share of a one-worker batch."""
    first, width = sum(queries[:rank]), queries[rank]
    rows = slice(first, first + width)
    start = sum(passages[:rank])
    return StepInputs(
        whole.queries.take(np.arange(first, first + width)),
        whole.passages.take(np.arange(start, start + passages[rank])),
        queries,
        passages,
        whole.positive[rows],
        whole.candidate[rows],
        {name: values[rows] for name, values in whole.extras.items()},
    )


def build(backbone: str, tied: bool = True, dropout: float = 0.0, **settings: Any) -> Encoder:
    """A training encoder over the tiny backbone."""
    spec = EncoderSpec(backbone=backbone, tied=tied, dropout=dropout, **settings)
    return Encoder.load(spec, seed=0).train()


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """All values in one double vector."""
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def train(backbone: str, case: Case, world: int, rank: int) -> Outcome:
    """Three AdamW steps on this worker's shares."""
    encoder = build(backbone, case.tied).to(case.dtype)
    before = flat(list(encoder.parameters()))
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    objective = Objective(LossSpec(name=case.name, temperature=0.1, params=case.params))
    results, first = [], torch.empty(0)
    for step, (queries, passages) in enumerate(SHARES[world]):
        whole = global_batch(step, sum(queries), sum(passages))
        mine = share(whole, queries, passages, rank)
        results.append(training_step(encoder, mine, objective, case.chunk_size))
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        assert len(gradients) == len(list(encoder.parameters()))
        if step == 0:
            first = flat(gradients)
        optimiser.step()
    after = flat(list(encoder.parameters()))
    return Outcome(after, first, after - before, results)


def main(rank: int, backbone: str, folder: Path) -> None:
    """Train every case in a group of each size of WORLDS that has this rank."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            # Two workers send many buckets, three send one.
            collectives.BUCKET_BYTES = 4096 if world == 2 else 2**25
            address = f"file://{folder / f'meet{world}'}"
            dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
            outcomes = [train(backbone, case, world, rank)._asdict() for case in cases()]
            torch.save(outcomes, folder / f"outcomes-{world}-{rank}.pt")
            dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
