"""Presets: the studies that are installed with `ablate`, found by name; or any file by path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.plan.document import read_document
from trainables.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """The text of a study: its name, where it stands, and what is written there."""

    name: str
    place: str
    text: str


@dataclass(frozen=True)
class Preset:
    """A study that is installed with `ablate`, and what it asks."""

    name: str
    question: str


def preset_names() -> tuple[str, ...]:
    """The names of the presets, sorted."""
    return tuple(sorted(_found()))


def presets() -> tuple[Preset, ...]:
    """Every preset with the first line of its question, sorted by name."""
    listed = []
    for name, file in sorted(_found().items()):
        document, _ = read_document(file.read_text(encoding="utf-8"), str(file))
        blocks = document.value if isinstance(document.value, dict) else {}
        lines = str(blocks.get("question", "")).strip().splitlines()
        listed.append(Preset(name, lines[0] if lines else ""))
    return tuple(listed)


def find_study(source: str) -> Source:
    """The text of a preset by name, or of a `.yaml` file by path.

    Raises InvalidInput when there is neither, or when the file cannot be read as text.
    """
    path = Path(source)
    if path.suffix not in SUFFIXES and not path.is_file():
        found = _found()
        if source not in found:
            known = ", ".join(sorted(found))
            rule = f"is neither a preset nor a file; presets: {known}"
            raise InvalidInput([Problem("study", rule, source, nearest(source, found))])
        return Source(source, str(found[source]), found[source].read_text(encoding="utf-8"))
    try:
        return Source(path.stem, source, path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or "is unreadable"
        raise InvalidInput([Problem("study", f"cannot be read: {reason}", source)]) from None
    except UnicodeDecodeError as error:
        rule = f"is not UTF-8 text: byte {error.start} cannot be read"
        raise InvalidInput([Problem("study", rule, source)]) from None


def _found() -> dict[str, Traversable]:
    return {file.name.rpartition(".")[0]: file for file in _files(files("search_spaces"))}


def _files(folder: Traversable) -> Iterator[Traversable]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _files(item)
        elif item.name.endswith(SUFFIXES):
            yield item
