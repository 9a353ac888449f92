"""What a reader of some form fills, and what becomes a collection's folder in the cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import read_array
from trainables.data.collections.faults import Fault, Faults, UnusableCollection
from trainables.data.collections.judgements import JudgementsWriter
from trainables.data.collections.texts_writer import TextsWriter

FACTS = "collection.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Builder:
    """Takes passages, queries and judgements in any order; `finish` completes the folder."""

    def __init__(self, folder: Path, collection: str) -> None:
        """Fills `folder`; `collection` is named where mistakes are."""
        self._collection = collection
        self.faults = Faults()
        self._folder = folder
        self._notes: list[str] = []
        self._texts = {
            name: TextsWriter(folder, name, self.faults) for name in ("passages", "queries")
        }
        self._judged: dict[str, dict[str, JudgementsWriter]] = {"qrels": {}, "labels": {}}
        for part in self._judged:
            (folder / part).mkdir()

    def passage(self, identifier: str, text: str, file: str, line: int) -> None:
        """Adds a passage that stood at `line` of `file`."""
        self._texts["passages"].add(identifier, text, file, line)

    def query(self, identifier: str, text: str, file: str, line: int) -> None:
        """Adds a query that stood at `line` of `file`."""
        self._texts["queries"].add(identifier, text, file, line)

    def judgements(self, split: str, shown: str) -> JudgementsWriter | None:
        """Where the human judgements of `split` go; None, with a fault, for a name not allowed."""
        return self._writer("qrels", split, shown)

    def labels(self, source: str, shown: str) -> JudgementsWriter | None:
        """Where the judgements of a further source go; None, with a fault, for a bad name."""
        if source == "qrels":
            self.faults.error("name", shown, None, "'qrels' is the name of the splits' judgements")
            return None
        return self._writer("labels", source, shown)

    def _writer(self, part: str, name: str, shown: str) -> JudgementsWriter | None:
        if name in self._judged[part]:
            return self._judged[part][name]
        if _NAME.fullmatch(name) is None:
            detail = f"{name!r} must be letters, digits, dots, dashes, plus signs and underscores"
            self.faults.error("name", shown, None, detail)
            return None
        path = self._folder / part / f"{name}.arrow"
        writer = JudgementsWriter(path, shown, self.faults, needed=part == "qrels")
        self._judged[part][name] = writer
        return writer

    def merge(self) -> None:
        """Says that passages and queries may come again, and that the first of an id counts."""
        for writer in self._texts.values():
            writer.merging = True

    def note(self, text: str) -> None:
        """Adds a line that the audit shows: what was skipped or decided while reading."""
        self._notes.append(text)

    def finish(self, expected: Mapping[str, int], shown: Mapping[str, str]) -> None:
        """Completes the files. Raises UnusableCollection with every fault when one is fatal.

        `expected` are the counts that the origin states (`passages`, `queries`); `shown` names the
        files that hold them.
        """
        hashes = {name: self._closed(name, shown[name]) for name in self._texts}
        judged = [np.empty(0, dtype=np.uint64)]
        for writers in self._judged.values():
            judged += [w.close(hashes["queries"], hashes["passages"]) for w in writers.values()]
        if not self._judged["qrels"]:
            self.faults.error("missing", "qrels", None, "no split has judgements")
        self._count(hashes["queries"], np.unique(np.concatenate(judged)), shown["queries"])
        self._compare(expected, {name: len(values) for name, values in hashes.items()}, shown)
        if self.faults.fatal:
            raise UnusableCollection(self.faults.all(), self._collection)
        facts = {
            "splits": _ordered(self._judged["qrels"]),
            "sources": sorted(self._judged["labels"]),
            "faults": [fault.to_json() for fault in self.faults.all()],
            "notes": self._notes,
        }
        (self._folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def _closed(self, name: str, shown: str) -> NDArray[np.uint64]:
        self._texts[name].close()
        hashes: NDArray[np.uint64] = read_array(self._folder / f"{name}.hashes.npy")
        facts = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        if not len(hashes):
            self.faults.error("empty", shown, None, f"holds no {name}")
        if facts["duplicates"]:
            detail = (
                f"{facts['duplicates']:,} of {len(hashes):,} {name} repeat an earlier one's text"
            )
            self.faults.warning("duplicate-text", shown, None, detail)
        return hashes

    def _count(self, queries: NDArray[np.uint64], judged: NDArray[np.uint64], shown: str) -> None:
        idle = int(np.count_nonzero(~np.isin(queries, judged)))
        if idle:
            detail = f"{idle:,} queries are judged by no source"
            self.faults.warning("unjudged-query", shown, None, detail)

    def _compare(
        self, expected: Mapping[str, int], seen: Mapping[str, int], shown: Mapping[str, str]
    ) -> None:
        for name, count in expected.items():
            if name in seen and seen[name] != count:
                detail = f"{seen[name]:,} {name} where the origin states {count:,}"
                self.faults.warning("count", shown[name], None, detail)


def read_faults(facts: Mapping[str, object]) -> tuple[Fault, ...]:
    """The warnings that stand in a collection's facts."""
    listed = facts["faults"]
    return tuple(Fault(**fault) for fault in listed) if isinstance(listed, list) else ()


def _ordered(splits: Mapping[str, object]) -> list[str]:
    known = [split for split in ("train", "dev", "test") if split in splits]
    return known + sorted(split for split in splits if split not in known)
