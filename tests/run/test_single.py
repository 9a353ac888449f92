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
from trainables.errors import InvalidInput, Problem


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


def earlier(out: Path) -> dict[str, bytes]:
    """What an earlier training left in `out`, by path."""
    (out / "checkpoint").mkdir(parents=True)
    (out / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    (out / "result.json").write_text("{}")
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize("error", [InvalidInput([Problem("encoder.layers", "x", 99)]), OSError()])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_that_does_not_end_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, error: Exception
) -> None:
    def refused(task: Any, *_: Any, **__: Any) -> Any:
        Path(task.output, "history.jsonl").write_text("{}")
        raise error

    monkeypatch.setattr(single.sweep, "cluster", no_cluster)
    monkeypatch.setattr(single, "slots", lambda *_: None)
    monkeypatch.setattr(worker, "run_here", refused)
    monkeypatch.setattr(worker, "run_group", refused)
    before = earlier(tmp_path / "old")
    for name in ("old", "new/deep"):
        with pytest.raises(type(error)):
            single.train_one({}, (), workers, tmp_path / name, lambda metrics: None)
    assert contents(tmp_path / "old") == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_training_that_ends_takes_the_place_of_the_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(task: Any, reporter: Any, threads: int) -> Any:
        Path(task.output, "checkpoint").mkdir()
        Path(task.output, "checkpoint", "config.json").write_text("new")
        Path(task.output, "history.jsonl").write_text("rows")
        return SimpleNamespace(metrics={"m": 1.0}, seconds={})

    monkeypatch.setattr(worker, "run_here", run_here)
    earlier(tmp_path / "old")
    for name in ("old", "new/deep"):
        single.train_one({}, (), 1, tmp_path / name, lambda metrics: None)
        found = sorted(contents(tmp_path / name))
        assert found == ["checkpoint/config.json", "history.jsonl", "result.json"]


def test_a_folder_that_cannot_be_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InvalidInput, match="--out: cannot be written to: File exists"):
        single.train_one({}, (), 1, tmp_path / "file", lambda metrics: None)
    assert (tmp_path / "file").read_text() == "kept"
