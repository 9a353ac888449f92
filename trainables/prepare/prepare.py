"""Everything that a trial will read is made ready before it starts, once for all trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from trainables.data.agreement import Agreement
from trainables.data.cache import Cache
from trainables.data.collections import Ref, Texts, open_collection
from trainables.data.sources import machine_source, training_ref
from trainables.data.tokenize import tokenize
from trainables.model.encoder import resolve_backbone
from trainables.prepare.annotate import ensure_labels
from trainables.prepare.negatives import ensure_negatives
from trainables.spec import EncoderSpec, TrialSpec

StageProgress = Callable[[str, int, int], None]
"""Told the stage's name, what is done and the total."""


@dataclass(frozen=True)
class Mined:
    """How many hard negatives were mined."""

    queries: int
    per_query: float
    without: int
    """Queries for which none is left."""


@dataclass(frozen=True)
class Prepared:
    """What a trial will read."""

    collection: str
    fingerprint: str
    passages: int
    queries: int
    passage_tokens: int
    query_tokens: int
    agreements: tuple[Agreement, ...]
    """Of every label source in use beside the split's own judgements."""
    negatives: Mined | None


def prepare(spec: TrialSpec, cache: Cache, progress: StageProgress | None = None) -> Prepared:
    """Make what `spec` will read: collection, machine labels, hard negatives, tokens.

    What is there already is not made again, and of several processes that call it one makes and
    the others wait. Raises InvalidInput when the spec asks for what cannot be had.
    """
    ref = training_ref(spec.data)
    collection = open_collection(ref.collection, cache)
    wanted = {} if spec.data.human_labels == "qrels" else {spec.data.human_labels: ref.min_grade}
    machine = machine_source(spec.data, ref)
    if machine is not None:
        wanted[machine[0]] = machine[1]
    agreements = tuple(
        ensure_labels(collection, source, cache, _told(progress, "labels"), ref.min_grade, least)
        for source, least in wanted.items()
    )
    told = _told(progress, "negatives")
    negatives = ensure_negatives(collection, spec.data, cache, progress=told)
    counts = np.empty(0) if negatives is None else np.diff(negatives.offsets)
    return Prepared(
        collection=collection.name,
        fingerprint=collection.fingerprint,
        passages=len(collection.passages),
        queries=len(collection.queries),
        passage_tokens=_tokens(collection.passages, spec.encoder, "passage", cache),
        query_tokens=_tokens(collection.queries, spec.encoder, "query", cache),
        agreements=agreements,
        negatives=None if negatives is None else _mined(counts),
    )


def ensure_judges(refs: Sequence[Ref], cache: Cache) -> None:
    """Make the label sources that judge `refs`, where an annotator makes them and has not yet.

    Raises InvalidInput for a source that there is not.
    """
    for ref in refs:
        for judge in ref.judges:
            ensure_labels(open_collection(ref.collection, cache), judge.source, cache)


def _mined(counts: np.ndarray) -> Mined:
    mean = float(counts.mean()) if len(counts) else 0.0
    return Mined(len(counts), mean, int(np.count_nonzero(counts == 0)))


def _tokens(texts: Texts, settings: EncoderSpec, role: str, cache: Cache) -> int:
    prefix, length = getattr(settings, f"{role}_prefix"), getattr(settings, f"{role}_length")
    source = resolve_backbone(settings.backbone)
    return len(tokenize(texts, source, prefix, length, cache, texts.fingerprint).ids)


def _told(progress: StageProgress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, stage)
