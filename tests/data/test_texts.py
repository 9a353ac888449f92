"""Texts in an Arrow file: rows, ids, and the search in sorted hashes."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data import hashing
from trainables.data.collections import texts as texts_module
from trainables.data.collections import texts_writer
from trainables.data.collections.faults import Faults
from trainables.data.collections.texts import BATCH_ROWS, Texts
from trainables.data.collections.texts_writer import TextsWriter


def written(folder: Path, rows: list[tuple[str, str]], merging: bool = False) -> Texts:
    faults = Faults()
    writer = TextsWriter(folder, "passages", faults)
    writer.merging = merging
    for line, (identifier, text) in enumerate(rows, start=1):
        writer.add(identifier, text, "file", line)
    writer.close()
    assert not faults.fatal, faults.all()
    return Texts(folder, "passages")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(st.characters(categories=["L", "N"]), min_size=1), st.text()))
def test_what_is_written_is_read(rows: dict[str, str]) -> None:
    clean = {key: value.encode("utf-8", "ignore").decode() for key, value in rows.items()}
    with tempfile.TemporaryDirectory() as temporary:
        texts = written(Path(temporary), list(clean.items()))
        every = np.arange(len(clean))
        assert texts.ids(every) == list(clean)
        assert texts.text(every) == list(clean.values())
        assert texts.rows(list(clean)).tolist() == every.tolist()
        assert texts.rows(["\0absent"]).tolist() == [-1]


def test_many_rows_in_any_order(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 17
    texts = written(tmp_path, [(f"id{i}", f"text {i % 100}") for i in range(count)])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, count, 500)
    assert texts.ids(rows) == [f"id{row}" for row in rows]
    assert texts.text(rows) == [f"text {row % 100}" for row in rows]
    assert np.array_equal(texts.rows([f"id{row}" for row in rows]), rows)
    assert texts.duplicates == count - 100
    chunks = list(texts.chunks())
    assert [len(ids) for ids, _ in chunks] == [BATCH_ROWS, BATCH_ROWS, 17]
    assert [identifier for ids, _ in chunks for identifier in ids][-1] == f"id{count - 1}"
    with pytest.raises(IndexError):
        texts.text([count])
    with pytest.raises(IndexError):
        texts.ids([-1])


def test_ids_whose_hashes_collide_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colliding(values):  # type: ignore[no-untyped-def]
        return hashing.hash64(list(values)) % np.uint64(3)

    monkeypatch.setattr(texts_module, "hash64", colliding)
    monkeypatch.setattr(texts_writer, "hash64", colliding)
    texts = written(tmp_path, [(f"id{i}", f"text {i}") for i in range(50)])
    assert texts.rows([f"id{i}" for i in range(50)]).tolist() == list(range(50))
    assert texts.rows(["absent", "id7"]).tolist() == [-1, 7]


@pytest.mark.parametrize("merging", [False, True])
def test_repeated_rows_are_written_once(tmp_path: Path, merging: bool) -> None:
    rows = [(f"id{i % 7000}", f"text {i % 7000}") for i in range(20_000)]
    texts = written(tmp_path, rows, merging)
    assert len(texts) == 7000
    assert texts.ids([0, 6999]) == ["id0", "id6999"]
    assert texts.rows(["id6999"]).tolist() == [6999]


def test_the_fingerprint_follows_ids_texts_and_order(tmp_path: Path) -> None:
    rows = [("a", "x"), ("b", "y")]
    seen = set()
    for name, content in {
        "same": rows,
        "again": rows,
        "turned": rows[::-1],
        "other": [("a", "x"), ("b", "z")],
    }.items():
        (tmp_path / name).mkdir()
        seen.add(written(tmp_path / name, content).fingerprint)
    assert len(seen) == 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(0, 3), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1))
    ),
    st.integers(1, 9),
)
def test_hashes_sorted_piece_by_piece_are_sorted(values: list[int], size: int) -> None:
    hashes = np.array(values, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_writer, "SORTED_ROWS", size)
        pieces = list(texts_writer.sorted_pieces(hashes))
        repeats = [len(texts_writer._repeats(piece)) for piece, _ in pieces]
    empty = [np.empty(0, dtype=np.uint64)]
    assert np.concatenate([*empty, *(piece for piece, _ in pieces)]).tolist() == sorted(values)
    assert np.concatenate([*empty, *(rows for _, rows in pieces)]).tolist() == order.tolist()
    assert sum(repeats) == len(values) - len(set(values))


def test_the_files_do_not_depend_on_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"id{i % 5000}", f"text {i % 700}" if i % 9 else "") for i in range(9000)]
    digests = []
    for size in (1 << 17, 300):
        monkeypatch.setattr(texts_writer, "SORTED_ROWS", size)
        (tmp_path / str(size)).mkdir()
        written(tmp_path / str(size), rows, merging=True)
        files = sorted((tmp_path / str(size)).iterdir())
        digests.append([(file.name, hashlib.sha256(file.read_bytes()).digest()) for file in files])
    assert len(digests[0]) == 5 and digests[0] == digests[1]
