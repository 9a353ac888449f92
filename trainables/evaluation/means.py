"""Means over the sets of BEIR, named by the sets that they average. Light: names and numbers only.

Each set counts once, as in Thakur et al. (NeurIPS Datasets and Benchmarks 2021), with its test
split (MS MARCO: dev). CQADupStack is one set: the mean over its twelve parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainables.data.collections.beir import CQADUPSTACK, SETS

PREFIX, PARTS = "beir/", "cqadupstack"
SPLITS = {"msmarco": "dev"}
"""The split that BEIR scores where it is not `test`."""


def beir_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """What `metrics` (key -> value) say of CQADupStack and of several sets of BEIR together.

    Keys are `beir/cqadupstack/test/<metric>`, when all parts are there, and
    `beir/mean:<set>:<set>.../<metric>` over the sets that have the metric, when they are two or
    more. Sets are recognised by their name, with or without `beir/`.
    """
    found: dict[str, dict[str, float]] = {}
    means: dict[str, float] = {}
    for key, value in metrics.items():
        label, _, metric = key.rpartition("/")
        name, _, split = label.rpartition("/")
        if split == SPLITS.get(name.removeprefix(PREFIX), "test"):
            found.setdefault(metric, {})[name.removeprefix(PREFIX)] = value
    for metric, values in found.items():
        parts = [values[f"{PARTS}/{part}"] for part in CQADUPSTACK if f"{PARTS}/{part}" in values]
        if len(parts) == len(CQADUPSTACK):
            values[PARTS] = means[f"{PREFIX}{PARTS}/test/{metric}"] = _mean(parts)
        names = [name for name in (*SETS, PARTS) if name in values]
        if len(names) > 1:
            key = f"{PREFIX}mean:{':'.join(sorted(names))}/{metric}"
            means[key] = _mean([values[name] for name in names])
    return means


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
