"""BEIR folders as they are found: read correctly, or refused with file, line and reason."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.data.cache import Cache
from trainables.data.collections import (
    Collection,
    Fault,
    UnusableCollection,
    fingerprint,
    open_collection,
)
from trainables.errors import InvalidInput

PASSAGES = {"p1": "Sorted arrays.", "p2": "Grüße, 漢字 and 🌱.", "p3": "A line\nbreak\tand tab."}
QUERIES = {"q1": "sort an array", "q2": "how to greet"}
QRELS = [("q1", "p1", 2), ("q1", "p3", 0), ("q2", "p2", 1)]


@pytest.fixture
def folder(tmp_path: Path, write_folder: Callable[..., Path]) -> Path:
    weak = {"weak": [("q1", "p2", 1)]}
    return write_folder(tmp_path / "set", PASSAGES, QUERIES, {"test": QRELS}, weak)


def opened(folder: Path, cache: Cache) -> Collection:
    return open_collection(str(folder), cache)


def check(collection: Collection) -> None:
    rows = collection.passages.rows(list(PASSAGES))
    assert collection.passages.text(rows) == list(PASSAGES.values())
    assert (len(collection.passages), len(collection.queries)) == (3, 2)
    judged = collection.judgements("test")
    columns = (judged.query_ids, judged.passage_ids, judged.grades.tolist())
    assert list(zip(*columns, strict=True)) == QRELS
    assert judged.by_query() == {"q1": {"p1": 2, "p3": 0}, "q2": {"p2": 1}}


def faults(folder: Path, cache: Cache) -> tuple[Fault, ...]:
    """What is wrong with the folder, which must be unusable."""
    with pytest.raises(UnusableCollection) as caught:
        opened(folder, cache)
    fatal = [fault for fault in caught.value.faults if fault.fatal]
    assert len(caught.value.problems) == len(fatal) > 0
    return tuple(fatal)


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_a_folder_is_read(folder: Path, cache: Cache) -> None:
    collection = opened(folder, cache)
    check(collection)
    assert collection.name == "set"
    assert collection.splits == ("test",) and collection.sources == ("weak",)
    assert collection.labels("weak").by_query() == {"q1": {"p2": 1}}
    assert collection.warnings == ()


def test_it_is_read_once_and_survives_pickling(folder: Path, cache: Cache) -> None:
    first = opened(folder, cache)
    stamp = first.folder.stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(opened(folder, cache)))
    assert again.folder == first.folder and first.folder.stat().st_mtime_ns == stamp
    check(again)


def test_unknown_splits_and_sources_name_the_known_ones(folder: Path, cache: Cache) -> None:
    collection = opened(folder, cache)
    with pytest.raises(InvalidInput, match="did you mean 'test'"):
        collection.judgements("tset")
    with pytest.raises(InvalidInput, match="did you mean 'weak'"):
        collection.labels("waek")


def test_titles_come_before_the_text(folder: Path, cache: Cache) -> None:
    change(folder / "corpus.jsonl", b'"text": "Sorted', b'"title": "Sorting", "text": "Sorted')
    assert opened(folder, cache).passages.text([0]) == ["Sorting Sorted arrays."]


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
@pytest.mark.parametrize("damage", ["bom", "crlf", "cr", "gz", "gz-inside", "blank", "no-end"])
def test_harmless_differences_are_read_correctly(
    folder: Path, cache: Cache, name: str, damage: str
) -> None:
    path = folder / name
    content = path.read_bytes()
    if damage == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + content)
    elif damage == "crlf":
        path.write_bytes(content.replace(b"\n", b"\r\n"))
    elif damage == "cr":
        path.write_bytes(content.replace(b"\n", b"\r"))
    elif damage == "gz":
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        path.unlink()
    elif damage == "gz-inside":
        path.write_bytes(gzip.compress(content))
    elif damage == "blank":
        path.write_bytes(
            b"\n" + content.replace(b"\n", b"\n\n") if "qrels" not in name else content
        )
    else:
        path.write_bytes(content.removesuffix(b"\n"))
    check(opened(folder, cache))


def test_judgements_without_header_or_in_trec_form_are_read(folder: Path, cache: Cache) -> None:
    rows = [f"{query} 0 {passage} {grade}" for query, passage, grade in QRELS]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    check(opened(folder, cache))
    rows = [f"{query}\t{passage}\t{grade}" for query, passage, grade in QRELS]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    check(opened(folder, cache))


def test_whole_numbers_serve_as_ids(folder: Path, cache: Cache) -> None:
    change(folder / "corpus.jsonl", b'"p1"', b"17")
    change(folder / "qrels" / "test.tsv", b"\tp1\t", b"\t17\t")
    assert opened(folder, cache).judgements("test").by_query()["q1"] == {"17": 2, "p3": 0}


@pytest.mark.parametrize(
    ("name", "old", "new", "kind", "line", "reason"),
    [
        ("corpus.jsonl", b'{"_id": "p2"', b'"_id": "p2"', "json", 2, "is not JSON"),
        ("corpus.jsonl", b'"_id": "p2"', b'"id": "p2"', "record", 2, "has no '_id'"),
        ("corpus.jsonl", b'"_id": "p2"', b'"_id": "p 2"', "record", 2, "white space"),
        ("corpus.jsonl", b'"_id": "p2"', b'"_id": ""', "record", 2, "non-empty"),
        ("corpus.jsonl", b'"_id": "p2"', b'"_id": 1.5', "record", 2, "must be text, is a number"),
        ("corpus.jsonl", b'"Sorted arrays."', b"null", "record", 1, "has no 'text'"),
        ("corpus.jsonl", b'"Sorted arrays."', b'["a"]', "record", 1, "is a list"),
        ("corpus.jsonl", b'"_id": "p2"', b'"_id": "p1"', "duplicate-id", 2, "another text"),
        ("corpus.jsonl", b"Sorted", b"\xff\xfe", "encoding", 1, "not UTF-8: byte 0xff"),
        ("corpus.jsonl", b"Sorted", b"\\ud800", "encoding", 1, "surrogate"),
        ("queries.jsonl", b'{"_id": "q2"', b'[1, 2]\n{"_id": "q2"', "json", 2, "is a list"),
        ("qrels/test.tsv", b"p1\t2", b"p1\t2.5", "grade", 2, "whole number, is '2.5'"),
        ("qrels/test.tsv", b"p1\t2", b"p1\tyes", "grade", 2, "whole number"),
        ("qrels/test.tsv", b"p1\t2", b"p1\t99999", "grade", 2, "between"),
        ("qrels/test.tsv", b"p1\t2", b"p1", "columns", 2, "has 2 columns where"),
        ("qrels/test.tsv", b"q1\tp1", b"\tp1", "columns", 2, "has 2 columns where"),
        ("qrels/test.tsv", b"q1\tp1\t2", b"q1\tp1\t2\t3", "columns", 2, "has 4 columns where"),
        ("qrels/test.tsv", b"query-id\t", b"a,", "columns", 1, "must have 3 columns"),
        ("labels/weak.tsv", b"p2\t1", b"p2\tx", "grade", 2, "whole number"),
    ],
)
def test_damage_is_refused_with_file_line_and_reason(
    folder: Path,
    cache: Cache,
    name: str,
    old: bytes,
    new: bytes,
    kind: str,
    line: int,
    reason: str,
) -> None:
    change(folder / name, old, new)
    found = [fault for fault in faults(folder, cache) if fault.kind == kind]
    assert [(fault.file, fault.line) for fault in found] == [(name, line)]
    assert reason in found[0].detail
    assert str(found[0].problem("set")).startswith(f"set/{name}:{line}: {kind}: ")


def test_all_damage_is_listed_together(folder: Path, cache: Cache) -> None:
    change(folder / "corpus.jsonl", b'{"_id": "p3"', b'"p3"')
    change(folder / "queries.jsonl", b'{"_id": "q2"', b'{"id": "q2"')
    change(folder / "qrels" / "test.tsv", b"p1\t2", b"p1\t?")
    change(folder / "labels" / "weak.tsv", b"p2\t1", b"p2\t?")
    files = {fault.file for fault in faults(folder, cache)}
    assert files == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "labels/weak.tsv"}


def test_many_faults_of_a_kind_become_a_count(folder: Path, cache: Cache) -> None:
    (folder / "corpus.jsonl").write_text("broken\n" * 1000)
    found = [fault for fault in faults(folder, cache) if fault.kind == "json"]
    assert len(found) == 21
    assert found[-1].detail == "and 980 more of this kind"


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"query-id\tcorpus-id\tscore\n"])
def test_empty_files_are_refused(folder: Path, cache: Cache, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert any(fault.file == name for fault in faults(folder, cache))


@pytest.mark.parametrize("name", ["queries.jsonl", "qrels/test.tsv"])
def test_missing_files_are_refused(folder: Path, cache: Cache, name: str) -> None:
    (folder / name).unlink()
    assert any(fault.kind == "missing" for fault in faults(folder, cache))


def test_truncated_gzip_is_refused(folder: Path, cache: Cache) -> None:
    packed = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(packed[:-12])
    assert [fault.kind for fault in faults(folder, cache)].count("gzip") == 1


def test_utf16_is_named(folder: Path, cache: Cache) -> None:
    text = (folder / "corpus.jsonl").read_text(encoding="utf-8")
    (folder / "corpus.jsonl").write_text(text, encoding="utf-16")
    assert faults(folder, cache)[0].detail == "is UTF-16; must be UTF-8"


def test_two_files_for_one_thing_are_refused(folder: Path, cache: Cache) -> None:
    for name in ("corpus.jsonl", "qrels/test.tsv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    assert [fault.kind for fault in faults(folder, cache)] == ["ambiguous", "ambiguous"]


def test_unreadable_files_are_a_mistake(
    folder: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("trainables.data.collections.collection._hash", refuse)
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl: .*cannot be read: Permission denied"):
        opened(folder, cache)


def test_the_list_of_mistakes_survives_pickling(folder: Path, cache: Cache) -> None:
    (folder / "corpus.jsonl").write_text("broken\n")
    with pytest.raises(UnusableCollection) as caught:
        opened(folder, cache)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.faults == caught.value.faults
    assert str(folder) in str(again)


def warned(folder: Path, cache: Cache) -> dict[str, Fault]:
    return {fault.kind: fault for fault in opened(folder, cache).warnings}


def test_dangling_ids_are_warnings_and_stay_in_the_judgements(folder: Path, cache: Cache) -> None:
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tgone\t1\nlost\tp1\t1\n")
    found = warned(folder, cache)
    assert found["dangling-passage"].line == 5 and found["dangling-query"].line == 6
    assert len(opened(folder, cache).judgements("test")) == 5


def test_a_split_of_nothing_but_dangling_ids_is_refused(folder: Path, cache: Cache) -> None:
    rows = "query-id\tcorpus-id\tscore\nq1\tgone\t1\nlost\tp1\t1\n"
    (folder / "qrels" / "test.tsv").write_text(rows)
    assert [fault.kind for fault in faults(folder, cache)] == ["dangling"]


def test_repeated_texts_and_pairs_are_warnings(folder: Path, cache: Cache) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "p1", "text": "Sorted arrays."}\n{"_id": "p4", "text": ""}\n')
        file.write('{"_id": "p5", "text": "Sorted arrays."}\n')
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tp1\t2\nq2\tp2\t0\n")
    found = warned(folder, cache)
    assert found["duplicate-id"].line == 4
    assert found["empty-text"].line == 5
    assert found["duplicate-text"].detail == "1 of 5 passages repeat an earlier one's text"
    assert found["duplicate-judgement"].line == 5
    assert (
        found["conflicting-judgement"].detail
        == "grades the pair of line 4 0 after 1; the first counts"
    )
    collection = opened(folder, cache)
    assert collection.passages.ids(range(5)) == ["p1", "p2", "p3", "p4", "p5"]
    assert collection.passages.rows(["p5", "p1", "none"]).tolist() == [4, 0, -1]
    assert collection.judgements("test").by_query() == {"q1": {"p1": 2, "p3": 0}, "q2": {"p2": 1}}


def test_files_that_are_not_read_and_idle_queries_are_warnings(folder: Path, cache: Cache) -> None:
    (folder / "qrels" / "dev.csv").write_text("q1,p1,1")
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q3", "text": "nobody judged this"}\n')
    found = warned(folder, cache)
    assert found["unread"].file == "qrels/dev.csv"
    assert found["unjudged-query"].detail == "1 queries are judged by no source"


def test_names_that_files_and_metrics_cannot_hold_are_refused(folder: Path, cache: Cache) -> None:
    (folder / "labels" / "weak.tsv").rename(folder / "labels" / "we@k.tsv")
    (folder / "labels" / "qrels.tsv").write_text("q1\tp1\t1\n")
    assert [fault.kind for fault in faults(folder, cache)] == ["name", "name"]


def test_the_fingerprint_follows_the_bytes(folder: Path, cache: Cache) -> None:
    first = fingerprint(str(folder), cache)
    old = folder.stat().st_mtime - 100
    for file in folder.rglob("*.*"):
        os.utime(file, (old, old))
    assert fingerprint(str(folder), cache) == first == fingerprint(str(folder), cache)
    change(folder / "corpus.jsonl", b"Sorted", b"sorted")
    changed = fingerprint(str(folder), cache)
    assert changed != first
    assert opened(folder, cache).passages.text([0]) == ["sorted arrays."]
    moved = folder.rename(folder.with_name("elsewhere"))
    assert fingerprint(str(moved), cache) == changed


def test_the_fingerprint_is_remembered(
    folder: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    first = fingerprint(str(folder), cache)
    monkeypatch.setattr("trainables.data.collections.collection._hash", lambda file: pytest.fail())
    assert fingerprint(str(folder), cache) == first
    memo = next((cache.root / "fingerprints").glob("*.json"))
    memo.write_text("broken")
    monkeypatch.undo()
    monkeypatch.setenv("ABLATE_CACHE", str(cache.root))
    assert fingerprint(str(folder)) == first


def test_a_zip_is_read_as_the_folder(folder: Path, cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, Path("set") / file.relative_to(folder))
        archive.writestr("__MACOSX/set/corpus.jsonl", "junk")
        archive.writestr("../../qrels/escape.tsv", "q1\tp1\t1\n")
    collection = open_collection(str(path), cache)
    check(collection)
    assert collection.name == "packed"
    assert not (tmp_path.parent / "qrels").exists()


def test_a_damaged_zip_is_refused(folder: Path, cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("corpus.jsonl", json.dumps({"_id": "p1", "text": "words " * 500}))
    content = bytearray(path.read_bytes())
    content[60:70] = b"\0" * 10
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match="is damaged"):
        open_collection(str(path), cache)
