"""Content-addressed folders, made once and shared by every process on every machine.

A folder's place follows from what it is made of, so nothing in it can be out of date. It appears
by one rename, complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from trainables.errors import InvalidInput, Problem

JSON = Union[str, int, float, bool, None, "Sequence[JSON]", "Mapping[str, JSON]"]
"""What a key may be made of."""

_KEY_FILE = "key.json"
_SIZES_FILE = "sizes.json"
_MAKING = ".making"
_LOCKS = ".locks"


class Cache:
    """Folders `<root>/<kind>/<hash of key>`; see `folder`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @classmethod
    def default(cls) -> Cache:
        """The user's cache: `$ABLATE_CACHE`, or `~/.cache/ablate`."""
        chosen = os.environ.get("ABLATE_CACHE")
        return cls(Path(chosen) if chosen else Path.home() / ".cache" / "ablate")

    def find(self, kind: str, key: Mapping[str, JSON]) -> Path | None:
        """The finished folder of `key`, or None, also when a file of it is not as it was made."""
        path = self.root / kind / digest(key)
        return path if path.is_dir() and _is_whole(path) else None

    def finished(self, kind: str) -> list[Path]:
        """Every finished folder of a kind, sorted by name."""
        home = self.root / kind
        if not home.is_dir():
            return []
        return sorted(path for path in home.iterdir() if not path.name.startswith("."))

    def folder(self, kind: str, key: Mapping[str, JSON], make: Callable[[Path], None]) -> Path:
        """The folder of `key`; when it is absent, `make(empty folder)` fills it first.

        One process makes while the others that want the same key wait; a process that dies while
        making frees the lock, and the next one starts over. What `make` raises is passed on and
        leaves nothing behind. Raises InvalidInput when the cache cannot be written.
        """
        from filelock import FileLock

        found = self.find(kind, key)
        if found is not None:
            return found
        name = digest(key)
        making = self._prepare(kind)
        with FileLock(self.root / kind / _LOCKS / name):
            found = self.find(kind, key)
            if found is not None:
                return found
            self._clean(kind, holding=name)
            return self._make(
                kind, key, make, Path(tempfile.mkdtemp(prefix=f"{name}.", dir=making))
            )

    def abandoned(self) -> list[Path]:
        """What makers that died left half-made: folders whose lock nobody holds."""
        from filelock import FileLock, Timeout

        found = []
        for leftover in sorted(self.root.glob(f"*/{_MAKING}/*")):
            name = leftover.name.partition(".")[0]
            try:
                with FileLock(leftover.parents[1] / _LOCKS / name, timeout=0):
                    found.append(leftover)
            except Timeout:
                continue
        return found

    def _make(
        self, kind: str, key: Mapping[str, JSON], make: Callable[[Path], None], temporary: Path
    ) -> Path:
        final = self.root / kind / digest(key)
        try:
            make(temporary)
            text = json.dumps(key, sort_keys=True, indent=1, ensure_ascii=False)
            (temporary / _KEY_FILE).write_text(text + "\n", encoding="utf-8")
            sizes = json.dumps(_sizes(temporary), sort_keys=True, indent=1)
            (temporary / _SIZES_FILE).write_text(sizes + "\n", encoding="utf-8")
            temporary.chmod(0o755)
            if final.exists():
                # Damaged. A reader that has it open keeps what it has open.
                damaged = Path(tempfile.mkdtemp(prefix=f"{final.name}.", dir=temporary.parent))
                final.rename(damaged / final.name)
                shutil.rmtree(damaged)
            temporary.rename(final)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
        return final

    def _prepare(self, kind: str) -> Path:
        making = self.root / kind / _MAKING
        try:
            making.mkdir(parents=True, exist_ok=True)
            (self.root / kind / _LOCKS).mkdir(exist_ok=True)
        except OSError as error:
            rule = f"cannot be written: {error.strerror}; set ABLATE_CACHE to another folder"
            raise InvalidInput([Problem("cache", rule, str(self.root))]) from error
        return making

    def _clean(self, kind: str, holding: str) -> None:
        """Removes what dead makers left: a folder whose lock is free has no living maker."""
        from filelock import FileLock, Timeout

        for leftover in (self.root / kind / _MAKING).iterdir():
            name = leftover.name.partition(".")[0]
            if name == holding:
                shutil.rmtree(leftover, ignore_errors=True)
                continue
            lock = FileLock(self.root / kind / _LOCKS / name, timeout=0)
            try:
                with lock:
                    shutil.rmtree(leftover, ignore_errors=True)
            except Timeout:
                continue


def _sizes(folder: Path) -> dict[str, int]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != _SIZES_FILE)
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _is_whole(folder: Path) -> bool:
    """Whether the files are there in full. Sizes, not hashes: this is asked at every use."""
    try:
        made = json.loads((folder / _SIZES_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return bool(made == _sizes(folder))


def read_key(folder: Path) -> dict[str, Any]:
    """The key of a finished folder."""
    key: dict[str, Any] = json.loads((folder / _KEY_FILE).read_text(encoding="utf-8"))
    return key


def digest(key: Mapping[str, JSON]) -> str:
    """Twenty hex digits that name `key`: a hash of its canonical JSON form."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
