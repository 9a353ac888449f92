"""An encoder is judged: encode, search and score in one streaming pass over each collection.

The passages are cut into chunks that depend on the collection's size alone. A chunk is tokenised
once for all trials, encoded sorted by length, searched and dropped, so memory does not grow with
the collection. Workers of a process group take the chunks in turn and merge what they found; the
same chunks make the same vectors, so k workers report what one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Ref
from trainables.data.tokenize import tokenize, tokenize_texts
from trainables.evaluation.embeddings import Embeddings
from trainables.evaluation.lexical import bm25
from trainables.evaluation.metrics import DEFAULT_METRICS, DEPTH, parse_metrics
from trainables.evaluation.questions import Questions, by_collection
from trainables.evaluation.results import Run, Scores, rejudge, write_scores
from trainables.evaluation.search import Engine, Search
from trainables.evaluation.topk import EMPTY, Ints, best, pack, unpack
from trainables.model.collectives import rank, total, world_size
from trainables.model.encoder import Encoder, Precision
from trainables.tokens import Tokens

__all__ = [
    "Run",
    "Scores",
    "bm25",
    "encode_passages",
    "encode_queries",
    "evaluate",
    "evaluate_within",
    "rejudge",
    "write_scores",
]

CHUNKS = 8
SMALLEST_CHUNK = 256
LARGEST_CHUNK = {"cpu": 1024, "cuda": 8192}
"""Passages of a chunk: enough to sort by length, few enough to show progress and to share."""

Progress = Callable[[int, int], None]


def evaluate(
    encoder: Encoder,
    refs: Sequence[Ref],
    cache: Cache,
    *,
    depth: int = DEPTH,
    metrics: Sequence[str] = DEFAULT_METRICS,
    engine: Engine = "torch",
    precision: Precision = "float32",
    progress: Progress | None = None,
    keep_embeddings: bool = False,
) -> list[Scores]:
    """Scores of `encoder` on each of `refs`, in their order, from its best `depth` passages.

    `precision` is that of the encoder's forward pass; scores are float32 inner products. In a
    process group every worker must call it and gets the same result. `progress(done, total)`
    counts passages over all collections, up to the end of the chunk that this worker is through
    with. Empty passages are encoded like any other. Kept embeddings are read where there are any;
    `keep_embeddings` leaves them for the next evaluation.

    Raises InvalidInput for unknown metrics, collections or splits, FloatingPointError when the
    encoder's vectors are not finite, MetricMismatch when a value differs from pytrec_eval's.
    """
    chosen = parse_metrics(metrics, depth)
    groups = by_collection(refs, cache)
    size = sum(len(questions.collection.passages) for _, questions in groups)
    kept = Embeddings(encoder, cache, precision, keep_embeddings)
    start = 0
    results: dict[int, Scores] = {}
    with encoder.inference(precision):
        for places, questions in groups:
            search = Search(
                _encode_queries(encoder, questions, kept), depth, questions.own_rows, engine
            )
            told = None if progress is None else partial(_tell, progress, start, size)
            passages = partial(encode_passages, encoder, questions.collection, cache, kept=kept)
            keys = _fed(search, passages, encoder.device, told)
            results |= zip(places, questions.scores(keys, chosen), strict=True)
            start += len(questions.collection.passages)
    return [results[place] for place in range(len(refs))]


def evaluate_within(
    encoder: Encoder,
    ref: Ref,
    rows: Ints,
    cache: Cache,
    *,
    depth: int = DEPTH,
    metrics: Sequence[str] = DEFAULT_METRICS,
    precision: Precision = "float32",
) -> Scores:
    """Scores of `encoder` on `ref` when only the passages at the ascending `rows` are searched.

    They are labelled `Ref.part_label`, since they are higher than those of a full search.
    """
    chosen = parse_metrics(metrics, depth)
    ((_, questions),) = by_collection([ref], cache)
    place = np.minimum(np.searchsorted(rows, questions.own_rows), len(rows) - 1)
    own = np.where(rows[place] == questions.own_rows, place, -1)
    with encoder.inference(precision):
        search = Search(_encode_queries(encoder, questions), depth, own)
        passages = partial(encode_passages, encoder, questions.collection, cache, within=rows)
        keys = _fed(search, passages, encoder.device)
    places, values = unpack(keys)
    found = np.where(keys == EMPTY, EMPTY, pack(values, rows[places]))
    (scores,) = questions.scores(found, chosen)
    return replace(scores, ref=ref.part_label(len(rows)))


def encode_passages(
    encoder: Encoder,
    collection: Collection,
    cache: Cache,
    worker: int = 0,
    workers: int = 1,
    within: Ints | None = None,
    kept: Embeddings | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """Vectors [C, D] of a worker's chunks of the passages, each with the place of its first one.

    The place is the passage's row, or its place in `within`, the rows that alone are encoded.
    """
    settings, texts = encoder.settings, collection.passages

    @lru_cache(maxsize=1)
    def tokens() -> Tokens:
        prefix, length = settings.passage_prefix, settings.passage_length
        return tokenize(texts, encoder.tokenizer_path, prefix, length, cache, texts.fingerprint)

    def encoded(start: int, stop: int) -> Tensor:
        if within is not None:
            return encoder.encode(tokens().take(within[start:stop]), "passage")
        part = Tokens(tokens().ids, tokens().offsets[start : stop + 1])
        return encoder.encode(part, "passage")

    count = len(texts) if within is None else len(within)
    for start, stop in _chunks(count, encoder.device.type)[worker::workers]:
        encode = partial(encoded, start, stop)
        if kept is None:
            yield encode(), start
        else:
            yield kept.chunk(texts, "passage", np.arange(start, stop), encode), start


def encode_queries(encoder: Encoder, texts: list[str]) -> Tensor:
    """Vectors [len(texts), D] of queries."""
    settings = encoder.settings
    tokens = tokenize_texts(
        texts, encoder.tokenizer_path, settings.query_prefix, settings.query_length
    )
    return encoder.encode(tokens, "query")


def _encode_queries(
    encoder: Encoder, questions: Questions, kept: Embeddings | None = None
) -> Tensor:
    """Vectors [S, D] of the searches; each worker encodes a share of the distinct queries."""
    rows, place = np.unique(questions.query_rows, return_inverse=True)
    queries = questions.collection.queries
    vectors = torch.zeros(len(rows), encoder.dimension, device=encoder.device)
    for start, stop in _chunks(len(rows), encoder.device.type)[rank() :: world_size()]:
        part = rows[start:stop]
        encode = partial(encode_queries, encoder, queries.text(part))
        found = encode() if kept is None else kept.chunk(queries, "query", part, encode)
        vectors[start:stop] = found
    return total(vectors)[torch.from_numpy(place).to(encoder.device)]


def _fed(
    search: Search,
    passages: Callable[..., Iterator[tuple[Tensor, int]]],
    device: torch.device,
    told: Callable[[int], None] | None = None,
) -> Ints:
    """The keys of what all workers found in `passages`, of which each takes a share."""
    for vectors, first in passages(worker=rank(), workers=world_size()):
        search.add(vectors, first)
        if told is not None:
            told(first + len(vectors))
    return _merged(search.result(), device)


def _tell(progress: Progress, before: int, size: int, done: int) -> None:
    progress(before + done, size)


def _chunks(count: int, device: str) -> list[tuple[int, int]]:
    """Spans [start, stop) that cover `count` rows."""
    largest = LARGEST_CHUNK.get(device, LARGEST_CHUNK["cuda"])
    size = min(max(-(-count // CHUNKS), SMALLEST_CHUNK), largest)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _merged(keys: Ints, device: torch.device) -> Ints:
    """The best of what all workers found; the same on each of them."""
    if world_size() == 1:
        return keys
    result = keys
    carrier = device if dist.get_backend() == "nccl" else torch.device("cpu")
    for sender in range(world_size()):
        sent = torch.from_numpy(keys.copy()).to(carrier)
        dist.broadcast(sent, sender)
        if sender != rank():
            both = np.concatenate([result, sent.cpu().numpy()], axis=1)
            result = best(both, keys.shape[1])
    return result
