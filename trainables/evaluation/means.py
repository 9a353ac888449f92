"""Means over the sets of BEIR, named by the sets that they average. Light: names and numbers only.

Each set counts once, as in Thakur et al. (NeurIPS Datasets and Benchmarks 2021), with its test
split (MS MARCO: dev). CQADupStack is one set: the mean over its twelve parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from trainables.data.collections.beir import CQADUPSTACK, SETS

PREFIX, PARTS = "beir/", "cqadupstack"
SPLITS = {"msmarco": "dev"}
"""The split that BEIR scores where it is not `test`."""

_PARTS = tuple(f"{PARTS}/{part}" for part in CQADUPSTACK)


def beir_sets(labels: Iterable[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Label of each mean -> the sets that it averages, each as the labels of its parts.

    Means are `beir/cqadupstack/test`, when all parts are among `labels`, and
    `beir/mean:<set>:<set>...` over the sets that are there, when they are two or more. Sets are
    recognised by their name, with or without `beir/`.
    """
    found: dict[str, str] = {}
    for label in labels:
        name, _, split = label.rpartition("/")
        if split == SPLITS.get(name.removeprefix(PREFIX), "test"):
            found[name.removeprefix(PREFIX)] = label
    sets: dict[str, tuple[str, ...]] = {name: (found[name],) for name in SETS if name in found}
    parts = tuple(found[name] for name in _PARTS if name in found)
    means: dict[str, tuple[tuple[str, ...], ...]] = {}
    if len(parts) == len(_PARTS):
        means[f"{PREFIX}{PARTS}/test"] = tuple((part,) for part in parts)
        sets[PARTS] = parts
    if len(sets) > 1:
        means[f"{PREFIX}mean:{':'.join(sorted(sets))}"] = tuple(sets.values())
    return means


def beir_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """The means of `beir_sets` by key, of each metric over the sets that have it.

    `metrics` is key -> value, such as `nq/test/ndcg_at_10` -> .52.
    """
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        label, _, metric = key.rpartition("/")
        found.setdefault(metric, {})[label] = value
    return {
        f"{label}/{metric}": _mean([_mean([values[part] for part in parts]) for parts in sets])
        for metric, values in found.items()
        for label, sets in beir_sets(values).items()
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
