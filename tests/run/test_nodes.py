"""Nodes: what they see, how many there are over time, and which are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate.run.capacity import Capacity, Nodes
from ablate.run.cluster import check, nodes
from ablate.run.cluster.check import ASKED, check_nodes, look
from ablate.run.ledger import Ledger, Record
from ablate.run.store import TEMPORARY, Store, StoreUnreachable
from ablate.run.sweep import HEAD
from ablate.run.trial import Resources
from trainables.errors import InvalidInput, Problem


def test_a_node_that_does_not_see_the_run_folder_or_the_data_says_so(
    tmp_path: Path, tiny_collection: str
) -> None:
    from trainables.data.collections import fingerprint

    shared, other = str(tmp_path / "shared"), str(tmp_path / "other")
    Ledger(shared).store.write(f"{TEMPORARY}/token/{ASKED}", b"token")
    known = {tiny_collection: fingerprint(tiny_collection)}
    assert look("n1", shared, "token", known) == []
    assert Ledger(shared).store.exists(f"{TEMPORARY}/token/n1")
    (blind,) = look("n2", other, "token", known)
    assert "n2 (" in blind and f"does not see the run folder {other}" in blind
    changed, absent = look("n3", shared, "token", {tiny_collection: "x", "/no/such": "x"})
    assert "another content" in changed and "/no/such" in absent


@pytest.mark.parametrize(
    "error",
    [
        StoreUnreachable("the bucket cannot be reached: timeout"),
        InvalidInput([Problem("--runs", "names no bucket that there is")]),
        PermissionError("the bucket is not yours"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("call", ["read", "write"])
def test_a_node_that_cannot_use_the_run_folder_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, call: str
) -> None:
    def fails(*_: Any) -> Any:
        raise error

    Store(tmp_path).write(f"{TEMPORARY}/token/{ASKED}", b"token")
    monkeypatch.setattr(Store, call, fails)
    (line,) = look("n1", str(tmp_path), "token", {})
    assert line.startswith("n1 (") and f"cannot use the run folder {tmp_path}: {error}" in line


def test_a_node_does_not_say_what_opens_the_run_folder() -> None:
    (line,) = look("n1", "nowhere://KEY:SECRET@bucket/runs", "token", {})
    assert "cannot use the run folder nowhere://***@bucket/runs: " in line
    assert "KEY" not in line and "SECRET" not in line


def test_two_checks_at_once_leave_each_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = Resources(str(tmp_path), str(tmp_path / "cache"))
    checked: list[int] = []

    def ask(resources: Resources, token: str, fingerprints: Any) -> list[Any]:
        if not checked:
            checked.append(0)
            checked.append(check_nodes(resources, fingerprints))
        return [("n1", look("n1", resources.runs, token, fingerprints))]

    monkeypatch.setattr(check, "_ask", ask)
    assert check_nodes(resources, {}) == 1 and checked == [0, 1]
    assert list(Store(tmp_path).children(TEMPORARY)) == []
    assert [path.name for path in tmp_path.iterdir()] == [TEMPORARY]


class Quiet:
    """A watcher that looks away."""

    def started(self, trial_id: str) -> None: ...

    def lost(self, trial_id: str) -> None:
        self.last = ("lost", trial_id)

    def progress(self, trial_id: str, metrics: Any) -> None: ...
    def ended(self, record: Record) -> None: ...


class NoFallback(nodes.Fallback):
    """Asks for nothing."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def consider(self, sample: nodes.Sample, pending: int) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing to take back."""


def test_nodes_are_recorded_when_they_change_and_the_record_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "SAMPLE_SECONDS", 0.01)
    folder, notes = Ledger(tmp_path).study("s"), []
    seen: Iterator[Any] = iter([{"head": 1}, {"head": 1}, OSError("gone"), {"head": 1, "cpu": 2}])
    last: dict[str, Any] = {}

    def look() -> nodes.Sample:
        found = next(seen, None)
        if isinstance(found, Exception):
            raise found
        last["types"] = found or last["types"]
        return nodes.Sample(last["types"])

    for _ in range(2):
        recorder = nodes.Recorder(Quiet(), groups=False)
        recorder.expect(3)
        with nodes.Recording(folder, recorder, notes.append, look, NoFallback()):
            recorder.started("a")
            while last["types"] == {"head": 1}:
                pass
            recorder.ended(Record("a", {}, {}))
    rows = nodes.read(folder)
    assert {"nodes": 3, "types": {"cpu": 2, "head": 1}}.items() <= rows[-1].items()
    assert rows[0]["nodes"] == 1
    assert (rows[-1]["running"], rows[-1]["pending"]) == (0, 2)
    assert len(rows) >= 4
    assert len(notes) == 1 and "1 times OSError('gone')" in notes[0]


