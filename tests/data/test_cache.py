"""The cache between processes: made once, seen whole or not at all, never blocked by the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainables.data.cache import JSON, Cache, digest
from trainables.errors import InvalidInput

KEY: dict[str, JSON] = {"what": "numbers", "count": 200}

MAKER = """
import os, sys, time
from pathlib import Path
from trainables.data.cache import Cache

root, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def make(folder):
    with log.open("a") as file:
        file.write(f"made by {os.getpid()}\\n")
    for number in range(200):
        (folder / f"{number}.txt").write_text(str(number))
        if number == 100:
            time.sleep(pause)

folder = Cache(root).folder("numbers", {"what": "numbers", "count": 200}, make)
seen = [int((folder / f"{number}.txt").read_text()) for number in range(200)]
assert seen == list(range(200)), "half a folder was seen"
assert (folder / "key.json").exists()
print(folder)
"""


def start(cache: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(cache), str(log), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )


def test_eight_processes_make_it_once_and_see_it_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(tmp_path / "cache", log, 0.5) for _ in range(8)]
    finished = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, finished
    assert len({output for output, _ in finished}) == 1
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_maker_blocks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    dying = start(cache, log, 60)
    deadline = time.monotonic() + 60
    while not list(cache.glob("numbers/.making/*/100.txt")):
        assert time.monotonic() < deadline and dying.poll() is None, dying.communicate()
        time.sleep(0.02)
    waiting = start(cache, log, 0)
    os.kill(dying.pid, signal.SIGKILL)
    dying.communicate()
    output, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert Path(output.strip()).is_dir()
    assert len(log.read_text().splitlines()) == 2
    assert list((cache / "numbers" / ".making").iterdir()) == []


def test_leftovers_of_other_keys_are_cleaned_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    leftover = tmp_path / "numbers" / ".making" / f"{digest({'dead': 1})}.abc"
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("half")
    cache.folder("numbers", KEY, lambda folder: None)
    assert not leftover.exists()


def test_found_only_when_finished_with_its_key_beside_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.find("numbers", KEY) is None

    def make(folder: Path) -> None:
        assert cache.find("numbers", KEY) is None
        (folder / "content").write_text("done")

    folder = cache.folder("numbers", KEY, make)
    assert cache.find("numbers", KEY) == folder
    assert json.loads((folder / "key.json").read_text()) == KEY
    assert (folder / "content").read_text() == "done"
    assert cache.folder("numbers", KEY, lambda _: pytest.fail("made twice")) == folder


def test_other_keys_and_kinds_are_other_folders(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys: list[dict[str, JSON]] = [KEY, KEY | {"count": 201}, {"count": 200}]
    folders = {cache.folder("a", key, lambda folder: None) for key in keys}
    folders.add(cache.folder("b", KEY, lambda folder: None))
    assert len(folders) == 4
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_maker_that_raises_leaves_nothing_and_may_try_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise InvalidInput([])

    with pytest.raises(InvalidInput):
        cache.folder("numbers", KEY, fail)
    assert cache.find("numbers", KEY) is None
    assert list((tmp_path / "numbers" / ".making").iterdir()) == []
    assert cache.folder("numbers", KEY, lambda folder: None).is_dir()


def test_making_one_folder_may_make_another(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(folder: Path) -> None:
        cache.folder("numbers", {"inner": True}, lambda inner: None)

    cache.folder("numbers", KEY, make)
    assert cache.find("numbers", {"inner": True}) is not None


def test_an_unwritable_root_is_a_mistake_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="ABLATE_CACHE"):
        Cache(tmp_path / "file").folder("numbers", KEY, lambda folder: None)


def test_the_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", "/somewhere/else")
    assert Cache.default().root == Path("/somewhere/else")
    monkeypatch.delenv("ABLATE_CACHE")
    assert Cache.default().root == Path.home() / ".cache" / "ablate"
