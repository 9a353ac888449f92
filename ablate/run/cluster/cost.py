"""What a study costs on a cluster: before, from an estimate; after, from the nodes there were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablate.run.capacity import Capacity, worker_need
from ablate.run.trial import Resources
from trainables.errors import InvalidInput, Problem

PRICES = "prices.json"
"""File of a study's folder: US dollars an hour by type of node, for the report."""


def expected(
    hours: float, resources: Resources, capacity: Capacity, prices: Mapping[str, float]
) -> str:
    """One line before: hours of trials become hours of nodes, and money where prices are known.

    `hours` is the sum over trials of their own time. Start-up and idle time are not in it.
    """
    need = worker_need(resources)
    nodes = capacity.best(need)
    each = capacity.places(need) / sum(kind.count for kind in nodes)
    total = hours * resources.workers / each
    text = f"Cluster: about {total:.2f} node hours, on up to {sum(k.count for k in nodes)} nodes"
    workers = {name: price for name, price in prices.items() if name != "head"}
    if not workers:
        return f"{text}; no prices: fill in usd_per_hour for the cost in money"
    spans = [f"{total * price:.2f} USD on {name}" for name, price in workers.items()]
    head = f", and the head {prices['head']:.2f} USD an hour" if "head" in prices else ""
    return f"{text}: {' or '.join(spans)}{head}"


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
