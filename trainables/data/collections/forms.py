"""What a collection is read from: a path of some form, or a built-in entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.data.collections.builder import Builder


@dataclass(frozen=True)
class Form:
    """One form: how it is recognised, what it is read from, and how."""

    name: str
    matches: Callable[[Path], bool]
    files: Callable[[Path], list[Path]]
    splits: Callable[[Path], list[str]]
    read: Callable[[Path, Builder], None]
    shown: Mapping[str, str]
    """What the files of the `passages` and of the `queries` are called in faults."""


@dataclass(frozen=True)
class Entry:
    """A built-in collection: what is known of it before it is read, and how to read it."""

    name: str
    summary: str
    origin: str
    revision: Callable[[], str]
    licence: str
    splits: tuple[str, ...]
    fingerprint: Callable[[], str]
    read: Callable[[Builder], None]
    expected: Mapping[str, int] = field(default_factory=dict)
    """Counts that the origin states: `passages`, `queries`."""
