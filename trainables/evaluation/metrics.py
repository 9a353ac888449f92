"""The names of the metrics. Light: nothing is imported, so a plan can check names at once.

A name is `family` or `family_at_cutoff`; a key is `<collection>/<split>/<name>`. The values are
computed in `trainables.evaluation.scoring`, one equation per family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from trainables.errors import InvalidInput, Problem, nearest


@dataclass(frozen=True)
class Family:
    """One line of the registry: what is measured, and whether a cutoff is part of the name."""

    summary: str
    cutoff: Literal["required", "optional", "none"]
    higher_is_better: bool = True


FAMILIES: dict[str, Family] = {
    "mrr": Family("1 / rank of the first positive, 0 below the cutoff", "required"),
    "ndcg": Family("discounted gain of the raw grades over the best possible", "required"),
    "recall": Family("share of the positives above the cutoff", "required"),
    "map": Family("mean over the positives of the precision at their rank", "optional"),
    "success": Family("1 when a positive stands above the cutoff", "required"),
    "bpref": Family("share of judged negatives ranked below each positive", "none"),
    "condensed_ndcg": Family("nDCG of the ranking without its unjudged passages", "required"),
    "unjudged": Family("share of unjudged passages above the cutoff", "required", False),
}

DEPTH = 1000
"""Passages per query of a run, unless told otherwise; a metric cannot read below it."""

DEFAULT_METRICS: tuple[str, ...] = (
    "mrr_at_10",
    "ndcg_at_10",
    "recall_at_10",
    "recall_at_100",
    "recall_at_1000",
    "map",
    "success_at_5",
    "bpref",
    "condensed_ndcg_at_10",
    "unjudged_at_10",
)
"""What every evaluation reports unless told otherwise."""


@dataclass(frozen=True)
class Metric:
    """A metric by name: `family`, and the rank down to which it reads (None: the whole run)."""

    name: str
    family: str
    cutoff: int | None

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return FAMILIES[self.family].higher_is_better


def parse_metric(name: str, key: str = "metric", place: str | None = None) -> Metric:
    """The metric called `name`; raises InvalidInput that says what is wrong with it."""
    family, at, digits = name.partition("_at_")
    entry = FAMILIES.get(family)
    if entry is None or (at and not re.fullmatch(r"[1-9][0-9]*", digits)):
        raise InvalidInput([_unknown(name, key, place)])
    if entry.cutoff == "required" and not at:
        raise InvalidInput([Problem(key, "needs a cutoff", name, f"{family}_at_10", place)])
    if entry.cutoff == "none" and at:
        raise InvalidInput([Problem(key, "takes no cutoff", name, family, place)])
    return Metric(name, family, int(digits) if at else None)


def parse_metrics(names: Iterable[str], depth: int, place: str | None = None) -> tuple[Metric, ...]:
    """The metrics called `names`, every one readable from runs of `depth` passages per query.

    Raises InvalidInput with all mistakes: unknown names, and cutoffs below the end of the run.
    """
    metrics: list[Metric] = []
    problems: list[Problem] = []
    for name in dict.fromkeys(names):
        try:
            metric = parse_metric(name, "metrics", place)
        except InvalidInput as error:
            problems += error.problems
            continue
        if metric.cutoff is not None and metric.cutoff > depth:
            rule = f"reads below the end of the run; depth is {depth}"
            problems.append(Problem("metrics", rule, name, None, place))
        metrics.append(metric)
    if problems:
        raise InvalidInput(problems)
    return tuple(metrics)


def parse_metric_key(
    text: str, key: str = "metric", place: str | None = None
) -> tuple[str, Metric]:
    """The label of the evaluated split and the metric of a key such as `nq/test/mrr_at_10`.

    Raises InvalidInput when the form or the metric's name is wrong.
    """
    label, _, name = text.rpartition("/")
    if "/" not in label.strip("/"):
        rule = "must have the form <collection>/<split>/<metric>, such as nq/dev/mrr_at_10"
        raise InvalidInput([Problem(key, rule, text, None, place)])
    return label, parse_metric(name, key, place)


def _unknown(name: str, key: str, place: str | None) -> Problem:
    digits = re.search(r"[1-9][0-9]*", name)
    known = _names(digits.group() if digits else "10")
    hint = nearest(name, known)
    return Problem(key, f"is unknown; known: {', '.join(_names('K'))}", name, hint, place)


def _names(cutoff: str) -> Sequence[str]:
    with_cutoff = [f"{name}_at_{cutoff}" for name, f in FAMILIES.items() if f.cutoff != "none"]
    return [*with_cutoff, *(name for name, f in FAMILIES.items() if f.cutoff != "required")]
