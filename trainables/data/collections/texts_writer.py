"""Writes the files of `Texts` while rows stream in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import ArrayWriter, read_array
from trainables.data.collections.faults import Faults, Places
from trainables.data.collections.texts import BATCH_ROWS, batches, open_arrow, take
from trainables.data.hashing import hash64

SORTED_ROWS = 1 << 17
"""Hashes that are sorted, compared or copied in memory at once."""


class TextsWriter:
    """Writes the files of `Texts` as rows come in; memory does not grow with them.

    Rows whose id comes again are the exception: one byte for each row of the collection then, and
    the repeated ids.
    """

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
        hashes = read_array(self._path("ids"))
        with (
            ArrayWriter(self._path("hashes"), np.uint64) as in_order,
            ArrayWriter(self._path("order"), np.int64) as rows,
        ):
            for values, places in sorted_pieces(hashes):
                in_order.append(values)
                rows.append(places)

    def _repeated(self) -> NDArray[np.int64]:
        """Rows whose id stands in an earlier row, each entered as a fault."""
        hashes, order = read_array(self._path("hashes")), read_array(self._path("order"))
        same = _repeats(hashes)
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
            values = read_array(self._path(part))
            with ArrayWriter(path.with_suffix(".rest"), values.dtype) as rest:
                for start in range(0, len(values), SORTED_ROWS):
                    piece = slice(start, start + SORTED_ROWS)
                    rest.append(values[piece][keep[piece]])
            path.with_suffix(".rest").replace(self._path(part))

    def _state_facts(self) -> None:
        ids, texts = read_array(self._path("ids")), read_array(self._path("texts"))
        content = hashlib.sha256(ids.data)
        content.update(texts.data)
        pieces = sorted_pieces(texts)
        facts = {
            "count": len(texts),
            "fingerprint": content.hexdigest()[:20],
            "duplicates": sum(len(_repeats(values)) for values, _ in pieces),
            "empty": _count(texts, hash64([""])[0]),
        }
        path = self._folder / f"{self._name}.json"
        path.write_text(json.dumps(facts), encoding="utf-8")


def sorted_pieces(
    hashes: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """The hashes in ascending order and their rows, equal ones by row, in pieces of consecutive
    values; of about SORTED_ROWS each, since hashes are spread evenly.

    A piece takes one reading of all hashes: millions of them, mapped, cost seconds and no memory.
    """
    count = -(-len(hashes) // SORTED_ROWS)
    for number in range(count):
        low, high = (2**64 * (number + one) // count for one in (0, 1))
        found = []
        for start in range(0, len(hashes), SORTED_ROWS):
            part = hashes[start : start + SORTED_ROWS]
            inside = (part >= np.uint64(low)) & (part <= np.uint64(high - 1))
            found.append(start + np.flatnonzero(inside))
        rows = np.concatenate(found)
        values = hashes[rows]
        order = np.argsort(values, kind="stable")
        yield values[order], rows[order]


def _repeats(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Places of sorted values that the next one equals."""
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(values) - 1, SORTED_ROWS):
        part = values[start : start + SORTED_ROWS + 1]
        found.append(start + np.flatnonzero(part[1:] == part[:-1]))
    return np.concatenate(found)


def _count(values: NDArray[np.uint64], wanted: np.uint64) -> int:
    starts = range(0, len(values), SORTED_ROWS)
    return sum(int(np.count_nonzero(values[i : i + SORTED_ROWS] == wanted)) for i in starts)


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
