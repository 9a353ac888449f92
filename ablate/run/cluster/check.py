"""Before a sweep: does every node of the cluster see the run folder and the data?"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from ablate.run.capacity import ClusterCannot
from ablate.run.ledger import Ledger
from ablate.run.store import TEMPORARY, StoreUnreachable, mask
from ablate.run.trial import Resources
from trainables import scratch

ASKED = "asked"
START_SECONDS = 120.0


def check_nodes(resources: Resources, fingerprints: Mapping[str, str]) -> int:
    """Check every node that the cluster has now, and return how many that are.

    Each must read what this process wrote into the run folder, write there too, and find each
    collection of `fingerprints` with this very content. Raises ClusterCannot with what each node
    lacks. Nodes that come later are checked by their first trial, as far as the run folder goes.
    """
    ledger = Ledger(resources.runs)
    token = scratch.own_name()
    place = f"{TEMPORARY}/{token}"
    ledger.store.write(f"{place}/{ASKED}", token.encode())
    try:
        answers = _ask(resources, token, fingerprints)
        wrong = [line for _, lines in answers for line in lines]
        for node, lines in answers:
            if not lines and not ledger.store.exists(f"{place}/{node}"):
                runs = mask(resources.runs)
                wrong.append(f"{node}: what it writes to {runs} is not seen elsewhere")
    finally:
        ledger.store.delete(place)
    if wrong:
        advice = "put the run folder and the data where all nodes see them: s3://…, gs://…, or NFS"
        raise ClusterCannot("\n  ".join(["not every node can take part:", *wrong, advice]))
    return len(answers)


def look(node: str, runs: str, token: str, fingerprints: Mapping[str, str]) -> list[str]:
    """On a node: what is missing there, one line each. `token` names the folder that was left."""
    from trainables.data.collections import fingerprint
    from trainables.errors import InvalidInput

    name = f"{node} ({socket.gethostname()})"
    try:
        store = Ledger(runs).store
        if store.read(f"{TEMPORARY}/{token}/{ASKED}") != token.encode():
            return [f"{name}: does not see the run folder {mask(runs)}"]
        store.write(f"{TEMPORARY}/{token}/{node}", token.encode())
    except (OSError, StoreUnreachable, InvalidInput) as error:
        return [f"{name}: cannot use the run folder {mask(runs)}: {error}"]
    missing = []
    for collection, wanted in fingerprints.items():
        try:
            found = fingerprint(collection)
        except InvalidInput as error:
            missing.append(f"{name}: {collection}: {error}")
            continue
        if found != wanted:
            missing.append(f"{name}: {collection}: has another content than where it was planned")
    return missing


def _ask(
    resources: Resources, token: str, fingerprints: Mapping[str, str]
) -> list[tuple[str, list[str]]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked: dict[Any, str] = {}
    for node in ray.nodes():
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(look)
            name = node["NodeManagerAddress"] + "-" + node["NodeID"][-5:]
            asked[task.remote(name, resources.runs, token, dict(fingerprints))] = name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=START_SECONDS)
    answers = [(asked[task], [f"{asked[task]}: does not answer"]) for task in late]
    for task in ready:
        try:
            answers.append((asked[task], ray.get(task)))
        except ray.exceptions.RayError as error:
            answers.append((asked[task], [f"{asked[task]}: {type(error).__name__}: {error}"]))
    return answers
