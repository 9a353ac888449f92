"""MS MARCO's own files: `collection.tsv`, `*queries*.tsv`, and qrels by split.

`qrels.<split>.tsv` is a split (`qrels.dev.small.tsv` is `dev-small`, `qrels.tsv` is `test`), and
so are TREC's `2019qrels-pass.txt` and `2020qrels-pass.txt` (`dl19`, `dl20`), whose grades go from 0
to 3: write `PATH/dl19>=2` for TREC's threshold.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainables.data.collections.builder import Builder
from trainables.data.collections.forms import Form
from trainables.data.collections.reading import read_judged, read_lines

_COLLECTION = ("collection.tsv", "collection.tsv.gz")
_QUERIES = re.compile(r".*queries.*\.tsv(\.gz)?")
_QRELS = re.compile(r"qrels(?:\.(?P<split>[A-Za-z0-9._-]+?))?\.(?:tsv|txt)(?:\.gz)?")
_TREC = re.compile(r"20(?P<year>\d\d)qrels-pass\.txt(?:\.gz)?")


def matches(path: Path) -> bool:
    """Whether `path` is a folder with MS MARCO's files."""
    return bool(_named(path, _COLLECTION))


def files(path: Path) -> list[Path]:
    """Every file that the collection is read from."""
    return [*_named(path, _COLLECTION), *_queries(path), *_judged(path).values()]


def splits(path: Path) -> list[str]:
    """The names of the splits that have judgements."""
    return list(_judged(path))


def read(path: Path, builder: Builder) -> None:
    """Reads a folder of MS MARCO's files into `builder`."""
    builder.merge()
    for file in _named(path, _COLLECTION):
        _read_texts(file, builder, passages=True)
    for file in _queries(path):
        _read_texts(file, builder, passages=False)
    for split, file in _judged(path).items():
        writer = builder.judgements(split, file.name)
        if writer is None:
            continue
        for line, (query, passage, grade) in read_judged(file, file.name, builder.faults):
            writer.add(query, passage, grade, line)


def _read_texts(file: Path, builder: Builder, passages: bool) -> None:
    add = builder.passage if passages else builder.query
    for line, row in read_lines(file, file.name, builder.faults):
        identifier, tab, text = row.partition("\t")
        if not tab or identifier.split() != [identifier]:
            detail = "must be an id, a tab and a text"
            builder.faults.error("columns", file.name, line, detail)
        else:
            add(identifier, text.strip(), file.name, line)


def _named(path: Path, names: tuple[str, ...]) -> list[Path]:
    return [path / name for name in names if (path / name).is_file()]


def _queries(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if _QUERIES.fullmatch(file.name))


def _judged(path: Path) -> dict[str, Path]:
    found = {}
    for file in sorted(path.iterdir()):
        plain, trec = _QRELS.fullmatch(file.name), _TREC.fullmatch(file.name)
        if plain:
            found[(plain["split"] or "test").replace(".", "-")] = file
        elif trec:
            found[f"dl{trec['year']}"] = file
    return found


FORM = Form(
    "msmarco", matches, files, splits, read, {"passages": _COLLECTION[0], "queries": "queries.tsv"}
)
