"""Lines and records out of files as they are found: gzip or not, BOM, CR/LF, broken or not.

Whatever cannot be read becomes a fault with its line; reading goes on where it can, so that one
pass finds everything.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from trainables.data.collections.faults import Faults

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_PEEK_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_SPLIT_WORDS = {
    "train": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
_GZIP = b"\x1f\x8b"
_GRADE_HEADERS = {"score", "grade", "relevance", "rel", "label"}
_GRADE = re.compile(r"[+-]?[0-9]{1,6}", re.ASCII)


def read_lines(path: Path, shown: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, numbered from 1, without their ends; blank ones left out.

    gzip is recognised by content, and LF, CR/LF and CR all end a line. `shown` names the file in
    `faults`.
    """
    number = 0
    try:
        with _open(path) as file:
            for raw in _split(file):
                number += 1
                if number == 1 and raw.startswith(_UTF16_BOMS):
                    faults.error("encoding", shown, 1, "is UTF-16; must be UTF-8")
                    return
                line = _decoded(raw.removeprefix(_UTF8_BOM) if number == 1 else raw)
                if isinstance(line, UnicodeDecodeError):
                    faults.error("encoding", shown, number, _not_utf8(line))
                elif line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        faults.error("gzip", shown, number + 1, f"is damaged or cut short: {error}")
    except OSError as error:
        faults.error("unreadable", shown, None, error.strerror or str(error))


def open_text(path: Path, shown: str, faults: Faults) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of a megabyte; what cannot be read is a fault."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with _open(path) as file:
            while block := file.read(_BLOCK_BYTES):
                yield decoder.decode(block)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        faults.error("encoding", shown, None, _not_utf8(error))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        faults.error("gzip", shown, None, f"is damaged or cut short: {error}")
    except OSError as error:
        faults.error("unreadable", shown, None, error.strerror or str(error))


def read_records(path: Path, shown: str, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSON Lines file with their line numbers."""
    for number, line in read_lines(path, shown, faults):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            faults.error("json", shown, number, f"is not JSON: {error.msg} at column {error.colno}")
            continue
        except RecursionError:
            faults.error("json", shown, number, "is nested too deeply")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            faults.error("json", shown, number, f"must be an object, is {_kind(record)}")


def read_text(record: dict[str, Any], key: str) -> str:
    """The text at `key` of a record; null counts as absent. Raises ValueError with the reason."""
    value = record.get(key)
    if value is None:
        raise ValueError(f"has no '{key}'")
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be text, is {_kind(value)}")
    return value


def read_identifier(record: dict[str, Any], key: str) -> str:
    """The id at `key` of a record; whole numbers become text. Raises ValueError with the reason."""
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    identifier = read_text(record, key)
    if not identifier or identifier.split() != [identifier]:
        raise ValueError(f"'{key}' must be non-empty and without white space, is {identifier!r}")
    if not identifier.isascii() and any("\ud800" <= letter <= "\udfff" for letter in identifier):
        raise ValueError(f"'{key}' holds half a surrogate pair: {identifier!a}")
    return identifier


def read_judged(
    path: Path, shown: str, faults: Faults
) -> Iterator[tuple[int, tuple[str, str, int]]]:
    """The judgements (query, passage, grade) of a file with their line numbers.

    Either BEIR's three columns, separated by tabs, with or without their header; or TREC's four
    (query, iteration, passage, grade), separated by white space; the same in every line.
    """
    width = 0
    for number, line in read_lines(path, shown, faults):
        fields = line.strip("\t ").split("\t") if "\t" in line else line.split()
        if not width and len(fields) in (3, 4):
            width = len(fields)
        if len(fields) != width:
            detail = f"must have 3 columns (query, passage, grade) or TREC's 4, has {len(fields)}"
            if width:
                detail = f"has {len(fields)} columns where the lines before have {width}"
            faults.error("columns", shown, number, detail)
            continue
        if width == 4:
            del fields[1]
        query, passage, grade = (field.strip() for field in fields)
        if number == 1 and grade.lower() in _GRADE_HEADERS:
            continue
        if _GRADE.fullmatch(grade) is None:
            detail = f"the grade must be a whole number, is {grade!r}"
            faults.error("grade", shown, number, detail)
        elif not query or not passage:
            faults.error("columns", shown, number, "has an empty id")
        else:
            yield number, (query, passage, int(grade))


def split_name(file: Path) -> str:
    """The split that a file's name tells: train, dev or test where such a word is in it, else the
    name without its endings."""
    stem = file.name.removesuffix(".gz").rpartition(".")[0]
    for word in re.split(r"[^a-z0-9]+", stem.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")


def peek(path: Path) -> str:
    """The first letters of a text file, gzipped or not; empty when it cannot be read."""
    try:
        with _open(path) as file:
            return file.read(_PEEK_BYTES).removeprefix(_UTF8_BOM).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return ""


def joined(title: object, text: str) -> str:
    """A passage's text as encoders read it: title, blank, text, as BEIR does."""
    return f"{title} {text}".strip() if isinstance(title, str) else text.strip()


def is_gzip(path: Path) -> bool:
    """Whether the file's first bytes are gzip's."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _open(path: Path) -> IO[bytes]:
    if is_gzip(path):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _split(file: IO[bytes]) -> Iterator[bytes]:
    for line in file:
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in line:
            yield from line.split(b"\r")
        else:
            yield line


def _decoded(raw: bytes) -> str | UnicodeDecodeError:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"is not UTF-8: byte 0x{byte:02x} at position {error.start + 1}"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
