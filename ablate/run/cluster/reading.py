"""The text of a cluster file: read as YAML, and looked through for values of a wrong kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import InvalidInput, Problem, nearest

Kinds = Sequence[tuple[str, type]]
"""Dotted keys, `*` for every item of a list or mapping, and the type of what may stand there."""

_CALLED: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "text"}


class _Loader(yaml.SafeLoader):
    """PyYAML's, but a scalar that it cannot make a value of is an error with a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError):
            problem = f"cannot read {node.value!r} as a value of {node.tag}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def documents_of(path: Path) -> list[dict[str, Any]]:
    """The documents of the file, each a mapping; raises InvalidInput when there are none."""
    place, rule = str(path), ""
    try:
        text = path.read_text("utf-8")
        documents = [doc for doc in yaml.load_all(text, _Loader) if doc is not None]
        for document in documents:
            json.dumps(document, default=str, skipkeys=True)
    except FileNotFoundError:
        rule = "does not exist; ablate cluster template aws|gcp|local|kuberay prints one"
        raise InvalidInput([Problem("--cluster", rule, place)]) from None
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        rule = f"is not UTF-8 text: byte {error.start} cannot be read"
    except yaml.YAMLError as error:
        rule = f"is not YAML: {' '.join(str(error).split())}"
    except (RecursionError, ValueError):
        rule = "holds a value that is within itself, or too deep"
    if rule:
        raise InvalidInput([Problem("--cluster", rule, place=place)])
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise InvalidInput([Problem("--cluster", "must hold a mapping", place=place)])
    return documents


def wrong_kinds(content: Any, kinds: Kinds, place: str) -> list[Problem]:
    """The values that are not of the type that `kinds` has for their key; null is no value, but
    for an item of a list."""
    return [
        Problem(key, f"must be {_CALLED[kind]}", "null" if value is None else value, place=place)
        for pattern, kind in kinds
        for key, value in _found(content, pattern.split("."))
        if not isinstance(value, kind)
    ]


def wrong_prices(key: str, prices: Any, types: Collection[str], place: str) -> list[Problem]:
    """Mistakes in the prices by type of node; without `types`, any type may have one."""
    if not isinstance(prices, Mapping):
        return [] if prices is None else [Problem(key, "must be a mapping", prices, place=place)]
    found = []
    for name, price in prices.items():
        own = f"{key}.{name}"
        if types and name not in types:
            rule = f"is no type of node; known: {', '.join(sorted(types))}"
            found.append(Problem(own, rule, name, nearest(str(name), types), place))
        if price is not None and not _is_amount(price):
            found.append(Problem(own, "must be a number of dollars, 0 or more", price, None, place))
    return found


def wrong_amounts(key: str, amounts: Any, place: str) -> list[Problem]:
    """Mistakes in what a host has of each resource."""
    if not isinstance(amounts, Mapping):
        return [] if amounts is None else [Problem(key, "must be a mapping", amounts, place=place)]
    rule = "must be a number, 0 or more, as in {CPU: 8, GPU: 1}"
    return [
        Problem(f"{key}.{name}", rule, "null" if amount is None else amount, place=place)
        for name, amount in amounts.items()
        if not _is_amount(amount)
    ]


def _is_amount(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= sys.float_info.max


def _found(content: Any, parts: Sequence[str], key: str = "") -> Iterator[tuple[str, Any]]:
    """Where a pattern leads to, and the values there; nowhere past what is of another kind."""
    if not parts:
        yield key, content
        return
    first, rest = parts[0], parts[1:]
    pairs: list[tuple[Any, Any]] = []
    if first == "*" and isinstance(content, list):
        pairs = list(enumerate(content))
    elif isinstance(content, Mapping):
        wanted = content if first == "*" else [first]
        pairs = [(name, content[name]) for name in wanted if content.get(name) is not None]
    for name, value in pairs:
        yield from _found(value, rest, f"{key}.{name}" if key else str(name))
