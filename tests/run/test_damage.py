"""Files that were damaged after they were written are made anew, never trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.cache import Cache
from trainables.whole import SEAL, is_whole, seal


def a_folder(path: Path) -> Path:
    (path / "part").mkdir(parents=True)
    (path / "weights").write_bytes(bytes(range(256)) * 10)
    (path / "part" / "state.json").write_text("{}")
    return path


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "more", "seal"])
def test_a_sealed_folder_notices_every_damage(tmp_path: Path, damage: str) -> None:
    folder = a_folder(tmp_path / "folder")
    assert is_whole(folder, sealed=False) and not is_whole(folder, sealed=True)
    seal(folder)
    assert is_whole(folder, sealed=True)
    file = folder / "weights"
    if damage == "flip":
        file.write_bytes(b"\1" + file.read_bytes()[1:])
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        (folder / "part" / "state.json").unlink()
    elif damage == "more":
        (folder / "extra").write_text("")
    else:
        (folder / SEAL).write_text("{")
    assert not is_whole(folder, sealed=False)


def test_a_cut_cache_entry_is_made_anew(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "tokens").write_bytes(b"x" * 100)

    entry = cache.folder("tokens", {"a": 1}, make)
    assert cache.folder("tokens", {"a": 1}, make) == entry and len(made) == 1
    (entry / "tokens").write_bytes(b"x" * 50)
    assert cache.find("tokens", {"a": 1}) is None
    assert cache.folder("tokens", {"a": 1}, make) == entry and len(made) == 2
    assert (entry / "tokens").read_bytes() == b"x" * 100
    assert list((tmp_path / "tokens" / ".making").iterdir()) == []
