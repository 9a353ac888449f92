"""Texts in an Arrow file: rows, ids, and the search in sorted hashes."""

from __future__ import annotations

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
