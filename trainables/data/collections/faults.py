"""What is wrong with a collection's files: file, line, reason; all of it in one list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from trainables.errors import InvalidInput, Problem

_LINE_BITS = 40
_REST = re.compile(r"and ([0-9,]+) more of this kind")

LISTED_PER_KIND = 20
"""Faults of one kind in one file that are listed singly; the rest are counted in one line."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a collection: a fatal one makes it unusable, the others are warnings."""

    kind: str
    file: str
    line: int | None
    detail: str
    fatal: bool

    @property
    def count(self) -> int:
        """How many faults it stands for: more than one in the line that stands for the rest."""
        rest = _REST.fullmatch(self.detail)
        return int(rest[1].replace(",", "")) if rest else 1

    def to_json(self) -> dict[str, object]:
        """The fault as `{kind, file, line, detail, fatal}`."""
        return {
            "kind": self.kind,
            "file": self.file,
            "line": self.line,
            "detail": self.detail,
            "fatal": self.fatal,
        }

    def problem(self, collection: str) -> Problem:
        """The fault as a line of InvalidInput; `collection` says where the file belongs."""
        place = f"{collection}/{self.file}" if collection else self.file
        if self.line is not None:
            place = f"{place}:{self.line}"
        return Problem(self.kind, self.detail, None, None, place)


class UnusableCollection(InvalidInput):
    """A collection cannot be used; `faults` holds all that was found, warnings included."""

    def __init__(self, faults: Iterable[Fault], collection: str = "") -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        self.collection = collection
        super().__init__(fault.problem(collection) for fault in self.faults if fault.fatal)

    def __reduce__(self) -> tuple[type[UnusableCollection], tuple[tuple[Fault, ...], str]]:  # type: ignore[override]
        return (UnusableCollection, (self.faults, self.collection))


class Faults:
    """Collects faults while files are read; long runs of one kind become a count."""

    def __init__(self) -> None:
        self._listed: list[Fault] = []
        self._counts: Counter[tuple[str, str, bool]] = Counter()

    def error(self, kind: str, file: str, line: int | None, detail: str) -> None:
        """Adds a fault that makes the collection unusable."""
        self._add(Fault(kind, file, line, detail, fatal=True))

    def warning(self, kind: str, file: str, line: int | None, detail: str) -> None:
        """Adds a fault that the reader must know of and may live with."""
        self._add(Fault(kind, file, line, detail, fatal=False))

    def _add(self, fault: Fault) -> None:
        group = (fault.kind, fault.file, fault.fatal)
        self._counts[group] += 1
        if self._counts[group] <= LISTED_PER_KIND:
            self._listed.append(fault)

    @property
    def fatal(self) -> bool:
        """Whether any fault so far makes the collection unusable."""
        return any(fatal for _, _, fatal in self._counts)

    def all(self) -> tuple[Fault, ...]:
        """The faults in order of discovery, with one line for each group that was cut short."""
        rest = [
            Fault(kind, file, None, f"and {count - LISTED_PER_KIND:,} more of this kind", fatal)
            for (kind, file, fatal), count in self._counts.items()
            if count > LISTED_PER_KIND
        ]
        return (*self._listed, *rest)


class Places:
    """Where rows stood, each as one number: small enough to keep for millions of them."""

    def __init__(self) -> None:
        self._files: list[str] = []

    def number(self, file: str, line: int) -> int:
        """The number of a line of a file."""
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        return (len(self._files) - 1) << _LINE_BITS | line

    def file_and_line(self, number: int) -> tuple[str, int]:
        """The file and the line of a number."""
        return self._files[int(number) >> _LINE_BITS], int(number) & ((1 << _LINE_BITS) - 1)
