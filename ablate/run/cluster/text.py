"""YAML with comments: sections of keys, each below a comment that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Section = tuple[str, Mapping[str, Any]]
"""A comment, and the keys below it."""


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs twice in full, both times."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(sections: Sequence[Section]) -> str:
    """The sections in the order given."""
    return "\n".join(comment(text) + dump(content) for text, content in sections)


def dump(content: Mapping[str, Any]) -> str:
    """Content as YAML, keys in their order."""
    text: str = yaml.dump(dict(content), Dumper=_Plain, sort_keys=False, width=110)
    return text


def comment(text: str) -> str:
    """Text as comment lines."""
    return "".join(f"# {line}".rstrip() + "\n" for line in text.strip().splitlines())
