"""What `ablate train` and a cluster of this machine begin with: nothing that others left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate.run import single, sweep
from trainables import worker


@contextlib.contextmanager
def no_cluster(address: str | None, dashboard: bool) -> Iterator[None]:
    yield None


def test_a_group_does_not_go_on_from_what_a_killed_training_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "out" / ".train" / "trial" / "checkpoint"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of other settings")
    found: list[list[Path]] = []

    def run_group(task: Any, group: Any, storage: str, name: str) -> Any:
        found.append(list(Path(storage).glob("**/*")))
        (Path(storage) / name).mkdir(parents=True)
        return SimpleNamespace(metrics={"m": 1.0}, seconds={})

    monkeypatch.setattr(single.sweep, "cluster", no_cluster)
    monkeypatch.setattr(single, "slots", lambda *_: None)
    monkeypatch.setattr(worker, "run_group", run_group)
    result = single.train_one({}, (), 2, tmp_path / "out", lambda metrics: None)
    assert found == [[]] and result["metrics"] == {"m": 1.0}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


@pytest.mark.parametrize(("address", "asked"), [(None, "local"), ("auto", "auto")])
def test_without_an_address_a_cluster_is_this_machines_own(
    monkeypatch: pytest.MonkeyPatch, address: str | None, asked: str
) -> None:
    """Whatever RAY_ADDRESS says, and whether or not `ray start` has been there."""
    calls: list[Any] = []
    present = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {}}]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr("ray.init", lambda **options: calls.append(options.get("address")))
    monkeypatch.setattr("ray.nodes", lambda: present)
    monkeypatch.setattr("ray.shutdown", lambda: calls.append("shutdown"))
    with sweep.cluster(address, dashboard=False) as capacity:
        assert calls == [asked] and capacity.largest("CPU") == 2.0
    assert calls == [asked, "shutdown"]
