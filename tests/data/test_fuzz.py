"""Damaged copies of a collection: refused with reasons or read whole; no traceback, never less.

`pytest --hypothesis-show-statistics` tells how many copies were read and how many refused.

What no reader can see is left out: whole lines of a judgement file cut away, which leave a valid
file. Lost passages and queries are seen, because every one of them is judged.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from trainables.data.audit import inspect
from trainables.data.cache import Cache
from trainables.data.collections import Collection, UnusableCollection, open_collection

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv", "labels/weak.tsv")
SPECIAL = (
    b"\0",
    b"\n",
    b"\r",
    b"\t",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"\xff",
    b"\xef\xbb\xbf",
    b",",
    b"9",
)


@dataclass(frozen=True)
class Damage:
    file: str
    operation: str
    place: float
    junk: bytes

    def done_to(self, folder: Path) -> None:
        path = folder / self.file
        content = path.read_bytes() if path.exists() else b""
        if not content:
            return
        at = int(self.place * len(content))
        if self.operation == "flip":
            content = content[:at] + bytes([content[at] ^ (self.junk[0] or 1)]) + content[at + 1 :]
        elif self.operation == "insert":
            content = content[:at] + self.junk + content[at:]
        elif self.operation == "delete":
            content = content[:at] + content[at + 1 :]
        elif self.operation == "cut":
            content = content[:at]
            if self.file.endswith(".tsv"):
                content = content.rpartition(b"\n")[0] + b"\nq1\tp"
        elif self.operation == "repeat":
            start = content.rfind(b"\n", 0, at) + 1
            end = content.find(b"\n", start) + 1 or len(content)
            content = content[:end] + content[start:end] + content[end:]
        elif self.operation == "cut-gzip":
            packed = gzip.compress(content, mtime=0)
            content = packed[: int(self.place * len(packed))]
        elif self.operation == "encode":
            content = content.decode("utf-8", "replace").encode("utf-16")
        elif self.operation == "latin-1":
            content = content.decode("utf-8", "replace").encode("latin-1", "replace")
        elif self.operation == "empty":
            content = b""
        elif self.operation in HARMLESS:
            content = HARMLESS[self.operation](content)
        elif self.operation in LINE_DAMAGE:
            content = self._line_damaged(content)
        path.write_bytes(content)
        if self.operation == "remove":
            path.unlink()

    def _line_damaged(self, content: bytes) -> bytes:
        lines = content.decode("utf-8", "replace").splitlines()
        table = self.file.endswith(".tsv")
        at = min(int(self.place * len(lines)), len(lines) - 1)
        at = max(at, 1) if table else at
        if at < len(lines):
            changed = LINE_DAMAGE[self.operation](lines[at], table)
            lines[at : at + 1] = changed
        return "\n".join([*lines, ""]).encode()


def _dangling(line: str, table: bool) -> list[str]:
    if table:
        query, _, rest = line.partition("\t")
        return [f"{query}x\t{rest}"]
    return [line.replace('"_id": "', '"_id": "x')]


def _grade(line: str, table: bool) -> list[str]:
    return [line + ".5"] if table else [line]


def _same_id(line: str, table: bool) -> list[str]:
    return [line, line + "7"] if table else [line, line.replace('"text": "', '"text": "other ')]


LINE_DAMAGE: dict[str, Callable[[str, bool], list[str]]] = {
    "dangling": _dangling,
    "grade": _grade,
    "same-id": _same_id,
}
HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "crlf": lambda content: content.replace(b"\n", b"\r\n"),
    "cr": lambda content: content.replace(b"\n", b"\r"),
    "bom": lambda content: b"\xef\xbb\xbf" + content,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "no-last-end": lambda content: content.removesuffix(b"\n"),
    "blank-lines": lambda content: content.replace(b"\n", b"\n\n"),
}
"""What leaves the same collection."""

OPERATIONS = (
    "flip",
    "insert",
    "delete",
    "cut",
    "repeat",
    "cut-gzip",
    "encode",
    "latin-1",
    "empty",
    "remove",
    *LINE_DAMAGE,
    *HARMLESS,
)
damages = st.builds(
    Damage,
    st.sampled_from(FILES),
    st.sampled_from(OPERATIONS),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=4)),
)


def sizes(collection: Collection) -> dict[str, int]:
    found = {"passages": len(collection.passages), "queries": len(collection.queries)}
    found |= {split: len(collection.judgements(split)) for split in collection.splits}
    return found | {source: len(collection.labels(source)) for source in collection.sources}


@pytest.fixture(scope="module")
def whole(write_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    queries = {f"q{i}": f"wie grüßt man höflich, Teil {i}?" for i in range(8)}
    passages = {f"p{i}": f"Der Satz „Nummer {i}“ — 文 {i} ✓" for i in range(16)}
    pairs = [(f"q{i // 2}", f"p{i}", i % 3) for i in range(16)]
    return write_folder(
        tmp_path_factory.mktemp("fuzz") / "whole",
        passages,
        queries,
        {"train": pairs[:12], "test": pairs[8:]},
        {"weak": pairs},
    )


@pytest.fixture(scope="module")
def expected(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return sizes(open_collection(str(whole), Cache(tmp_path_factory.mktemp("cache"))))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(damages, min_size=1, max_size=3))
def test_no_damage_ends_in_a_traceback_or_a_smaller_set(
    whole: Path, expected: dict[str, int], damage: list[Damage]
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        cache = Cache(Path(temporary) / "cache")
        folder = Path(shutil.copytree(whole, Path(temporary) / "damaged"))
        for part in damage:
            part.done_to(folder)
        if not (folder / "corpus.jsonl").exists():
            event("no collection any more")
            return
        try:
            collection = open_collection(str(folder), cache)
        except UnusableCollection as error:
            assert error.problems and all(fault.detail for fault in error.faults)
            assert all(fault.file for fault in error.faults)
            event("refused with reasons")
            return
        event("read, and told" if collection.warnings else "read without a word")
        seen = sizes(collection)
        lost = {name for name, size in expected.items() if seen.get(name, 0) < size}
        removed = {Path(d.file).stem for d in damage if d.operation == "remove"}
        unexplained = lost - removed
        assert not unexplained or collection.warnings, (unexplained, damage)


def test_an_audit_of_a_damaged_folder_is_still_an_audit(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "damaged"))
    Damage("corpus.jsonl", "delete", 0.0, b"x").done_to(folder)
    audit = inspect(str(folder), Cache(tmp_path / "cache"))
    assert not audit.usable
    assert audit.problems[0].to_json() == {
        "kind": "json",
        "file": "corpus.jsonl",
        "line": 1,
        "detail": "is not JSON: Extra data at column 6",
        "fatal": True,
    }


def everything(collection: Collection) -> list[object]:
    """Texts and judgements of a collection, in their order."""
    texts = [
        (part.ids(range(len(part))), part.text(range(len(part))))
        for part in (collection.passages, collection.queries)
    ]
    judged = [collection.judgements(split).by_query() for split in collection.splits]
    return [texts, judged, [collection.labels(source).by_query() for source in collection.sources]]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(FILES), st.sampled_from(list(HARMLESS))), max_size=6))
def test_other_line_ends_marks_and_packing_change_nothing(
    whole: Path, changes: list[tuple[str, str]]
) -> None:
    packed = [file for file, operation in changes if operation == "gzip"]
    changes = [change for change in changes if change[1] != "gzip"]
    changes += [(file, "gzip") for file in dict.fromkeys(packed)]
    with tempfile.TemporaryDirectory() as temporary:
        cache = Cache(Path(temporary) / "cache")
        folder = Path(shutil.copytree(whole, Path(temporary) / "changed"))
        seen = set()
        for file, operation in changes:
            if (file, operation) not in seen:
                Damage(file, operation, 0.0, b"x").done_to(folder)
            seen.add((file, operation))
        changed = open_collection(str(folder), cache)
        assert everything(changed) == everything(open_collection(str(whole), cache))
        assert changed.warnings == ()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("operation", LINE_DAMAGE)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_a_damaged_line_is_told_with_its_file(
    whole: Path, tmp_path: Path, file: str, operation: str, place: float
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "damaged"))
    Damage(file, operation, place, b"x").done_to(folder)
    if operation == "grade" and file.endswith(".jsonl"):
        return
    audit = inspect(str(folder), Cache(tmp_path / "cache"))
    fatal = operation == "grade" or (operation == "same-id" and file.endswith(".jsonl"))
    assert audit.usable is not fatal
    shown = {fault.file for fault in audit.problems}
    renamed = operation == "dangling" and file.endswith(".jsonl")
    assert (shown & {"qrels/train.tsv", "qrels/test.tsv"}) if renamed else file in shown
    if not renamed:
        assert any(fault.line for fault in audit.problems if fault.file == file)
