"""The arithmetic of one trial: floating-point operations of its training and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ablate.plan.backbone import Shape, backbone_shape
from ablate.plan.graded import MOST_READ, at_least, best_grades
from ablate.plan.parts import Watch
from trainables.data.collections import COLLECTIONS, Ref, anywhere, parse_ref
from trainables.model.losses import LOSSES
from trainables.spec import Scalar

ASSUMED_POSITIVES = 4
"""Positives per query where the study keeps all and the labels are not counted."""

TYPICAL: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "pydocs": (5700, {"train": 3600, "dev": 500, "test": 960}),
    "pydocs/small": (1160, {"train": 710, "dev": 85, "test": 190}),
}
"""Passages, and queries by split, of collections whose size depends on what is installed."""

QUERIES: Mapping[str, Mapping[str, int]] = {
    "msmarco": {"train": 502_939, "dev": 6_980},
    "nq": {"test": 3_452},
    "nq/dpr": {"train": 58_880, "dev": 6_515},
    "beir/trec-covid": {"test": 50},
    "beir/nfcorpus": {"train": 2_590, "dev": 324, "test": 323},
    "beir/nq": {"test": 3_452},
    "beir/hotpotqa": {"train": 85_000, "dev": 5_447, "test": 7_405},
    "beir/fiqa": {"train": 5_500, "dev": 500, "test": 648},
    "beir/arguana": {"test": 1_406},
    "beir/webis-touche2020": {"test": 49},
    "beir/quora": {"dev": 5_000, "test": 10_000},
    "beir/dbpedia-entity": {"dev": 67, "test": 400},
    "beir/scidocs": {"test": 1_000},
    "beir/fever": {"train": 109_810, "dev": 6_666, "test": 6_666},
    "beir/climate-fever": {"test": 1_535},
    "beir/scifact": {"train": 809, "test": 300},
}
"""Judged queries by split, as the collections' authors state them (BEIR: table 1)."""

MOST_SCORES = 200
"""How often a trial scores what it watches at most: once in a row of its history."""

_SAMPLE = 1 << 20


@dataclass(frozen=True)
class Size:
    """Texts of a collection: passages, and judged queries by split as far as known."""

    passages: int
    queries: Mapping[str, int]
    graded: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """By split, where its judgements were read: best grade -> queries."""

    def scored(self, split: str, min_grade: int = 1) -> int | None:
        """Queries with a passage graded `min_grade` or better; None when that is not known."""
        if split in self.graded:
            return at_least(self.graded[split], min_grade)
        return self.queries.get(split) if min_grade == 1 else None


Sizes = Callable[[str], "Size | None"]


class UnknownCost(ValueError):
    """The arithmetic cannot be done; the message says what is not known."""


def trial_flops(flat: Mapping[str, Scalar], refs: Sequence[Ref], sizes: Sizes) -> float:
    """Operations of a trial: training, and encoding and searching for `refs`.

    Texts count with the lengths at which they are cut, so this is rather too much. Raises
    UnknownCost when the backbone's or a collection's size is not known.
    """
    return _training(flat, _shape(flat), sizes) + evaluation_flops(flat, refs, sizes)


def evaluation_flops(flat: Mapping[str, Scalar], refs: Sequence[Ref], sizes: Sizes) -> float:
    """Operations of encoding and searching for `refs`. Raises as `trial_flops`."""
    total, shape = 0.0, _shape(flat)
    for name in dict.fromkeys(ref.collection for ref in refs):
        counts = _counts([ref for ref in refs if ref.collection == name], sizes)
        total += _scoring(flat, shape, *counts)
    return total


def watch_flops(flat: Mapping[str, Scalar], watch: Watch, sizes: Sizes) -> float:
    """Operations of scoring what a trial watches, over its training. Raises as `trial_flops`."""
    queries, passages = _counts([watch.ref], sizes)
    one = _scoring(flat, _shape(flat), queries, watch.passages or passages)
    return one * scores_watched(flat, watch, sizes)


def steps_of(flat: Mapping[str, Scalar], sizes: Sizes) -> int:
    """Steps of a trial's training. Raises UnknownCost as `trial_flops`."""
    if flat["optim.steps"] is not None:
        return int(flat["optim.steps"])
    return math.ceil(_queries_trained(flat, sizes) / int(flat["optim.batch_size"] or 1))


