"""Writes the files of `Texts` while rows stream in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import ArrayWriter, read_array
from trainables.data.collections.faults import Faults, Places
from trainables.data.collections.texts import BATCH_ROWS, batches, open_arrow, take
from trainables.data.hashing import hash64


class TextsWriter:
    """Writes the files of `Texts` as rows come in; a row's memory is a few numbers."""

    def __init__(self, folder: Path, name: str, faults: Faults) -> None:
        self._folder = folder
        self._name = name
        self._faults = faults
        self.merging = False
        """Whether an id may come again, as in forms that repeat a passage for every query."""
        self._where = Places()
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._places: list[int] = []
        self._arrow = _ArrowWriter(folder / f"{name}.arrow")
        self._arrays = {
            part: ArrayWriter(folder / f"{name}.{part}.npy", kind)
            for part, kind in (("ids", np.uint64), ("texts", np.uint64), ("places", np.int64))
        }

    def add(self, identifier: str, text: str, file: str, line: int) -> None:
        """Adds a row that stood at `line` of `file`; text that UTF-8 cannot hold is a fault."""
        try:
            identifier.encode()
            text.encode()
        except UnicodeEncodeError as error:
            detail = f"holds half a surrogate pair: {error.object[error.start]!a}"
            self._faults.error("encoding", file, line, detail)
            return
        self._check(text, file, line)
        self._ids.append(identifier)
        self._texts.append(text)
        self._places.append(self._where.number(file, line))
        if len(self._ids) == BATCH_ROWS:
            self._flush()

    def _check(self, text: str, file: str, line: int) -> None:
        if not text:
            self._faults.warning("empty-text", file, line, "has no text")
        elif "\ufffd" in text:
            detail = "holds U+FFFD, left by an earlier wrong decoding"
            self._faults.warning("encoding", file, line, detail)

    def close(self) -> None:
        """Completes the files: one row per id, the index, the facts.

        An id that comes again with the same text is left out with a warning; with another text
        it is fatal. When `merging`, the first text counts: silently where they are the same, with
        a warning where they are not.
        """
        self._flush()
        self._arrow.close()
        for writer in self._arrays.values():
            writer.close()
        self._index()
        extra = self._repeated()
        if len(extra):
            self._drop(extra)
            self._index()
        self._state_facts()
        for part in ("ids", "places"):
            self._path(part).unlink()

    def _flush(self) -> None:
        if self._ids:
            self._arrow.write(self._ids, self._texts)
            self._arrays["ids"].append(hash64(self._ids))
            self._arrays["texts"].append(hash64(self._texts))
            self._arrays["places"].append(self._places)
        self._ids, self._texts, self._places = [], [], []

    def _path(self, part: str) -> Path:
        return self._folder / f"{self._name}.{part}.npy"

    def _index(self) -> None:
        """Writes the sorted hashes of the ids and the rows that they stand for."""
        hashes = np.load(self._path("ids"))
        order = np.argsort(hashes, kind="stable")
        np.save(self._path("order"), order.astype(np.int64, copy=False))
        np.save(self._path("hashes"), hashes[order])

    def _repeated(self) -> NDArray[np.int64]:
        """Rows whose id stands in an earlier row, each entered as a fault."""
        hashes, order = read_array(self._path("hashes")), read_array(self._path("order"))
        same = np.flatnonzero(hashes[1:] == hashes[:-1])
        if not len(same):
            return np.empty(0, dtype=np.int64)
        rows = np.unique(np.concatenate([order[same], order[same + 1]]))
        ids = take(open_arrow(self._folder / f"{self._name}.arrow"), 0, rows)
        places, texts = read_array(self._path("places")), read_array(self._path("texts"))
        first: dict[str, int] = {}
        extra = []
        for row, identifier in zip(rows.tolist(), ids, strict=True):
            earlier = first.setdefault(identifier, row)
            if earlier == row:
                continue
            extra.append(row)
            self._report(identifier, places[earlier], places[row], texts[earlier] == texts[row])
        return np.array(extra, dtype=np.int64)

    def _report(self, identifier: str, earlier: int, later: int, same: bool) -> None:
        file, line = self._where.file_and_line(later)
        where = "line {1} of {0}".format(*self._where.file_and_line(earlier))
        if self.merging:
            if not same:
                detail = f"gives {identifier!r} of {where} another text; the first counts"
                self._faults.warning("duplicate-id", file, line, detail)
        elif same:
            detail = f"repeats {identifier!r} of {where} word for word; read once"
            self._faults.warning("duplicate-id", file, line, detail)
        else:
            detail = f"gives {identifier!r} of {where} another text"
            self._faults.error("duplicate-id", file, line, detail)

    def _drop(self, rows: NDArray[np.int64]) -> None:
        """Takes rows out of the texts and of the arrays that run along with them."""
        path = self._folder / f"{self._name}.arrow"
        full = path.rename(path.with_suffix(".full"))
        keep = np.ones(len(read_array(self._path("ids"))), dtype=bool)
        keep[rows] = False
        writer = _ArrowWriter(path)
        start = 0
        for batch in batches(open_arrow(full)):
            kept = batch.take(np.flatnonzero(keep[start : start + batch.num_rows]))
            writer.write(kept.column(0).to_pylist(), kept.column(1).to_pylist())
            start += batch.num_rows
        writer.close()
        full.unlink()
        for part in ("ids", "texts"):
            np.save(self._path(part), np.load(self._path(part))[keep])

    def _state_facts(self) -> None:
        content = hashlib.sha256(np.load(self._path("ids")))
        texts = np.load(self._path("texts"))
        content.update(texts)
        empty = int(np.count_nonzero(texts == hash64([""])[0]))
        texts.sort()
        facts = {
            "count": len(texts),
            "fingerprint": content.hexdigest()[:20],
            "duplicates": int(np.count_nonzero(texts[1:] == texts[:-1])),
            "empty": empty,
        }
        path = self._folder / f"{self._name}.json"
        path.write_text(json.dumps(facts), encoding="utf-8")


class _ArrowWriter:
    """An Arrow file of (id, text) in batches of exactly BATCH_ROWS rows, the last one shorter."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._schema = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._ids: list[str] = []
        self._texts: list[str] = []

    def write(self, ids: list[str], texts: list[str]) -> None:
        self._ids += ids
        self._texts += texts
        while len(self._ids) >= BATCH_ROWS:
            self._write(BATCH_ROWS)

    def _write(self, count: int) -> None:
        import pyarrow as pa

        columns = [pa.array(part[:count], pa.large_string()) for part in (self._ids, self._texts)]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._ids, self._texts = self._ids[count:], self._texts[count:]

    def close(self) -> None:
        if self._ids:
            self._write(len(self._ids))
        self._writer.close()
