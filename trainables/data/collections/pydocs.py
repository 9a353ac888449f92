"""`pydocs`: the documentation of the scientific packages that are installed, as a collection.

A passage is an entry's name and body, a query is a summary line. The human labels are the entry
itself (grade 2) and the entries that it lists under "See Also" (grade 1). Entries with the same
summary share one query; entries with near-duplicate bodies or with the same summary stand on the
same side of the split.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Entry
from trainables.data.duplicates import Groups, near_duplicates, normalised
from trainables.data.hashing import mix, uniform
from trainables.errors import InvalidInput, Problem

BUILDER = 1
"""Version of what this module makes of docstrings."""

PACKAGES = {"numpy": "numpy", "pandas": "pandas", "scipy": "scipy", "sklearn": "scikit-learn"}
"""Package -> the name under which it is installed."""

MIN_BODY_WORDS = 20
MIN_QUERY_WORDS = 3
SPLITS = (("train", 0.7), ("dev", 0.1), ("test", 0.2))

_LEFT_OUT = {"see also", "examples", "references", "methods"}
_ALIASES = {"np": "numpy", "pd": "pandas", "sp": "scipy"}
_ROLE = re.compile(r":[a-zA-Z:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")
_MARKUP = re.compile(r"`{1,2}([^`]*)`{1,2}_*")
_CITATION = re.compile(r"\s?\[[\w ]+\]_")
_RULE = re.compile(r"\s*[-=]{3,}\s*")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?(\n--)?", re.DOTALL)
_LINK = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Documented:
    """One entry of a package's documentation, cut into what a collection needs."""

    name: str
    aliases: tuple[str, ...]
    summary: str
    body: str
    links: tuple[str, ...]


def parse(name: str, aliases: Sequence[str], doc: str) -> Documented:
    """The parts of a docstring in numpydoc's form; markup is taken out of summary and body."""
    paragraphs = re.split(r"\n\s*\n", doc.strip())
    while len(paragraphs) > 1 and _SIGNATURE.fullmatch(paragraphs[0].strip()):
        del paragraphs[0]
    opening, sections = _sections("\n\n".join(paragraphs))
    summary, _, rest = opening.partition("\n\n")
    kept = [f"{title} {text}" for title, text in sections if title.lower() not in _LEFT_OUT]
    linked = [text for title, text in sections if title.lower() == "see also"]
    return Documented(
        name=name,
        aliases=tuple(aliases),
        summary=_plain(summary),
        body=_plain(" ".join([rest, *kept])),
        links=tuple(_links("\n".join(linked))),
    )


