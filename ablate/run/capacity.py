"""What a cluster has or may grow to, and how many trials that gives room for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.run.trial import Resources
from trainables.errors import InvalidInput, Problem

_COUNTED = ("CPU", "GPU")
_AMOUNT = r"[A-Za-z_]+=\d+(\.\d+)?"
_NODES = re.compile(rf"(?P<count>\d+)x(?P<amounts>{_AMOUNT}(,{_AMOUNT})*)")


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind: what each has for Ray, and how many there are or can be."""

    resources: Mapping[str, float]
    count: int


@dataclass(frozen=True)
class Capacity:
    """The nodes that a cluster has, and up to `most` more of the kinds that an autoscaler adds."""

    present: tuple[Nodes, ...]
    growth: tuple[Nodes, ...] = ()
    most: int = 0

    def best(self, need: Mapping[str, float]) -> tuple[Nodes, ...]:
        """The nodes, of all that there can be, that fit `need` most often."""
        chosen, left = list(self.present), self.most
        by_fit = sorted(self.growth, key=lambda kind: _fits(kind.resources, need), reverse=True)
        for kind in by_fit:
            taken = min(kind.count, left)
            left -= taken
            chosen.append(Nodes(kind.resources, taken))
        return tuple(kind for kind in chosen if kind.count and _fits(kind.resources, need))

    def places(self, need: Mapping[str, float]) -> int:
        """How many times `need`, which a single node must satisfy, fits in all."""
        return sum(_fits(kind.resources, need) * kind.count for kind in self.best(need))

    def largest(self, resource: str) -> float:
        """The most of a resource that one node has."""
        kinds = (*self.present, *self.growth)
        return max((kind.resources.get(resource, 0.0) for kind in kinds), default=0.0)


def parse_nodes(texts: Sequence[str]) -> Capacity:
    """The capacity written by `written_nodes`; raises InvalidInput with every mistake."""
    found = [(text, _NODES.fullmatch(text)) for text in texts]
    wrong = [text for text, match in found if match is None]
    if wrong:
        rule = "must be COUNTxRESOURCE=AMOUNT,…, as in 8xCPU=8,GPU=1"
        raise InvalidInput([Problem("--nodes", rule, text) for text in wrong])
    kinds = []
    for match in (match for _, match in found if match is not None):
        pairs = (pair.split("=") for pair in match["amounts"].split(","))
        resources = {key: float(amount) for key, amount in pairs}
        kinds.append(Nodes(resources, int(match["count"])))
    return Capacity((), tuple(kinds), sum(kind.count for kind in kinds))


def written_nodes(nodes: Sequence[Nodes]) -> list[str]:
    """Nodes as text for the option --nodes: `8xCPU=8,GPU=1`."""
    counts: dict[str, int] = {}
    for kind in nodes:
        amounts = [f"{key}={kind.resources[key]:g}" for key in _COUNTED if key in kind.resources]
        counts[",".join(amounts)] = counts.get(",".join(amounts), 0) + kind.count
    return [f"{count}x{amounts}" for amounts, count in counts.items()]


class ClusterCannot(RuntimeError):
    """The cluster can never do what is asked; the message holds the numbers."""


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and why not more."""

    count: int
    reason: str


def slots(resources: Resources, capacity: Capacity, limit: int | None) -> Slots:
    """Trials that run at once on a cluster of this capacity.

    Raises ClusterCannot, with the numbers, when not even one fits.
    """
    need = worker_need(resources)
    places = capacity.places(need)
    if places < resources.workers:
        raise ClusterCannot(_why_not(resources, need, places, capacity))
    fitting = places // resources.workers
    if limit is not None and limit < fitting:
        return Slots(limit, "resources.max_concurrent_trials")
    return Slots(fitting, f"room for {places} workers of {_written(need)}")


def worker_need(resources: Resources) -> dict[str, float]:
    """What one worker of a trial asks of its node."""
    need = {"CPU": resources.cpus}
    return need | {"GPU": resources.gpus} if resources.gpus else need


def _why_not(
    resources: Resources, need: Mapping[str, float], places: int, capacity: Capacity
) -> str:
    for resource, amount in need.items():
        if capacity.largest(resource) < amount:
            return (
                f"a worker needs {amount:g} {resource}, but the largest node has "
                f"{capacity.largest(resource):g}; lower resources.{resource.lower()}s_per_worker"
            )
    return (
        f"a trial needs {resources.workers} workers of {_written(need)}, but the cluster has room "
        f"for {places}; lower resources.workers or add nodes"
    )


def _fits(have: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How many times `need` fits in what one node has."""
    return min(int(have.get(key, 0.0) / amount + 1e-9) for key, amount in need.items())


def _written(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {key}" for key, amount in amounts.items())
