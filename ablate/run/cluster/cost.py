"""What a study costs on a cluster: before, from an estimate; after, from the nodes there were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablate.plan.estimate import Estimate, estimate
from ablate.plan.planner import Plan
from ablate.plan.probes import Probe
from ablate.plan.timing import Earlier, Unscored
from ablate.run.capacity import Capacity, slots, worker_need
from ablate.run.trial import Resources
from trainables.errors import InvalidInput, Problem

PRICES = "prices.json"
"""File of a study's folder: US dollars an hour by type of node, for the report."""

HEAD = "head"
"""The node type that drives and trains nothing."""


@dataclass(frozen=True)
class Cost:
    """What the trials of an estimate take of a cluster. Idle nodes are not in it.

    `usd` is what the node hours cost on each type of worker that has a price, were all of it on
    that type; `head_usd` what the head costs from the first trial to the last.
    """

    node_hours: float
    nodes: int
    usd: Mapping[str, float]
    head_usd: float | None

    def to_json(self) -> dict[str, Any]:
        """The cost as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        text = f"Cluster: about {self.node_hours:.2f} node hours, on up to {self.nodes} nodes"
        if not self.usd:
            return f"{text}; no prices: fill in usd_per_hour for the cost in money"
        spans = [f"{amount:.2f} USD on {name}" for name, amount in self.usd.items()]
        head = "" if self.head_usd is None else f", and {self.head_usd:.2f} USD for the head"
        return f"{text}: {' or '.join(spans)}{head}"


def foreseen(
    plan: Plan,
    capacity: Capacity,
    prices: Mapping[str, float],
    earlier: Earlier = (),
    finished: int = 0,
    unscored: Unscored = (),
    probes: Sequence[Probe] = (),
) -> tuple[Estimate, Cost | None]:
    """The time on a cluster, and what it costs; None when the time is not known.

    `prices` are USD an hour by node type; the rest is as for `estimate`. Raises ClusterCannot when
    no trial fits.
    """
    resources = planned_resources(plan)
    count = slots(resources, capacity, plan.study.resources.max_concurrent_trials).count
    guess = estimate(plan, earlier, finished, unscored, slots=count, probes=probes)
    if guess.trial_hours is None or guess.minutes is None:
        return guess, None
    need = worker_need(resources)
    nodes = sum(kind.count for kind in capacity.best(need))
    hours = guess.trial_hours * resources.workers / (capacity.places(need) / nodes)
    usd = {name: hours * price for name, price in prices.items() if name != HEAD}
    head = guess.minutes / 60 * prices[HEAD] if HEAD in prices else None
    return guess, Cost(hours, nodes, usd, head)


def planned_resources(plan: Plan) -> Resources:
    """What one trial of the plan asks of a cluster."""
    wanted = plan.study.resources
    return Resources("", "", wanted.workers, wanted.cpus_per_worker, wanted.gpus_per_worker)


def spent(hours: Mapping[str, float], prices: Mapping[str, float]) -> str:
    """One line after: hours of each node type, and money where prices are known."""
    parts = [f"{amount:.2f} h of {name}" for name, amount in sorted(hours.items())]
    known = {name: amount * prices[name] for name, amount in hours.items() if name in prices}
    money = f": {sum(known.values()):.2f} USD" if len(known) == len(hours) and known else ""
    return f"Nodes: {', '.join(parts) or 'none'}{money}"


def parse_prices(texts: Sequence[str]) -> dict[str, float]:
    """Prices written by `written_prices`; raises InvalidInput with every mistake."""
    found, problems = {}, []
    for text in texts:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            found[name] = -1.0
        if not name or not 0 <= found[name] < float("inf"):
            problems.append(Problem("--price", "must be TYPE=USD an hour, as in gpu=1.2", text))
    if problems:
        raise InvalidInput(problems)
    return found


def written_prices(prices: Mapping[str, float]) -> tuple[str, ...]:
    """Prices as text for the option --price: `gpu=1.2`."""
    return tuple(f"{name}={price:g}" for name, price in prices.items())
