"""Collections on the Hugging Face Hub, in BEIR's form, through `datasets`.

A repository has the configurations `corpus` and `queries` (`_id`, `title`, `text`); its judgements
(`query-id`, `corpus-id`, `score`) are the configuration `default`, or a repository of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Entry
from trainables.data.collections.reading import joined, read_identifier, read_text
from trainables.errors import InvalidInput, Problem

_BATCH = 1000
_SPLITS = {"validation": "dev"}
_PAIR = ("query-id", "corpus-id")


@dataclass(frozen=True)
class Repository:
    """A dataset repository at a revision: a commit, or a branch, which may move."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


def hub_entry(
    name: str,
    summary: str,
    texts: Repository,
    judged: Repository,
    licence: str,
    splits: tuple[str, ...],
    expected: Mapping[str, int],
) -> Entry:
    """The registry entry of a collection on the Hub."""
    pinned = len(texts.revision) == 40 and len(judged.revision) == 40
    revision = f"{texts.revision}, judgements {judged.revision}"
    return Entry(
        name=name,
        summary=summary,
        origin=f"huggingface.co/datasets/{texts.name}",
        revision=lambda: revision if pinned else f"{revision} (not pinned)",
        licence=licence,
        splits=splits,
        fingerprint=lambda: f"{texts} {judged}",
        read=lambda builder: read(name, texts, judged, builder),
        expected=expected,
    )


def hub_name(name: str) -> Repository | None:
    """The repository that `hf:OWNER/NAME[@REVISION]` names, or None for another form of name."""
    found = re.fullmatch(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?", name)
    return Repository(found["name"], found["revision"] or "main") if found else None


def read(name: str, texts: Repository, judged: Repository, builder: Builder) -> None:
    """Reads a collection from the Hub into `builder`.

    Raises InvalidInput when it is out of reach.
    """
    for config, add in (("corpus", builder.passage), ("queries", builder.query)):
        for line, row in _numbered(_load(name, texts, config)):
            try:
                identifier, text = read_identifier(row, "_id"), read_text(row, "text")
            except ValueError as error:
                builder.faults.error("record", config, line, str(error))
                continue
            add(identifier, joined(row.get("title"), text), config, line)
    for split, rows in _load(name, judged, None, text=_PAIR).items():
        writer = builder.judgements(_SPLITS.get(split, split), f"qrels/{split}")
        for line, row in _numbered({split: rows}):
            try:
                query, passage = (read_identifier(row, key) for key in _PAIR)
                grade = _grade(row.get("score"))
            except ValueError as error:
                builder.faults.error("record", f"qrels/{split}", line, str(error))
                continue
            if writer is not None:
                writer.add(query, passage, grade, line)


def _grade(value: object) -> int:
    if isinstance(value, (int, float)) and float(value).is_integer():
        return int(value)
    raise ValueError(f"'score' must be a whole number, is {value!r}")


def _numbered(tables: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of all tables, numbered from 1."""
    number = 0
    for table in tables.values():
        for batch in table.iter(batch_size=_BATCH):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))


def _load(
    name: str, repository: Repository, config: str | None, text: Sequence[str] = ()
) -> Mapping[str, Any]:
    """The tables of a configuration by split, with the columns `text` as text.

    A file without types is read by what it looks like: ids of digits would lose their first zeros.
    """
    from datasets import Features, Value, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded: Mapping[str, Any] = load_dataset(
            repository.name, config, revision=repository.revision
        )
        columns = next(iter(loaded.values())).features
        wrong = [key for key in text if key in columns and columns[key].dtype != "string"]
        if wrong:
            features = Features({**columns, **{key: Value("string") for key in wrong}})
            loaded = load_dataset(
                repository.name, config, revision=repository.revision, features=features
            )
    except (*failures(), RuntimeError, KeyError, DatasetsError) as error:
        raise unreachable(name, str(repository), error) from error
    return loaded


def failures() -> tuple[type[Exception], ...]:
    """What a download from the Hub raises when it does not succeed."""
    from huggingface_hub.errors import HfHubHTTPError

    # The errors of its HTTP library, whichever that is: a connection that breaks is one of them.
    http = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (OSError, ValueError, *http)


def unreachable(name: str, where: str, error: Exception) -> InvalidInput:
    """The mistake of naming a collection that cannot be fetched, and the way around it."""
    # `datasets` says no more than that something went wrong, and keeps the reason as the cause.
    told = error.__cause__ if "generating the dataset" in str(error) else error
    reason = (str(told or error).strip() or type(error).__name__).partition("\n")[0].rstrip(". ")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    way = "HF_HUB_OFFLINE forbids the network: unset it" if offline else "Try again"
    rule = (
        f"cannot be fetched from {where}: {reason}. {way}, or name a folder or zip in "
        "BEIR's layout instead: corpus.jsonl, queries.jsonl, qrels/<split>.tsv"
    )
    return InvalidInput([Problem("collection", rule, name)])
