"""What a user got wrong, as values: every mistake found is listed, and all are raised together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, the rule it breaks, the value seen, and what would be valid."""

    key: str
    rule: str
    value: object = None
    nearest: str | None = None
    place: str | None = None

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        seen = "" if self.value is None else f" (got {self.value!r})"
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{where}{self.key}: {self.rule}{seen}{hint}"


class InvalidInput(ValueError):
    """The input is wrong; `problems` holds every mistake found, in the order of the input."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[tuple[Problem, ...]]]:
        return (InvalidInput, (self.problems,))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(key: str, value: str, known: Sequence[str], place: str | None = None) -> Problem:
    """A problem that says `value` is not one of `known`, with the nearest of them."""
    rule = f"is unknown; known: {', '.join(sorted(known))}"
    return Problem(key, rule, value, nearest(value, known), place)