def test_trials_in_groups_run_from_their_first_step() -> None:
    recorder = nodes.Recorder(Quiet(), groups=True)
    recorder.expect(2)
    recorder.started("a")
    assert recorder.pending == 2
    recorder.progress("a", {"step": 1.0})
    assert recorder.pending == 1
    recorder.started("a")
    assert recorder.pending == 2


@pytest.mark.parametrize("groups", [False, True])
def test_a_trial_that_is_lost_waits_again(groups: bool) -> None:
    watcher = Quiet()
    recorder = nodes.Recorder(watcher, groups)
    recorder.expect(2)
    recorder.started("a")
    recorder.progress("a", {"step": 1.0})
    assert recorder.pending == 1
    recorder.lost("a")
    assert recorder.pending == 2 and watcher.last == ("lost", "a")
    assert recorder.row(nodes.Sample({"head": 1}))["running"] == 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What fallbacks ask for, of nodes that do not come; 40 s pass between two looks."""
    found: list[tuple[str, int]] = []

    def ask(fallback: nodes.Fallback, name: str, count: int) -> None:
        found.append((name, count))
        fallback._asked = [SimpleNamespace(wait=lambda seconds: False)] * count

    clock = iter(range(0, 4000, 40))
    monkeypatch.setattr(nodes.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(nodes.Fallback, "_ask", ask)
    return found


REFUSED = nodes.Sample({"head": 1}, frozenset({"cpu-spot"}))
GROWTH = Capacity((), (Nodes({"CPU": 2.0}, 8),), 8)


@pytest.mark.parametrize(("limit", "count"), [(None, 8), (16, 8), (5, 3), (2, 1), (1, 1)])
def test_no_more_nodes_are_asked_for_than_the_limit_of_trials_needs(
    asked: list[tuple[str, int]], limit: int | None, count: int
) -> None:
    fallback = nodes.Fallback.of(Resources("runs", "cache"), GROWTH, limit)
    for _ in range(3):
        fallback.consider(REFUSED, pending=20)
    assert asked == [("cpu-on-demand", count)]


def test_without_growth_nothing_is_asked_for(asked: list[tuple[str, int]]) -> None:
    fallback = nodes.Fallback.of(Resources("runs", "cache"), None, 4)
    assert [fallback.consider(REFUSED, pending=20) for _ in range(3)] == [[], [], []]
    assert asked == []


def test_what_is_asked_for_is_taken_back_when_no_trial_waits(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Any] = []
    monkeypatch.setattr("ray.util.remove_placement_group", removed.append)
    fallback = nodes.Fallback.of(Resources("runs", "cache"), GROWTH, None)
    for _ in range(3):
        fallback.consider(REFUSED, pending=5)
    assert asked == [("cpu-on-demand", 3)] and removed == []
    assert fallback.consider(REFUSED, pending=0) == [] and len(removed) == 3
    for _ in range(3):
        fallback.consider(REFUSED, pending=5)
    assert asked[1:] == [("cpu-on-demand", 3)] and len(removed) == 3


def test_on_demand_is_asked_for_when_spot_is_refused_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []
    fallback = nodes.Fallback(nodes_at_most=3, trials_per_node=2)
    monkeypatch.setattr(fallback, "_ask", lambda name, count: asked.append((name, count)))
    monkeypatch.setattr(fallback, "_give_up_ready", lambda: None)
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(nodes.time, "monotonic", lambda: float(next(clock)))
    refused = nodes.Sample({"head": 1, "gpu-spot": 1}, frozenset({"gpu-spot"}))
    assert fallback.consider(nodes.Sample({"head": 1}), pending=9) == []
    assert fallback.consider(refused, pending=0) == []
    assert fallback.consider(refused, pending=3) == []
    assert fallback.consider(refused, pending=3) == []
    assert "asking for 2 gpu-on-demand" in fallback.consider(refused, pending=3)[0]
    assert asked == [("gpu-on-demand", 2)]


def test_the_record_of_nodes_is_json_lines(tmp_path: Path) -> None:
    folder = Ledger(tmp_path).study("s")
    folder.write(nodes.FILE, json.dumps({"time": 1.0}) + "\n" + json.dumps({"time": 2.0}) + "\n")
    assert [row["time"] for row in nodes.read(folder)] == [1.0, 2.0]
    assert nodes.read(Ledger(tmp_path).study("other")) == []


@pytest.mark.parametrize(
    ("name", "resources", "shown"),
    [
        ("gpu-spot", {"GPU": 1.0}, "gpu-spot"),
        ("node_ab12", {"CPU": 2.0, HEAD: 1.0}, "head"),
        ("node_ab12", {"CPU": 2.0}, "node"),
        ("", {"CPU": 2.0}, "node"),
    ],
)
def test_nodes_without_a_type_are_counted_together(
    name: str, resources: dict[str, float], shown: str
) -> None:
    """Ray names such a node after its id."""
    node = SimpleNamespace(
        ray_node_type_name=name, node_id="ab12", total_resources=lambda: resources
    )
    assert nodes.type_of(node) == shown
