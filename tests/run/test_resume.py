"""What an unfinished training goes on from: a kill while it is replaced costs only the newest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from ablate.run.resume import PLACES, Resume
from ablate.run.store import Store
from trainables.whole import SEAL, seal


@pytest.fixture
def objects(tmp_path: Path) -> Store:
    """An object store, which puts a folder in place file by file."""
    store = Store(tmp_path / "runs")
    files = LocalFileSystem(auto_mkdir=True)
    store.local, store._files = None, fs.PyFileSystem(fs.FSSpecHandler(files))
    return store


def sealed(tmp_path: Path, step: int) -> Path:
    folder = tmp_path / f"step{step}"
    folder.mkdir()
    (folder / "model").write_text(f"model of {step}")
    (folder / "state").write_text(f"state of {step}")
    seal(folder)
    return folder


def kept(tmp_path: Path, resume: Resume, *steps: int) -> None:
    """Keep these steps in turn, a second apart by the store's clock."""
    home = tmp_path / "runs" / "trials" / "a"
    for step in steps:
        resume.keep(sealed(tmp_path, step))
        for file in home.glob("*/state"):
            if file.read_text() == f"state of {step}":
                os.utime(file.parent / SEAL, (step, step))


def newest(tmp_path: Path, resume: Resume) -> str | None:
    """What a trial goes on from, as it is after the process that kept it is gone."""
    copies = tmp_path / f"copies{len(list(tmp_path.glob('copies*')))}"
    copies.mkdir()
    folder = resume.newest(copies)
    return None if folder is None else (folder / "state").read_text()


def places(tmp_path: Path) -> dict[str, str]:
    """Name of each place that is there -> the training state in it, if any."""
    files = {place: tmp_path / "runs" / "trials" / "a" / place / "state" for place in PLACES}
    return {
        place: file.read_text() if file.exists() else ""
        for place, file in files.items()
        if file.parent.exists()
    }


def test_on_local_disk_there_is_one_place(tmp_path: Path) -> None:
    resume = Resume(Store(tmp_path / "runs"), "a")
    assert newest(tmp_path, resume) is None
    kept(tmp_path, resume, 1, 2, 3)
    assert places(tmp_path) == {PLACES[0]: "state of 3"}
    assert newest(tmp_path, Resume(Store(tmp_path / "runs"), "a")) == "state of 3"
    resume.delete()
    assert places(tmp_path) == {}


def test_an_object_store_has_the_last_two(objects: Store, tmp_path: Path) -> None:
    resume = Resume(objects, "a")
    assert newest(tmp_path, resume) is None
    kept(tmp_path, resume, 1, 2, 3)
    assert sorted(places(tmp_path).values()) == ["state of 2", "state of 3"]
    assert newest(tmp_path, Resume(objects, "a")) == "state of 3"


def short_of(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).unlink()


def replaced_in_part(place: Path) -> None:
    """The seal is already the new folder's, a file is still the old one's."""
    (place / "state").write_text("state of an older step")


@pytest.mark.parametrize(
    "tear",
    [short_of("state"), short_of(SEAL), replaced_in_part],
    ids=["a file is missing", "the seal is missing", "a file is of before"],
)
def test_a_folder_that_a_kill_tore_is_passed_over_and_replaced_next(
    objects: Store, tmp_path: Path, tear: Callable[[Path], None]
) -> None:
    before = Resume(objects, "a")
    kept(tmp_path, before, 1, 2)
    torn = next(place for place, state in places(tmp_path).items() if state == "state of 2")
    tear(tmp_path / "runs" / "trials" / "a" / torn)

    after = Resume(objects, "a")
    assert newest(tmp_path, after) == "state of 1"
    kept(tmp_path, after, 3)
    assert places(tmp_path)[torn] == "state of 3"
    assert sorted(places(tmp_path).values()) == ["state of 1", "state of 3"]
    assert newest(tmp_path, Resume(objects, "a")) == "state of 3"


def test_a_folder_whose_upload_fails_costs_nothing_that_is_kept(
    objects: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = Resume(objects, "a")
    kept(tmp_path, resume, 1, 2)
    with monkeypatch.context() as broken:
        broken.setattr("pyarrow.fs.copy_files", killed)
        with pytest.raises(KeyboardInterrupt):
            kept(tmp_path, resume, 3)
    assert newest(tmp_path, Resume(objects, "a")) == "state of 2"


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_next_after_going_on_replaces_the_older(objects: Store, tmp_path: Path) -> None:
    kept(tmp_path, Resume(objects, "a"), 1, 2, 3)
    after = Resume(objects, "a")
    assert newest(tmp_path, after) == "state of 3"
    kept(tmp_path, after, 4)
    assert sorted(places(tmp_path).values()) == ["state of 3", "state of 4"]


def test_nothing_whole_is_nothing(objects: Store, tmp_path: Path) -> None:
    kept(tmp_path, Resume(objects, "a"), 1, 2)
    found = list((tmp_path / "runs" / "trials" / "a").iterdir())
    assert len(found) == 2
    for place in found:
        (place / "model").unlink()
    assert newest(tmp_path, Resume(objects, "a")) is None


def test_both_places_are_deleted(objects: Store, tmp_path: Path) -> None:
    resume = Resume(objects, "a")
    kept(tmp_path, resume, 1, 2)
    assert set(places(tmp_path)) == set(PLACES)
    Resume(objects, "a").delete()
    assert places(tmp_path) == {}
    assert list((tmp_path / "runs" / "trials" / "a").iterdir()) == []
