"""A study while it is read: what was understood, where every key stands, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ablate.plan.document import Document, Entry
from ablate.plan.keys import check_value
from ablate.plan.known import check_known
from ablate.plan.parts import (
    BLOCKS,
    Axis,
    Budget,
    Confirm,
    Exclusion,
    Resources,
    Select,
    Stop,
    Watch,
)
from ablate.plan.space import Space
from trainables.data.collections import Ref
from trainables.errors import InvalidInput, Problem, nearest
from trainables.spec import Scalar, is_key, unknown_key

PLAIN: tuple[str, ...] = ("question", "evaluate", "exclude")
MAPPED: tuple[str, ...] = tuple(block for block in BLOCKS if block not in PLAIN)
"""Blocks that hold keys; the others hold one value."""


@dataclass
class Blocks:
    """The blocks of a study as written, every value with its place."""

    source: str
    keyed: dict[str, dict[str, Entry]]
    plain: dict[str, Entry]


@dataclass
class Draft:
    """What the readers of the blocks have gathered so far.

    `broken` are keys whose value is wrong; `changed` are keys that the file does not decide alone.
    """

    source: str
    problems: list[Problem] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    changed: frozenset[str] = frozenset()
    question: str = ""
    fixed: dict[str, Scalar] = field(default_factory=dict)
    compare: list[Axis] = field(default_factory=list)
    tune: dict[str, Space] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    evaluate: tuple[Ref, ...] = ()
    budget: Budget = field(default_factory=Budget)
    select: Select | None = None
    watch: Watch | None = None
    stop: Stop | None = None
    exclude: tuple[Exclusion, ...] = ()
    resources: Resources = field(default_factory=Resources)
    confirm: Confirm | None = None

    def wrong(
        self, key: str, rule: str, value: object, place: str | None, hint: str | None = None
    ) -> None:
        """Notes one mistake."""
        self.problems.append(Problem(key, rule, value, hint, place))

    def adopt(self, error: InvalidInput, key: str, place: str) -> None:
        """Notes the mistakes of a value, under the key and the place where it was written."""
        for problem in error.problems:
            rule = problem.rule if problem.key == key else f"{problem.key}: {problem.rule}"
            self.problems.append(replace(problem, key=key, rule=rule, place=place))

    def claim(self, key: str, block: str, place: str) -> bool:
        """Whether `key` is a trial's key that may stand in `block`; notes why not."""
        if not is_key(key):
            self.problems.append(_unknown(key, place))
        elif key == "seed" and block != "repeat":
            rule = f"belongs in repeat, not in {block}: repeat: {{seed: [0, 1, 2]}}"
            self.wrong(key, rule, None, place)
        elif key in self.blocks:
            first = f"{self.blocks[key]} ({self.places[key]})"
            self.wrong(key, f"stands in {block} and in {first}; it belongs in one", None, place)
        else:
            self.blocks[key] = block
            self.places[key] = place
            return True
        return False

    def value(self, key: str, value: object, place: str) -> Scalar:
        """A value of `key`, as a trial stores it; null for a bad one, which is noted."""
        checked, problems = check_value(key, value, place)
        if not problems:
            problems = check_known(key, checked, place)
        if problems:
            self.problems += problems
            self.broken.add(key)
            return None
        return checked


def split_blocks(document: Document, problems: list[Problem]) -> Blocks:
    """The blocks of a study's document; what stands outside them is noted in `problems`."""
    blocks = Blocks(document.source, {name: {} for name in MAPPED}, {})
    if not isinstance(document.value, dict):
        rule = f"must be a mapping of blocks: {', '.join(BLOCKS)}"
        problems.append(Problem("study", rule, document.value, None, document.source))
        return blocks
    for name, value in document.value.items():
        place = document.place(name)
        if name not in BLOCKS:
            problems.append(_unknown_block(name, place))
        elif name not in MAPPED:
            blocks.plain[name] = Entry(value, document, (name,))
        elif isinstance(value, dict):
            blocks.keyed[name] = {
                key: Entry(inner, document, (name, key)) for key, inner in value.items()
            }
        elif value is not None:
            problems.append(Problem(name, "must be a mapping of keys", value, None, place))
    return blocks


def _unknown_block(name: str, place: str) -> Problem:
    if is_key(name):
        rule = "stands outside the blocks; write it in fixed, compare, tune or repeat"
        return Problem(name, rule, None, None, place)
    rule = f"is not a block of a study; known: {', '.join(BLOCKS)}"
    return Problem(name, rule, None, nearest(name, BLOCKS), place)


def _unknown(key: str, place: str) -> Problem:
    if key in {"data", "encoder", "loss", "optim"}:
        rule = f"is a group of keys; write them with dots, such as {key}.{_EXAMPLES[key]}"
        return Problem(key, rule, None, None, place)
    return unknown_key(key, place)


_EXAMPLES: Mapping[str, str] = {
    "data": "train",
    "encoder": "backbone",
    "loss": "name",
    "optim": "lr",
}
