"""While a sweep runs: how many nodes there are over time, why trials wait, what else to ask for."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ablate.run.capacity import Capacity, worker_need
from ablate.run.cluster.shapes import ON_DEMAND, SPOT
from ablate.run.events import Watcher
from ablate.run.ledger import Record, StudyFolder
from ablate.run.sweep import HEAD
from ablate.run.trial import Resources

FILE = "nodes.jsonl"
SAMPLE_SECONDS = 2.0
REFUSED_SECONDS = 60.0
"""A node type counts as refused for so long after a launch of it failed."""
PATIENCE_SECONDS = 60.0
"""How long trials may wait beside a refused node type before another is asked for."""


@dataclass(frozen=True)
class Sample:
    """The nodes at one moment: how many of each type, and the types that are refused."""

    types: Mapping[str, int]
    refused: frozenset[str] = frozenset()


class Recorder:
    """A watcher that passes everything on and counts; `row` is what it knows now.

    With `groups`, trials are functions that wait for their worker group, so that only the first
    step shows that one runs.
    """

    def __init__(self, watcher: Watcher, groups: bool) -> None:
        self.watcher, self.groups = watcher, groups
        self._expected = 0
        self._running: set[str] = set()

    def expect(self, trials: int) -> None:
        """So many more trials are to be run."""
        self._expected += trials

    def started(self, trial_id: str) -> None:
        """A trial has begun, or begun again."""
        self._running.discard(trial_id)
        if not self.groups:
            self._running.add(trial_id)
        self.watcher.started(trial_id)

    def lost(self, trial_id: str) -> None:
        """A trial's process or node is lost, and it waits to begin again."""
        self._running.discard(trial_id)
        self.watcher.lost(trial_id)

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial is at a step."""
        self._running.add(trial_id)
        self.watcher.progress(trial_id, metrics)

    def ended(self, record: Record) -> None:
        """A trial's final record is there."""
        self._running.discard(record.trial_id)
        self._expected -= 1
        self.watcher.ended(record)

    @property
    def pending(self) -> int:
        """Trials that neither run nor have ended."""
        return self._expected - len(self._running)

    def row(self, sample: Sample) -> dict[str, Any]:
        """One row of nodes.jsonl, without its time."""
        return {
            "nodes": sum(sample.types.values()),
            "types": dict(sorted(sample.types.items())),
            "running": len(self._running),
            "pending": self.pending,
        }


class Recording(AbstractContextManager[Recorder]):
    """Appends to the study's nodes.jsonl when nodes or trials change, while its block runs.

    Rows are {time, nodes, types, running, pending}, time in Unix seconds. `look` says what nodes
    there are; `note` is told what a person should know.
    """

    def __init__(
        self,
        folder: StudyFolder,
        recorder: Recorder,
        note: Callable[[str], None],
        look: Callable[[], Sample],
        fallback: Fallback,
    ) -> None:
        self._folder, self._recorder, self._note = folder, recorder, note
        self._look, self._fallback = look, fallback
        self._rows: list[dict[str, Any]] = []
        self._failures: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nodes", daemon=True)

    def __enter__(self) -> Recorder:
        self._rows = read(self._folder)
        self._once()
        self._thread.start()
        return self._recorder

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._once()
        self._fallback.close()
        if self._failures:
            gaps = f"{len(self._failures)} times {self._failures[-1]!r}"
            self._note(f"The record of the nodes has gaps: {gaps}")

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._once()

    def _once(self) -> None:
        try:
            sample = self._look()
            self._append(self._recorder.row(sample))
            for text in self._fallback.consider(sample, self._recorder.pending):
                self._note(text)
        except Exception as error:  # noqa: BLE001 - to watch a sweep must never end it
            self._failures.append(error)

    def _append(self, row: dict[str, Any]) -> None:
        last = self._rows[-1] if self._rows else {}
        if {**row, "time": last.get("time")} != last:
            self._rows.append({"time": round(time.time(), 1), **row})
            self._folder.write(FILE, "".join(json.dumps(each) + "\n" for each in self._rows))


