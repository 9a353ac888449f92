"""Nodes: what they see, how many there are over time, and which are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate.run.cluster import nodes
from ablate.run.cluster.check import ASKED, look
from ablate.run.ledger import Ledger, Record
from ablate.run.store import TEMPORARY
from ablate.run.sweep import HEAD


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


class Quiet:
    """A watcher that looks away."""

    def started(self, trial_id: str) -> None: ...
    def lost(self, trial_id: str) -> None: ...
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
