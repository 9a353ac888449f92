"""Judgements: which passage answers which query how well, from one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import ArrayWriter
from trainables.data.collections.faults import Faults, Places
from trainables.data.hashing import hash64, mix

_FLUSH_ROWS = 1 << 13
GRADE_LIMIT = 2**15


@dataclass(frozen=True)
class Judgements:
    """Three parallel columns; the order of the file is the order of rank. A pair occurs once."""

    query_ids: Sequence[str]
    passage_ids: Sequence[str]
    grades: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.grades)

    def by_query(self) -> dict[str, dict[str, int]]:
        """Query id -> passage id -> grade, in the order of the file."""
        nested: dict[str, dict[str, int]] = {}
        for query, passage, grade in zip(
            self.query_ids, self.passage_ids, self.grades.tolist(), strict=True
        ):
            nested.setdefault(query, {})[passage] = grade
        return nested


def read_judgements(path: Path) -> Judgements:
    """The judgements in an Arrow file of JudgementsWriter; equal ids share one string."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    grades = np.array(table.column("grade").to_numpy(), dtype=np.int16)
    return Judgements(_shared(table.column("query")), _shared(table.column("passage")), grades)


def write_judgements(path: Path, judgements: Judgements) -> None:
    """Writes judgements to an Arrow file that `read_judgements` reads."""
    import pyarrow as pa

    with pa.ipc.new_file(str(path), _schema()) as writer:
        columns = [
            pa.array(list(judgements.query_ids), pa.large_string()),
            pa.array(list(judgements.passage_ids), pa.large_string()),
            pa.array(judgements.grades, pa.int16()),
        ]
        writer.write_batch(pa.record_batch(columns, schema=_schema()))


class JudgementsWriter:
    """Writes judgements as they come in; `close` checks pairs and ids."""

    def __init__(self, path: Path, shown: str, faults: Faults, needed: bool) -> None:
        """`needed` says whether judgements of nothing but unknown ids are fatal."""
        import pyarrow as pa

        self._path = path
        self._shown = shown
        self._needed = needed
        self._where = Places()
        self._faults = faults
        self._rows: list[tuple[str, str, int]] = []
        self._file = ""
        self._writer = pa.ipc.new_file(str(path), _schema())
        self._arrays = {
            part: ArrayWriter(path.with_suffix(f".{part}.npy"), kind)
            for part, kind in (
                ("query", np.uint64),
                ("passage", np.uint64),
                ("grade", np.int16),
                ("place", np.int64),
            )
        }
        self._places: list[int] = []

    def add(self, query: str, passage: str, grade: int, line: int, file: str = "") -> None:
        """Adds a judgement that stood at `line` of `file`, by default the one that the writer was
        made for; a grade beyond 16 bits is a fault."""
        file = file or self._shown
        if not -GRADE_LIMIT <= grade < GRADE_LIMIT:
            detail = f"must lie between {-GRADE_LIMIT} and {GRADE_LIMIT - 1}, is {grade}"
            self._faults.error("grade", file, line, detail)
            return
        self._rows.append((query, passage, grade))
        self._places.append(self._where.number(file, line))
        if len(self._rows) == _FLUSH_ROWS:
            self._flush()

    def close(
        self, query_hashes: NDArray[np.uint64], passage_hashes: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Completes the file; repeated pairs and ids without a text become faults.

        Takes the sorted id hashes of the collection's queries and passages. Returns the hashes of
        the queries that are judged.
        """
        self._flush()
        self._writer.close()
        for writer in self._arrays.values():
            writer.close()
        query, passage, grade, place = (self._read(part) for part in self._arrays)
        if not len(query):
            self._faults.error("empty", self._shown, None, "holds no judgement")
            return query
        keep = self._unique(query, passage, grade, place)
        if not keep.all():
            self._compact(keep)
        known = self._known("query", query, query_hashes, place, keep)
        known &= self._known("passage", passage, passage_hashes, place, keep)
        if not known[keep].any():
            detail = (
                f"none of its {int(keep.sum()):,} judgements has both its query and its passage"
            )
            add = self._faults.error if self._needed else self._faults.warning
            add("dangling", self._shown, None, detail)
        return np.unique(query)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        queries, passages, grades = map(list, zip(*self._rows, strict=True))
        columns = [
            pa.array(queries, pa.large_string()),
            pa.array(passages, pa.large_string()),
            pa.array(grades, pa.int16()),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=_schema()))
        self._arrays["query"].append(_hashed(queries))
        self._arrays["passage"].append(_hashed(passages))
        self._arrays["grade"].append(grades)
        self._arrays["place"].append(self._places)
        self._rows, self._places = [], []

    def _read(self, part: str) -> NDArray[Any]:
        path = self._path.with_suffix(f".{part}.npy")
        values: NDArray[Any] = np.load(path)
        path.unlink()
        return values

    def _unique(
        self,
        query: NDArray[np.uint64],
        passage: NDArray[np.uint64],
        grade: NDArray[np.int16],
        place: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Which judgements stay: the first of each pair."""
        pairs = mix(query, passage)
        _, first, group = np.unique(pairs, return_index=True, return_inverse=True)
        keep = np.zeros(len(pairs), dtype=bool)
        keep[first] = True
        for row in np.flatnonzero(~keep).tolist():
            earlier = int(first[group[row]])
            file, line = self._where.file_and_line(place[row])
            where = f"the pair of line {self._where.file_and_line(place[earlier])[1]}"
            kind, detail = "duplicate-judgement", f"repeats {where}; read once"
            if grade[row] != grade[earlier]:
                grades = f"{int(grade[row])} after {int(grade[earlier])}"
                kind, detail = "conflicting-judgement", f"grades {where} {grades}; the first counts"
            self._faults.warning(kind, file, line, detail)
        return keep

    def _compact(self, keep: NDArray[np.bool_]) -> None:
        import pyarrow as pa

        with pa.memory_map(str(self._path)) as source:
            table = pa.ipc.open_file(source).read_all().take(np.flatnonzero(keep))
            rest = self._path.with_suffix(".kept")
            with pa.ipc.new_file(str(rest), _schema()) as writer:
                writer.write_table(table)
        rest.rename(self._path)

    def _known(
        self,
        what: str,
        hashes: NDArray[np.uint64],
        sorted_hashes: NDArray[np.uint64],
        place: NDArray[np.int64],
        keep: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        places = np.searchsorted(sorted_hashes, hashes)
        inside = places < len(sorted_hashes)
        known = np.zeros(len(hashes), dtype=bool)
        known[inside] = sorted_hashes[places[inside]] == hashes[inside]
        missing = np.flatnonzero(~known & keep)
        for row in missing.tolist():
            detail = f"judges a {what} that the collection lacks"
            self._faults.warning(f"dangling-{what}", *self._where.file_and_line(place[row]), detail)
        return known


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [("query", pa.large_string()), ("passage", pa.large_string()), ("grade", pa.int16())]
    )


def _hashed(values: list[str]) -> NDArray[np.uint64]:
    distinct = list(dict.fromkeys(values))
    hashes = dict(zip(distinct, hash64(distinct).tolist(), strict=True))
    return np.fromiter((hashes[value] for value in values), np.uint64, len(values))


def _shared(column: Any) -> list[str]:
    encoded = column.combine_chunks().dictionary_encode()
    if not hasattr(encoded, "dictionary"):
        encoded = encoded.chunk(0) if encoded.num_chunks else None
    if encoded is None:
        return []
    words = encoded.dictionary.to_pylist()
    return [words[index] for index in encoded.indices.to_numpy()]
