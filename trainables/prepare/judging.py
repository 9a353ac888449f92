"""Blocks of work for an annotator's model, done here or by others, each kept as soon as it is done.

A verdict on a pair is never asked for twice: neither after an interruption, nor for another source
of the same model, whatever found the pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.cache import JSON, Cache, digest
from trainables.data.collections import Collection, Texts
from trainables.data.sources import Pairs
from trainables.data.tokenize import tokenize_texts
from trainables.model.backbones import PREFIX
from trainables.model.encoder import Encoder, Role
from trainables.prepare.annotators import (
    Annotator,
    BiEncoder,
    CausalLM,
    PairAnnotator,
    encoder_key,
    judge_key,
)
from trainables.prepare.judges import (
    CausalJudge,
    CrossEncoderJudge,
    Judge,
    Verdicts,
    load_model,
    load_prompt,
)
from trainables.prepare.pools import Progress, accelerator
from trainables.spec import EncoderSpec

BLOCK = 256
"""Pairs judged between two savings: what an interruption can cost each worker."""

TEXTS = 2048
"""Texts that a bi-encoder encodes between two savings."""

VERDICTS_KIND = "verdicts"
"""Kind of cache folder that keeps verdicts; below it stands a folder for each model."""

VECTORS_KIND = "vectors"
"""Kind of cache folder that keeps a bi-encoder's vectors."""

Ints = NDArray[np.int64]
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Block:
    """Texts to work on: pairs (queries[i], passages[i]); for a bi-encoder either of the two alone,
    of which it makes vectors."""

    number: int
    queries: list[str]
    passages: list[str]


Judging = Callable[[Annotator, Iterable[Block]], Iterator[tuple[int, Arrays]]]
"""Does blocks in any order; gives each one's number with its grades int16[M] and scores
float32[M], or for a bi-encoder with its texts' vectors float32[M, D]."""


class Worker:
    """Does blocks with the model of an annotator, which it loads when the first one comes."""

    def __init__(self, annotator: Annotator, threads: int | None = None) -> None:
        """`threads` is for processes of their own; None leaves torch as it is."""
        self.annotator = annotator
        self._work: Callable[[Block], Arrays] | None = None
        if threads is not None:
            torch.set_num_threads(threads)

    def work(self, block: Block) -> tuple[int, Arrays]:
        """The block's number and its arrays. Raises InvalidInput when the model is unfit."""
        if self._work is None:
            self._work = _opened(self.annotator)
        return block.number, self._work(block)


class Here:
    """The Judging of this very process: one model at a time."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def __call__(
        self, annotator: Annotator, blocks: Iterable[Block]
    ) -> Iterator[tuple[int, Arrays]]:
        """The blocks' arrays, in their order."""
        for block in blocks:
            if self._worker is None or self._worker.annotator != annotator:
                self._worker = Worker(annotator)
            yield self._worker.work(block)


def open_encoder(annotator: BiEncoder) -> Encoder:
    """The model of a bi-encoder with the annotator's lengths, pooled as its folder says."""
    lengths = {
        "query_length": annotator.query_length,
        "passage_length": annotator.passage_length,
    }
    if annotator.model.startswith(PREFIX):
        settings = EncoderSpec.model_validate({"backbone": annotator.model, **lengths})
        return Encoder.load(settings, seed=0).to(accelerator())
    return Encoder.from_folder(annotator.model, lengths).to(accelerator())


def verdicts_on(
    collection: Collection,
    annotator: PairAnnotator,
    pairs: Pairs,
    cache: Cache,
    judging: Judging,
    progress: Progress | None,
) -> Verdicts:
    """The verdicts on all pairs; only those that no earlier call has left are asked for.

    `progress` counts pairs.
    """
    kind = _kind(collection, annotator)
    missing = ~_known(cache, kind, pairs.keys())[0]
    done = len(pairs) - int(missing.sum())
    parts = {
        start: start + np.flatnonzero(missing[start : start + BLOCK])
        for start in range(0, len(pairs), BLOCK)
    }
    blocks = (
        Block(
            start,
            collection.queries.text(pairs.query_rows[rows]),
            collection.passages.text(pairs.passage_rows[rows]),
        )
        for start, rows in parts.items()
        if len(rows)
    )
    for start, (grades, scores) in judging(annotator, blocks):
        keys = pairs.take(parts[start]).keys()
        key: dict[str, JSON] = {"pairs": _mark(keys)}
        _save(cache, kind, key, {"pairs": keys, "grades": grades, "scores": scores})
        done += len(keys)
        if progress is not None:
            progress(done, len(pairs))
    _, grades, scores = _known(cache, kind, pairs.keys())
    return Verdicts(grades, scores)