def _sections(doc: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first section, and the sections as (title, text)."""
    lines = doc.split("\n")
    starts = [
        i
        for i in range(len(lines) - 1)
        if lines[i].strip() and not lines[i].startswith(" ") and _RULE.fullmatch(lines[i + 1])
    ]
    sections = [
        (lines[start].strip(), "\n".join(lines[start + 2 : end]))
        for start, end in zip(starts, [*starts, len(lines)][1:], strict=True)
    ]
    return "\n".join(lines[: starts[0] if starts else len(lines)]).strip(), sections


def _plain(text: str) -> str:
    text = _ROLE.sub(r"\1", text)
    text = _CITATION.sub("", _MARKUP.sub(r"\1", text))
    return " ".join(text.split())


def _links(section: str) -> list[str]:
    """The names that a "See Also" section lists, in its order."""
    found: list[str] = []
    for line in section.split("\n"):
        if not line.strip() or line.startswith((" ", "\t", "..")):
            continue
        names = _ROLE.sub(r"\1", line).split(" :")[0].split(": ")[0]
        for name in names.split(","):
            word = _LINK.match(name.strip(" `~"))
            if word:
                found.append(word.group().rstrip("."))
    return list(dict.fromkeys(found))


def documented(packages: Iterable[str]) -> tuple[list[Documented], list[str]]:
    """The entries of the packages' documentation that have enough body, and the notes on reading.

    Raises InvalidInput when the documentation cannot be read at all.
    """
    content = _walk(list(packages))
    entries = [parse(raw["name"], raw["aliases"], raw["doc"]) for raw in content["entries"]]
    full = [entry for entry in entries if len(entry.body.split()) >= MIN_BODY_WORDS]
    notes = [f"not imported: {line}" for line in content["skipped"]]
    short = len(entries) - len(full)
    notes.append(f"{short:,} of {len(entries):,} entries left out: under {MIN_BODY_WORDS} words")
    return full, notes


def _walk(packages: list[str]) -> dict[str, Any]:
    """What `docstrings` writes, run in a process of its own: it imports all of the packages.

    The hash seed is fixed because some docstrings print sets.
    """
    program = "trainables.data.collections.docstrings"
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
        PYTHONHASHSEED="0",
        PYTHONOPTIMIZE="",
    )
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "docstrings.json"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", program, str(file), *packages],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not file.exists():
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            rule = f"the packages' documentation cannot be read: {reason}"
            raise InvalidInput([Problem("pydocs", rule, ", ".join(packages))])
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def read(packages: Iterable[str], builder: Builder) -> None:
    """Reads the documentation of the packages into `builder`."""
    entries, notes = documented(packages)
    for note in notes:
        builder.note(note)
    for row, entry in enumerate(entries):
        builder.passage(entry.name, f"{entry.name} {entry.body}", "passages", row + 1)
    queries: dict[str, list[int]] = {}
    for row, entry in enumerate(entries):
        if len(entry.summary.split()) >= MIN_QUERY_WORDS:
            queries.setdefault(normalised(entry.summary), []).append(row)
    linked = _resolved(entries)
    sides = _sides(entries, queries.values())
    for line, rows in enumerate(queries.values(), start=1):
        identifier = f"query:{entries[rows[0]].name}"
        builder.query(identifier, entries[rows[0]].summary, "queries", line)
        writer = builder.judgements(sides[rows[0]], f"qrels/{sides[rows[0]]}")
        if writer is None:
            continue
        others = dict.fromkeys(link for row in rows for link in linked[row] if link not in rows)
        for row in rows:
            writer.add(identifier, entries[row].name, 2, line)
        for link in others:
            writer.add(identifier, entries[link].name, 1, line)


def _resolved(entries: Sequence[Documented]) -> list[list[int]]:
    """For each entry the rows of the entries that it links to, without itself."""
    rows = {alias: row for row, entry in enumerate(entries) for alias in entry.aliases}
    rows |= {entry.name: row for row, entry in enumerate(entries)}
    return [
        [
            found
            for found in dict.fromkeys(_resolve(link, entry, rows) for link in entry.links)
            if found is not None and found != row
        ]
        for row, entry in enumerate(entries)
    ]


def _resolve(link: str, entry: Documented, rows: dict[str, int]) -> int | None:
    """The row that `link` names from within `entry`: its class first, then outwards."""
    head, dot, rest = link.partition(".")
    link = f"{_ALIASES.get(head, head)}{dot}{rest}"
    for name in (entry.name, *entry.aliases):
        parts = name.split(".")
        for depth in range(len(parts) - 1, 0, -1):
            found = rows.get(".".join([*parts[:depth], link]))
            if found is not None:
                return found
    return rows.get(link)


def _sides(entries: Sequence[Documented], same_query: Iterable[list[int]]) -> list[str]:
    """The split of each entry, drawn per group by a hash of the group's first name."""
    groups = Groups(len(entries))
    for row, first in enumerate(near_duplicates([entry.body for entry in entries]).tolist()):
        groups.join(first, row)
    for rows in same_query:
        for row in rows[1:]:
            groups.join(rows[0], row)
    return [_side(entries[first].name) for first in groups.labels().tolist()]


def _side(name: str) -> str:
    draw = float(uniform(mix("pydocs split", name)))
    for split, share in SPLITS:
        draw -= share
        if draw < 0:
            return split
    return SPLITS[-1][0]


def installed(packages: Iterable[str]) -> list[str]:
    """Those of `packages` that are installed."""
    return [package for package in packages if _version(package) is not None]


def versions(packages: Iterable[str]) -> str:
    """The installed packages with their versions, and Python's, whose docstrings some inherit."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    names = [f"{package} {_version(package)}" for package in installed(packages)]
    return ", ".join([*names, python])


@cache
def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(PACKAGES[package])
    except metadata.PackageNotFoundError:
        return None


def _entry(name: str, summary: str, packages: tuple[str, ...]) -> Entry:
    def fingerprint() -> str:
        return hashlib.sha256(f"{BUILDER} {versions(packages)}".encode()).hexdigest()[:20]

    return Entry(
        name=name,
        summary=summary,
        origin="docstrings of the installed packages",
        revision=lambda: versions(packages),
        licence="BSD-3-Clause, as the packages",
        splits=tuple(split for split, _ in SPLITS),
        fingerprint=fingerprint,
        read=lambda builder: read(installed(packages), builder),
    )


def entries() -> list[Entry]:
    """The collections of this module."""
    full = "documentation of numpy, pandas, scipy and scikit-learn, as installed"
    small = "documentation of numpy, as installed"
    return [_entry("pydocs", full, tuple(PACKAGES)), _entry("pydocs/small", small, ("numpy",))]
