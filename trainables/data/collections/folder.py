"""BEIR's layout: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`; and `labels/<source>.tsv`.

Each file may be gzipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Form
from trainables.data.collections.judgements import JudgementsWriter
from trainables.data.collections.reading import (
    joined,
    read_identifier,
    read_judged,
    read_records,
    read_text,
)

_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
_QUERIES = ("queries.jsonl", "queries.jsonl.gz")
_JUDGED = (".tsv", ".tsv.gz")


def matches(path: Path) -> bool:
    """Whether `path` is a folder in BEIR's layout."""
    return any((path / name).is_file() for name in _CORPUS)


def files(path: Path) -> list[Path]:
    """Every file that a collection in BEIR's layout is read from."""
    texts = [path / name for name in (*_CORPUS, *_QUERIES) if (path / name).is_file()]
    return texts + [file for part in ("qrels", "labels") for file in _inside(path / part)]


def splits(path: Path) -> list[str]:
    """The names of the splits that have judgements."""
    return [_stem(file) for file in _inside(path / "qrels") if _is_judged(file)]


def read(path: Path, builder: Builder) -> None:
    """Reads a folder in BEIR's layout into `builder`."""
    for names, add in ((_CORPUS, builder.passage), (_QUERIES, builder.query)):
        file = _only(path, names, builder)
        if file is None:
            continue
        for line, record in read_records(file, file.name, builder.faults):
            try:
                identifier, text = read_identifier(record, "_id"), read_text(record, "text")
            except ValueError as error:
                builder.faults.error("record", file.name, line, str(error))
                continue
            add(identifier, joined(record.get("title"), text), file.name, line)
    _read_judged(path, "qrels", builder.judgements, builder)
    _read_judged(path, "labels", builder.labels, builder)


def _read_judged(
    path: Path, part: str, place: Callable[[str, str], JudgementsWriter | None], builder: Builder
) -> None:
    seen: set[str] = set()
    for file in _inside(path / part):
        shown = f"{part}/{file.name}"
        if not _is_judged(file):
            detail = f"is not read: its name must end in {' or '.join(_JUDGED)}"
            builder.faults.warning("unread", shown, None, detail)
            continue
        if _stem(file) in seen:
            detail = "stands beside a file of the same name, gzipped or not: one of them must go"
            builder.faults.error("ambiguous", shown, None, detail)
            continue
        seen.add(_stem(file))
        writer = place(_stem(file), shown)
        if writer is None:
            continue
        for line, (query, passage, grade) in read_judged(file, shown, builder.faults):
            writer.add(query, passage, grade, line)


def _only(path: Path, names: tuple[str, ...], builder: Builder) -> Path | None:
    found = [path / name for name in names if (path / name).is_file()]
    if not found:
        builder.faults.error("missing", names[0], None, "is missing")
        return None
    if len(found) > 1:
        detail = f"stands beside {found[0].name}: one of them must go"
        builder.faults.error("ambiguous", found[1].name, None, detail)
    return found[0]


def _inside(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            yield file


def _is_judged(file: Path) -> bool:
    return file.name.endswith(_JUDGED)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".tsv")


SHOWN = {"passages": _CORPUS[0], "queries": _QUERIES[0]}
FORM = Form("beir", matches, files, splits, read, SHOWN)
