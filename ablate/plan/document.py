"""YAML text -> values with the line of every key, and every mistake that YAML lets pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

import yaml

from trainables.errors import InvalidInput, Problem

Path = tuple[Union[str, int], ...]
TAG = "tag:yaml.org,2002:"
NULL, MAP, SEQ = (f"{TAG}{name}" for name in ("null", "map", "seq"))
READ: Mapping[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "timestamp": "a date; quote it for text",
    "binary": "base64",
}
"""What a scalar that carries a tag, or looks like one that does, is read as."""


@dataclass(frozen=True)
class Document:
    """A YAML text as plain values; `lines` has the line (from 1) of every key and list item."""

    source: str
    value: object
    lines: Mapping[Path, int] = field(default_factory=dict)

    def place(self, *path: str | int) -> str:
        """Where `path` stands, as `source:line`; the line of the nearest known parent."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source


@dataclass(frozen=True)
class Entry:
    """One value of a document together with its place."""

    value: object
    document: Document
    path: Path = ()

    def place(self, *inner: str | int) -> str:
        """Where the value, or a part of it, stands."""
        return self.document.place(*self.path, *inner)

    def inner(self, step: str | int) -> Entry:
        """The entry of a key or a list item inside the value."""
        value: Any = self.value
        return Entry(value[step], self.document, (*self.path, step))

    def entries(self) -> dict[str, Entry]:
        """The entries of a mapping's keys; empty for any other value."""
        return {key: self.inner(key) for key in self.value} if isinstance(self.value, dict) else {}


def read_document(text: str, source: str) -> tuple[Document, list[Problem]]:
    """The document of a YAML text and the mistakes found on the way.

    A key that is written twice, an alias, a key that is no text and a damaged scalar are listed and
    reading goes on. Raises InvalidInput where the text is no YAML at all.
    """
    try:
        loader = _Loader(text)
        reader = _Reader(loader, source)
        node = loader.get_single_node()
        value = None if node is None else reader.read(node, ())
    except RecursionError:
        raise InvalidInput([Problem("YAML", "is nested too deeply", place=source)]) from None
    except yaml.YAMLError as error:
        raise InvalidInput([_syntax_problem(error, source)]) from None
    return Document(source, value, reader.lines), loader.aliases(source) + reader.problems


def read_value(text: str, source: str) -> object:
    """The value of a YAML text such as `[0.02, 0.1]`. Raises InvalidInput with every mistake."""
    document, problems = read_document(text, source)
    if problems:
        raise InvalidInput(problems)
    return document.value


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases, which would let one line stand for gigabytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases: list[tuple[str, int]] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            self._aliases.append((event.anchor, event.start_mark.line + 1))
            return yaml.ScalarNode(NULL, "", event.start_mark, event.end_mark)
        return super().compose_node(parent, index)

    def aliases(self, source: str) -> list[Problem]:
        rule = "is an alias, which a study cannot use; write the value out"
        return [Problem(f"*{name}", rule, None, None, f"{source}:{n}") for name, n in self._aliases]


class _Reader:
    """Turns nodes into values, noting lines and mistakes."""

    def __init__(self, loader: _Loader, source: str) -> None:
        self.loader = loader
        self.source = source
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def read(self, node: yaml.Node, path: Path) -> object:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not _is_scalar(node) and node.tag not in (MAP, SEQ):
            self._problem(".".join(map(str, path)), "carries a tag, which is not read", node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return self._scalar(node)
        except ValueError as error:
            self._problem(".".join(map(str, path)) or "value", str(error), node, node.value)
            return None

    def _scalar(self, node: yaml.Node) -> object:
        """The value of a scalar. Raises ValueError, with the rule, when its tag says otherwise."""
        kind = node.tag.removeprefix(TAG)
        try:
            return self.loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            if kind in READ:
                raise ValueError(f"cannot be read as {READ[kind]}") from None
            raise ValueError("carries a tag or a sign of YAML's that is not read") from None
        except ValueError as error:
            raise ValueError(f"cannot be read as {READ.get(kind, kind)}: {error}") from None
        except (LookupError, AttributeError, OverflowError):
            raise ValueError(f"cannot be read as {READ.get(kind, kind)}") from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if not isinstance(key, str):
                shown = key_node.value if _is_scalar(key_node) else "a list or mapping"
                self._problem(str(shown), "is not a key: a key is text", key_node)
            elif key in values:
                first = self.lines[(*path, key)]
                self._problem(key, f"is written twice, first on line {first}", key_node)
            else:
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                values[key] = self.read(value_node, (*path, key))
        return values

    def _key(self, node: yaml.Node) -> object:
        """What a mapping's key is; None where it is no scalar, or a damaged one."""
        try:
            return self._scalar(node) if _is_scalar(node) else None
        except ValueError:
            return None

    def _problem(self, key: str, rule: str, node: yaml.Node, value: object = None) -> None:
        place = f"{self.source}:{node.start_mark.line + 1}"
        self.problems.append(Problem(key, rule, value, None, place))


def _is_scalar(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode)


def _syntax_problem(error: yaml.YAMLError, source: str) -> Problem:
    place = source
    rule = " ".join(str(error).split())
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        rule = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem("YAML", rule, None, None, place)