def count_missing(
    collection: Collection, annotator: PairAnnotator, pairs: Pairs, cache: Cache
) -> int:
    """On how many of the pairs no earlier call has left a verdict."""
    known = _known(cache, _kind(collection, annotator), pairs.keys())[0]
    return int(np.count_nonzero(~known))


def encoded(
    texts: Texts,
    rows: Ints,
    role: Role,
    annotator: BiEncoder,
    cache: Cache,
    judging: Judging,
    progress: Progress | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """Vectors [C, D] of the texts at `rows`, part after part, each with the place of its first.

    Only parts that no earlier call has left are encoded; `progress` counts texts.
    """
    parts = {start: rows[start : start + TEXTS] for start in range(0, len(rows), TEXTS)}
    keys: dict[int, dict[str, JSON]] = {
        start: {
            "encoder": encoder_key(annotator),
            "role": role,
            "texts": texts.fingerprint,
            "rows": _mark(part),
        }
        for start, part in parts.items()
    }
    folders = {start: cache.find(VECTORS_KIND, key) for start, key in keys.items()}
    missing = [start for start, folder in folders.items() if folder is None]
    done = len(rows) - sum(len(parts[start]) for start in missing)
    blocks = (_of_role(start, role, texts.text(parts[start])) for start in missing)
    for start, (vectors,) in judging(annotator, blocks):
        folders[start] = _save(cache, VECTORS_KIND, keys[start], {"vectors": vectors})
        done += len(vectors)
        if progress is not None:
            progress(done, len(rows))
    for start, folder in folders.items():
        if folder is not None:
            yield torch.from_numpy(np.load(folder / "vectors.npy")).to(accelerator()), start


def _opened(annotator: Annotator) -> Callable[[Block], Arrays]:
    """What an annotator's model does with a block; the model is loaded here."""
    if isinstance(annotator, BiEncoder):
        encoder = open_encoder(annotator)
        return lambda block: (_vectors(encoder, block),)
    judge: Judge
    if isinstance(annotator, CausalLM):
        prompt = load_prompt(annotator.prompt)
        judge = CausalJudge(*load_model(annotator.model, "AutoModelForCausalLM"), prompt)
    else:
        loaded = load_model(annotator.model, "AutoModelForSequenceClassification")
        judge = CrossEncoderJudge(*loaded, annotator.threshold, annotator.max_length)

    def judged(block: Block) -> Arrays:
        verdicts = judge.judge(block.queries, block.passages)
        return verdicts.grades, verdicts.scores

    return judged


def _vectors(encoder: Encoder, block: Block) -> NDArray[np.float32]:
    role: Role = "query" if block.queries else "passage"
    tokens = tokenize_texts(
        block.queries or block.passages,
        encoder.tokenizer_path,
        getattr(encoder.settings, f"{role}_prefix"),
        getattr(encoder.settings, f"{role}_length"),
    )
    with encoder.inference():
        vectors: NDArray[np.float32] = encoder.encode(tokens, role).float().cpu().numpy()
    return vectors


def _of_role(number: int, role: Role, texts: list[str]) -> Block:
    return Block(number, texts, []) if role == "query" else Block(number, [], texts)


def _kind(collection: Collection, annotator: PairAnnotator) -> str:
    """Where the verdicts of a model on a collection's pairs lie."""
    whose: dict[str, JSON] = {"judge": judge_key(annotator), "collection": collection.fingerprint}
    return f"{VERDICTS_KIND}/{digest(whose)}"


def _known(
    cache: Cache, kind: str, keys: Ints
) -> tuple[NDArray[np.bool_], NDArray[np.int16], NDArray[np.float32]]:
    """Which pairs have a verdict, and their grades and scores (0 without one)."""
    folders = cache.finished(kind)
    pairs, grades, scores = (
        np.concatenate([np.empty(0, dtype), *(np.load(f / f"{name}.npy") for f in folders)])
        for name, dtype in (("pairs", np.int64), ("grades", np.int16), ("scores", np.float32))
    )
    order = np.argsort(pairs, kind="stable")
    places = np.searchsorted(pairs[order], keys)
    known = places < len(pairs)
    known[known] = pairs[order[places[known]]] == keys[known]
    chosen = order[places[known]]
    found_grades, found_scores = np.zeros(len(keys), np.int16), np.zeros(len(keys), np.float32)
    found_grades[known], found_scores[known] = grades[chosen], scores[chosen]
    return known, found_grades, found_scores


def _mark(rows: Ints) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _save(cache: Cache, kind: str, key: dict[str, JSON], arrays: dict[str, NDArray[Any]]) -> Path:
    def make(folder: Path) -> None:
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)

    return cache.folder(kind, key, make)