def scores_watched(flat: Mapping[str, Scalar], watch: Watch, sizes: Sizes) -> int:
    """How often a trial scores what it watches."""
    return min(math.ceil(steps_of(flat, sizes) / watch.every), MOST_SCORES)


def passages_per_query(flat: Mapping[str, Scalar]) -> int:
    """Passages that a query brings into a batch, at most."""
    if flat["data.group_size"] is not None:
        return int(flat["data.group_size"])
    several = LOSSES[str(flat["loss.name"])].reads == "all"
    positives = int(flat["data.max_positives"] or ASSUMED_POSITIVES) if several else 1
    return positives + int(flat["data.hard_negatives"] or 0)


@lru_cache(maxsize=256)
def collection_size(name: str) -> Size | None:
    """The size of a collection: of a built-in one as registered, of a folder by a look at it."""
    if name in TYPICAL:
        return Size(*TYPICAL[name])
    if name in COLLECTIONS:
        expected = COLLECTIONS[name].expected
        if "passages" not in expected:
            return None
        return Size(expected["passages"], QUERIES.get(name, {}))
    folder = Path(anywhere(name)).expanduser()
    corpus = folder / "corpus.jsonl"
    if not corpus.is_file():
        return None
    files = (folder / "qrels").glob("*.tsv")
    small = [file for file in files if file.stat().st_size <= MOST_READ]
    graded = {file.stem: best_grades(file) for file in small}
    return Size(_lines(corpus), {name: at_least(each, 1) for name, each in graded.items()}, graded)


def _training(flat: Mapping[str, Scalar], shape: Shape, sizes: Sizes) -> float:
    passages = passages_per_query(flat)
    per_query = _text(flat, shape, "query") + passages * _text(flat, shape, "passage")
    passes = 3 if flat["optim.chunk_size"] is None else 4
    return passes * per_query * _queries_trained(flat, sizes)


def _queries_trained(flat: Mapping[str, Scalar], sizes: Sizes) -> float:
    if flat["optim.steps"] is not None:
        return float(flat["optim.steps"]) * float(flat["optim.batch_size"] or 1)
    ref = parse_ref(str(flat["data.train"]), "train")
    size = sizes(ref.collection)
    queries = None if size is None else size.scored(ref.split, ref.min_grade)
    if queries is None:
        raise UnknownCost(f"the number of queries in {ref} is not known here")
    return float(flat["optim.epochs"] or 0) * queries


def _counts(refs: Sequence[Ref], sizes: Sizes) -> tuple[int, int]:
    """Queries of the splits `refs` of one collection, as far as known, and its passages."""
    size = sizes(refs[0].collection)
    if size is None:
        raise UnknownCost(f"the number of passages in {refs[0].collection} is not known here")
    return sum(size.scored(ref.split, ref.min_grade) or 0 for ref in refs), size.passages


def _scoring(flat: Mapping[str, Scalar], shape: Shape, queries: int, passages: int) -> float:
    """Operations of encoding queries and passages, and of searching."""
    encoding = passages * _text(flat, shape, "passage") + queries * _text(flat, shape, "query")
    return encoding + 2.0 * queries * passages * shape.width


def _shape(flat: Mapping[str, Scalar]) -> Shape:
    """The backbone, without the layers that are left off."""
    shape = backbone_shape(str(flat["encoder.backbone"]))
    if shape is None:
        raise UnknownCost(f"the size of {flat['encoder.backbone']} is not known here")
    kept = flat["encoder.layers"]
    return replace(shape, layers=min(shape.layers, int(kept or shape.layers)))


def _text(flat: Mapping[str, Scalar], shape: Shape, role: str) -> float:
    """Operations of one text's forward pass."""
    length = int(flat[f"encoder.{role}_length"] or 0)
    return length * shape.flops_per_token(length)


def _lines(file: Path) -> int:
    """Lines of a file, from the lines of its first megabyte."""
    with file.open("rb") as opened:
        start = opened.read(_SAMPLE)
    size = file.stat().st_size
    if size <= _SAMPLE:
        return start.count(b"\n") + (not start.endswith(b"\n") and bool(start))
    return round(size * start.count(b"\n") / len(start))
