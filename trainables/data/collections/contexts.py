"""Training files that carry their passages with them: Tevatron's JSON Lines and DPR's JSON.

Tevatron: a line is {query_id, query, positive_passages, negative_passages}, a passage {docid,
title, text}. DPR: one array of {question, positive_ctxs, hard_negative_ctxs, negative_ctxs}, a
passage {passage_id or psg_id, title, text}.

Each file is a split. Positives become its judgements, grade 1; the negatives that came along
become the label source `negatives`, grade 0. The passages are those of a corpus file
(`corpus.jsonl` with docid, title and text, or DPR's `psgs_w100.tsv`), or else all that the files
mention. A query's id is `<split>-<query_id>`, or its number in the file, because splits number
their queries alike.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainables.data.collections.builder import Builder
from trainables.data.collections.faults import Faults
from trainables.data.collections.forms import Form
from trainables.data.collections.reading import (
    joined,
    open_text,
    peek,
    read_identifier,
    read_lines,
    read_records,
    read_text,
    split_name,
)

NEGATIVES = "negatives"

_DPR_KEYS = (("positive_ctxs",), ("hard_negative_ctxs", "negative_ctxs"))
_TEVATRON_KEYS = (("positive_passages",), ("negative_passages",))

_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
_WIKIPEDIA = ("psgs_w100.tsv", "psgs_w100.tsv.gz")

Record = dict[str, Any]
Reader = Callable[[Path, str, Faults], Iterator[tuple[int, Record]]]


def _is_tevatron(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz")) and '"positive_passages"' in peek(path)


def _is_dpr(path: Path) -> bool:
    start = peek(path) if path.name.endswith((".json", ".json.gz")) else ""
    return start.lstrip().startswith("[") and '"positive_ctxs"' in start


def _form(name: str, belongs: Callable[[Path], bool], records: Reader) -> Form:
    def training(path: Path) -> list[Path]:
        if path.is_file():
            return [path] if belongs(path) else []
        return sorted(file for file in path.iterdir() if file.is_file() and belongs(file))

    def matches(path: Path) -> bool:
        return path.exists() and bool(training(path))

    def files(path: Path) -> list[Path]:
        return [*training(path), *_corpus(path)]

    def splits(path: Path) -> list[str]:
        return list(dict.fromkeys(split_name(file) for file in training(path)))

    def read(path: Path, builder: Builder) -> None:
        builder.merge()
        corpus = _corpus(path)
        for file in corpus:
            read_corpus(file, builder)
        for file in training(path):
            read_training(file, records, builder, own_passages=not corpus)

    shown = {"passages": "the passages", "queries": "the queries"}
    return Form(name, matches, files, splits, read, shown)


def read_training(file: Path, records: Reader, builder: Builder, own_passages: bool) -> None:
    """Reads one split's queries and labels; its passages too when they are the collection's own."""
    positives = 0
    for number, record in records(file, file.name, builder.faults):
        try:
            positives += _add(record, file, number, builder, own_passages)
        except ValueError as error:
            builder.faults.error("record", file.name, number, str(error))
    if not positives:
        builder.faults.warning("empty", file.name, None, "holds no positive passage")


def _corpus(path: Path) -> list[Path]:
    if path.is_file():
        return []
    return [path / name for name in (*_CORPUS, *_WIKIPEDIA) if (path / name).is_file()]


def read_corpus(file: Path, builder: Builder) -> None:
    """Reads the passages of a corpus file."""
    if file.name in _WIKIPEDIA:
        for line, text in read_lines(file, file.name, builder.faults):
            fields = next(csv.reader([text], delimiter="\t"))
            if line == 1 and fields[:1] == ["id"]:
                continue
            if len(fields) != 3:
                detail = f"must have 3 columns (id, text, title), has {len(fields)}"
                builder.faults.error("columns", file.name, line, detail)
                continue
            builder.passage(fields[0], joined(fields[2], fields[1]), file.name, line)
        return
    for line, record in read_records(file, file.name, builder.faults):
        try:
            key = "docid" if "docid" in record else "_id"
            identifier, text = read_identifier(record, key), read_text(record, "text")
        except ValueError as error:
            builder.faults.error("record", file.name, line, str(error))
            continue
        builder.passage(identifier, joined(record.get("title"), text), file.name, line)


def _add(record: Record, file: Path, number: int, builder: Builder, own_passages: bool) -> int:
    """Adds a query with its passages and labels; returns the number of its positives."""
    split, dpr = split_name(file), "question" in record
    query, text = f"{split}-{number}", read_text(record, "question" if dpr else "query")
    if not dpr:
        query = f"{split}-{read_identifier(record, 'query_id')}"
    positives, negatives = _DPR_KEYS if dpr else _TEVATRON_KEYS
    builder.query(query, text.strip(), file.name, number)
    seen: set[str] = set()
    found = list(_passages(record, positives))
    for keys, place, name, grade in (
        (positives, builder.judgements, split, 1),
        (negatives, builder.labels, NEGATIVES, 0),
    ):
        for identifier, passage in _passages(record, keys):
            if identifier in seen:
                continue
            seen.add(identifier)
            if own_passages:
                builder.passage(identifier, passage, file.name, number)
            writer = place(name, file.name)
            if writer is not None:
                writer.add(query, identifier, grade, number, file.name)
    return len(found)


def _passages(record: Record, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(id, text) of the passages under `keys`. Raises ValueError for one that is malformed."""
    for key in keys:
        listed = record.get(key) or []
        if not isinstance(listed, list):
            raise ValueError(f"'{key}' must be a list")
        for passage in listed:
            if not isinstance(passage, dict):
                raise ValueError(f"'{key}' must hold objects")
            text = joined(passage.get("title"), read_text(passage, "text"))
            known = [name for name in ("docid", "passage_id", "psg_id", "id") if name in passage]
            if known:
                yield read_identifier(passage, known[0]), text
            else:
                yield hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16], text


def read_array(path: Path, shown: str, faults: Faults) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON file that is one array, numbered from 1, a few at a time in memory."""
    number, buffer = 0, ""
    decoder = json.JSONDecoder()
    for chunk in open_text(path, shown, faults):
        buffer += chunk
        while True:
            buffer = buffer.lstrip("[, \t\r\n") if number else buffer.lstrip("\ufeff[ \t\r\n")
            if not buffer or buffer.startswith("]"):
                break
            try:
                record, end = decoder.raw_decode(buffer)
            except (json.JSONDecodeError, RecursionError):
                break
            number, buffer = number + 1, buffer[end:]
            if isinstance(record, dict):
                yield number, record
            else:
                faults.error("json", shown, number, "must be an object")
    if buffer.strip() != "]":
        faults.error("json", shown, number + 1, "is not JSON, or the file is cut short")


TEVATRON = _form("tevatron", _is_tevatron, read_records)
DPR = _form("dpr", _is_dpr, read_array)