def read(folder: StudyFolder) -> list[dict[str, Any]]:
    """The rows of a study's nodes.jsonl, oldest first; empty when there is none."""
    return folder.rows(FILE)


def node_hours(rows: list[dict[str, Any]], longest_gap: float = 600.0) -> dict[str, float]:
    """Hours that nodes of each type were there, from rows of nodes.jsonl.

    Between two executions nothing is known: a gap of more than `longest_gap` seconds without a
    trial running is left out.
    """
    hours: dict[str, float] = {}
    for row, after in itertools.pairwise(rows):
        seconds = after["time"] - row["time"]
        if seconds > longest_gap and not row["running"]:
            continue
        for name, count in row["types"].items():
            hours[name] = hours.get(name, 0.0) + count * seconds / 3600
    return hours


def look() -> Sample:
    """The nodes of the connected cluster, by the autoscaler's names for their types."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    types: dict[str, int] = {}
    for node in (*status.active_nodes, *status.idle_nodes):
        name = type_of(node)
        types[name] = types.get(name, 0) + 1
    since = time.time() - REFUSED_SECONDS
    refused = {
        launch.ray_node_type_name
        for launch in status.failed_launches
        if (launch.failed_ts_s or 0) > since
    }
    return Sample(types, frozenset(refused))


def type_of(node: Any) -> str:
    """The name of the node's type; `head` or `node` where Ray, without one, names the node."""
    name: str = node.ray_node_type_name
    if name and name != f"node_{node.node_id}":
        return name
    return "head" if HEAD in node.total_resources() else "node"


class Fallback:
    """Asks for nodes on demand when spot nodes are refused while trials wait.

    Ray's autoscaler asks for the type of highest priority again and again, whether its machines are
    to be had or not. A node of the type NAME-on-demand has one unit of a resource of that name, so
    a placement group of that resource asks for just such a node, and is given up as soon as the
    node is there for the trial that waits. The cluster must have room for it beside the requests
    that are being refused.
    """

    def __init__(self, nodes_at_most: int, trials_per_node: int) -> None:
        self.nodes_at_most, self.trials_per_node = nodes_at_most, max(1, trials_per_node)
        self._since: float | None = None
        self._asked: list[Any] = []

    @classmethod
    def of(cls, resources: Resources, growth: Capacity | None, limit: int | None) -> Fallback:
        """For trials of these resources, at most `limit` at once, on a cluster that may grow so
        far, or not at all."""
        if growth is None:
            return cls(0, 1)
        need = worker_need(resources)
        nodes = sum(kind.count for kind in growth.best(need))
        each = max(1, growth.places(need) // nodes // resources.workers) if nodes else 1
        return cls(nodes if limit is None else min(nodes, -(-limit // each)), each)

    def consider(self, sample: Sample, pending: int) -> list[str]:
        """Ask, or stop asking, as the moment demands; returns what is worth telling."""
        self._give_up_ready()
        spot = sorted(name for name in sample.refused if name.endswith(SPOT))
        if not pending:
            self.close()
        if not pending or not spot:
            self._since = None
            return []
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if self._asked or now - self._since < PATIENCE_SECONDS:
            return []
        self._since = now
        present = sum(
            count for name, count in sample.types.items() if name.endswith((SPOT, ON_DEMAND))
        )
        wanted = min(-(-pending // self.trials_per_node), self.nodes_at_most - present)
        name = spot[0].removesuffix(SPOT) + ON_DEMAND
        if wanted < 1:
            return []
        self._ask(name, wanted)
        return [f"{spot[0]} is refused while {pending} trials wait: asking for {wanted} {name}"]

    def close(self) -> None:
        """Take back what is still asked for."""
        from ray.util import remove_placement_group

        for group in self._asked:
            remove_placement_group(group)
        self._asked = []

    def _ask(self, name: str, count: int) -> None:
        from ray.util import placement_group

        self._asked = [placement_group([{name: 1}]) for _ in range(count)]

    def _give_up_ready(self) -> None:
        from ray.util import remove_placement_group

        for group in [group for group in self._asked if group.wait(0)]:
            remove_placement_group(group)
            self._asked.remove(group)
