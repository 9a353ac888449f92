"""What the model eats at each step: a batch's masks and this worker's tokens of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.batch import Batches, load_negatives, shard
from trainables.data.cache import Cache
from trainables.data.collections import Texts, open_collection
from trainables.data.labels import training_stages
from trainables.data.sources import training_ref
from trainables.data.tokenize import tokenize
from trainables.model.losses import LOSSES
from trainables.model.objective import StepInputs
from trainables.prepare.negatives import miner_name, needs_negatives
from trainables.spec import TrialSpec
from trainables.tokens import Tokens

EXTRAS = ("source", "true", "known", "hard")
"""Masks of a batch that only the diagnostics read."""


class Feed:
    """Step inputs as a function of the step, the worker and the number of workers.

    Reads what `prepare` left in the cache. Raises InvalidInput when the spec and the collection
    contradict each other.
    """

    def __init__(self, spec: TrialSpec, cache: Cache, tokenizer_path: str) -> None:
        data, encoder = spec.data, spec.encoder
        collection = open_collection(training_ref(data).collection, cache)
        negatives = None
        if needs_negatives(data):
            negatives = load_negatives(collection, data, cache, miner_name(data))
        stages = training_stages(collection, data, spec.seed, cache)
        self.batches = Batches(stages, negatives, spec, LOSSES[spec.loss.name].reads)

        def tokens(texts: Texts, prefix: str, length: int) -> Tokens:
            return tokenize(texts, tokenizer_path, prefix, length, cache, texts.fingerprint)

        self.queries = tokens(collection.queries, encoder.query_prefix, encoder.query_length)
        self.passages = tokens(collection.passages, encoder.passage_prefix, encoder.passage_length)

    def stage_span(self, step: int) -> tuple[int, int]:
        """First and last step, the last excluded, of the stage that `step` belongs to."""
        edges = (*self.batches.stage_starts, self.batches.total_steps)
        stage = self.batches.stage_of(step)
        return edges[stage], edges[stage + 1]

    def inputs(self, step: int, rank: int, world_size: int) -> StepInputs:
        """The share of worker `rank` in the batch of `step`."""
        batch = self.batches.batch(step)
        shares = shard(
            _lengths(self.queries, batch.query_rows),
            _lengths(self.passages, batch.passage_rows),
            world_size,
        )
        own = batch.view(shares.queries[rank], shares.columns)
        return StepInputs(
            queries=self.queries.take(own.query_rows),
            passages=self.passages.take(batch.passage_rows[shares.passages[rank]]),
            query_counts=shares.query_counts,
            passage_counts=shares.passage_counts,
            positive=torch.from_numpy(own.positive),
            candidate=torch.from_numpy(own.candidate),
            extras={name: torch.from_numpy(getattr(own, name)) for name in EXTRAS},
        )


def _lengths(tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return tokens.offsets[rows + 1] - tokens.offsets[rows]
