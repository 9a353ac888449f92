"""Collection: passages, queries and their judgements, read once and then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trainables.data.cache import Cache, digest
from trainables.data.collections.builder import FACTS, Builder, read_faults
from trainables.data.collections.faults import Fault
from trainables.data.collections.judgements import Judgements, read_judgements
from trainables.data.collections.registry import entry_of, located, short_name
from trainables.data.collections.texts import Texts
from trainables.errors import InvalidInput, Problem, unknown

READER = 1
"""Version of what readers make of files. Raised when the same bytes give another collection."""

T = TypeVar("T")

_RECENT_NS = 2 * 10**9


@dataclass(frozen=True)
class Collection:
    """Passages, queries and judgements under one fingerprint; its arrays are memory-mapped."""

    name: str
    """Short name, as in metrics."""
    origin: str
    revision: str
    licence: str
    fingerprint: str
    splits: tuple[str, ...]
    sources: tuple[str, ...]
    """Label sources beside the splits' own judgements."""
    warnings: tuple[Fault, ...]
    """What is wrong with the files, though not fatally."""
    notes: tuple[str, ...]
    folder: Path
    passages: Texts
    queries: Texts

    def judgements(self, split: str) -> Judgements:
        """The human judgements of `split`. Raises InvalidInput for a split it lacks."""
        if split not in self.splits:
            raise InvalidInput([unknown(f"split of {self.name}", split, self.splits)])
        return read_judgements(self.folder / "qrels" / f"{split}.arrow")

    def labels(self, source: str) -> Judgements:
        """The judgements of a further source. Raises InvalidInput for a source it lacks."""
        if source not in self.sources:
            raise InvalidInput([unknown(f"label source of {self.name}", source, self.sources)])
        return read_judgements(self.folder / "labels" / f"{source}.arrow")


def open_collection(name: str, cache: Cache) -> Collection:
    """The collection of a built-in name or a path; read once, afterwards opened in no time.

    Raises UnusableCollection, an InvalidInput with every fault, when the files cannot be used, and
    InvalidInput when there is no such collection.
    """
    mark = fingerprint(name, cache)
    key = {"collection": mark}
    read, expected, shown = _reader(name)

    def make(folder: Path) -> None:
        builder = Builder(folder, name)
        read(builder)
        builder.finish(expected, shown)

    return _opened(name, mark, cache.folder("collections", key, make))


def find_collection(name: str, cache: Cache) -> Collection | None:
    """The collection as `open_collection` left it in the cache, or None; nothing is read or made.

    Raises InvalidInput when there is no such collection.
    """
    mark = fingerprint(name, cache)
    folder = cache.find("collections", {"collection": mark})
    return None if folder is None else _opened(name, mark, folder)


def _opened(name: str, mark: str, folder: Path) -> Collection:
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    origin, revision, licence = _provenance(name)
    return Collection(
        name=short_name(name),
        origin=origin,
        revision=revision,
        licence=licence,
        fingerprint=mark,
        splits=tuple(facts["splits"]),
        sources=tuple(facts["sources"]),
        warnings=read_faults(facts),
        notes=tuple(facts["notes"]),
        folder=folder,
        passages=Texts(folder, "passages"),
        queries=Texts(folder, "queries"),
    )


def fingerprint(name: str, cache: Cache | None = None) -> str:
    """Identity of a collection's content, 20 hex digits, without reading it into a collection.

    Of a path: a hash of its files' bytes, remembered in `cache` (by default the user's) as long as
    their sizes and times stay. Of a built-in collection: its revision, or the versions of the
    packages that it is made from. Raises InvalidInput when there is no such collection.
    """
    entry = entry_of(name)
    if entry is not None:
        return digest({"content": entry.fingerprint(), "reader": READER})
    path, form = located(name)
    memo = (cache or Cache.default()).root / "fingerprints" / f"{digest({'path': str(path)})}.json"
    files = sorted(form.files(path))
    state = {str(file.relative_to(path)): _readable(_state, file) for file in files}
    key: dict[str, object] = {"form": form.name, "reader": READER, "files": state}
    known = _read_memo(memo)
    if known is not None and known["key"] == json.loads(json.dumps(key)):
        return str(known["fingerprint"])
    content = {relative: _readable(_hash, path / relative) for relative in state}
    mark = digest({"form": form.name, "reader": READER, "files": content})
    newest = max((mtime for _, mtime in state.values()), default=0)
    if time.time_ns() - newest > _RECENT_NS:
        _write_memo(memo, {"key": key, "fingerprint": mark})
    return mark


def _reader(
    name: str,
) -> tuple[Callable[[Builder], None], Mapping[str, int], Mapping[str, str]]:
    entry = entry_of(name)
    if entry is not None:
        return entry.read, entry.expected, {"passages": "corpus", "queries": "queries"}
    path, form = located(name)
    return (lambda builder: form.read(path, builder)), {}, form.shown


def _provenance(name: str) -> tuple[str, str, str]:
    entry = entry_of(name)
    if entry is not None:
        return entry.origin, entry.revision(), entry.licence
    return str(located(name)[0]), "the files' bytes", "not stated"


def _readable(read: Callable[[Path], T], file: Path) -> T:
    try:
        return read(file)
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        raise InvalidInput([Problem("collection", rule, None, None, str(file))]) from error


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _hash(file: Path) -> str:
    content = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def _read_memo(memo: Path) -> dict[str, object] | None:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and {"key", "fingerprint"} <= known.keys() else None


def _write_memo(memo: Path, content: dict[str, object]) -> None:
    """Remembers a fingerprint; where the cache cannot be written it is computed again."""
    temporary = memo.with_name(f"{memo.name}.{time.time_ns()}")
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(memo)
    except OSError:
        return
