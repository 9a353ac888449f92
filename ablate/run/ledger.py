"""The run folder: one record per trial, written whole, the single source of truth.

trials/<trial_id>/record.json            state, spec, metrics, reason
trials/<trial_id>/history.jsonl          one row per logged step
trials/<trial_id>/evaluations/<slug>/    metrics.json, per_query.parquet, run.trec
trials/<trial_id>/looks/<what>/          watched scores per query by step; whether it is to stop
trials/<trial_id>/checkpoint/            the trained encoder
trials/<trial_id>/resume/                the state of an unfinished training
studies/<name>/                          plan, searches, choices, openings, executions, report
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate.run import older
from ablate.run.older import slug
from ablate.run.store import Store
from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BASELINES", "Ledger", "Record", "State", "StudyFolder", "slug"]

BASELINES = "baselines.json"
"""What each baseline of a study was scored on: name -> reference -> fingerprint."""

State = Literal["planned", "running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Record:
    """What is known of one trial. Times are Unix seconds; `seconds` splits the trial's own work."""

    trial_id: str
    spec: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    state: State = "planned"
    reason: str | None = None
    own_fault: bool = False
    """A failed trial that would fail again, so that only `ablate retry` runs it once more."""
    started: float | None = None
    finished: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    host: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluated: Mapping[str, str] = field(default_factory=dict)
    """Reference (`nq/test`) -> fingerprint of the collection it was scored on."""
    log_tail: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The record as JSON, keys sorted."""
        return _json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Record:
        """The record written by `to_json`."""
        content = json.loads(text)
        content["log_tail"] = tuple(content["log_tail"])
        return cls(**older.record_of_today(content))


class Ledger:
    """Reads and writes a run folder."""

    def __init__(self, root: str | Path | Store, patience: float = 0.0) -> None:
        """`patience` is how many seconds an object store that does not answer is waited for."""
        self.store = root if isinstance(root, Store) else Store(root, patience)

    def record(self, trial_id: str) -> Record | None:
        """The trial's record, or None when it was never started here.

        Raises InvalidInput, which names the file, when it cannot be read.
        """
        path = f"trials/{trial_id}/record.json"
        content = self.store.read(path)
        with _readable(self.store, path, "remove it, and `ablate run` trains this trial again"):
            return None if content is None else Record.from_json(content)

    def records(self, trial_ids: Iterable[str] | None = None) -> Iterator[Record]:
        """The records of the given trials, or of all, one at a time.

        Raises InvalidInput, after the last, with every record that cannot be read.
        """
        problems: list[Problem] = []
        for trial_id in self.store.children("trials") if trial_ids is None else trial_ids:
            try:
                record = self.record(trial_id)
            except InvalidInput as error:
                problems += error.problems
                continue
            if record is not None:
                yield record
        if problems:
            raise InvalidInput(problems)

    def write(self, record: Record) -> None:
        """Put the record in place of the one before."""
        self.store.write(f"trials/{record.trial_id}/record.json", record.to_json())

    def history(self, trial_id: str) -> list[dict[str, float]]:
        """Rows of logged steps, in order; empty when none was kept. Raises as `record`."""
        path = f"trials/{trial_id}/history.jsonl"
        content = self.store.read(path)
        with _readable(self.store, path, "remove it: the trial keeps its scores, not its curves"):
            return [] if content is None else [dict(json.loads(r)) for r in content.splitlines()]

    def evaluated(self, trial_id: str) -> list[str]:
        """References that the trial was scored on."""
        record = self.record(trial_id)
        return [] if record is None else sorted(record.evaluated)

    def per_query(
        self, trial_id: str, ref_label: str
    ) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
        """Query ids and, per metric, float64[Q]; FileNotFoundError when not evaluated."""
        return _scores(self.store, f"trials/{trial_id}/evaluations", ref_label)

    def publish(self, trial_id: str, output: Path) -> None:
        """Move what a trial wrote (`history.jsonl`, `checkpoint`, `evaluations/*`) into place.

        The record is not touched: it is written last, when everything it names stands.
        """
        home = f"trials/{trial_id}"
        history = output / "history.jsonl"
        if history.exists():
            self.store.write(f"{home}/history.jsonl", history.read_bytes())
        if (output / "checkpoint").exists():
            self.store.publish(output / "checkpoint", f"{home}/checkpoint")
        for folder in sorted(output.glob("evaluations/*")):
            self.store.publish(folder, f"{home}/evaluations/{folder.name}")

    def checkpoint(self, trial_id: str, copy: Path) -> Path | None:
        """A local folder with the trained encoder, or None; `copy` as in `Store.fetch`."""
        return self.store.fetch(f"trials/{trial_id}/checkpoint", copy)

    def study(self, name: str) -> StudyFolder:
        """The folder of a study."""
        return StudyFolder(self.store, f"studies/{name}")


class StudyFolder:
    """What belongs to a study as a whole rather than to one trial."""

    def __init__(self, store: Store, path: str) -> None:
        self.store = store
        self.path = path

    @property
    def local(self) -> Path | None:
        """The folder on local disk, or None when the run folder is on an object store."""
        return self.store.local / self.path if self.store.local else None

    def write(self, name: str, content: Any) -> None:
        """Put a file: bytes and text as they are, anything else as JSON."""
        if isinstance(content, str):
            content = content.encode()
        self.store.write(
            f"{self.path}/{name}", content if isinstance(content, bytes) else _json(content)
        )

    def read(self, name: str) -> Any:
        """The JSON of a file, or None when it does not exist. Raises InvalidInput when damaged."""
        path = f"{self.path}/{name}"
        content = self.store.read(path)
        with _readable(self.store, path, self._remedy):
            return None if content is None else json.loads(content)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a file with one JSON value a line; empty when there is none. As `read`."""
        path = f"{self.path}/{name}"
        content = self.store.read(path)
        with _readable(self.store, path, self._remedy):
            return [] if content is None else [json.loads(line) for line in content.splitlines()]

    @property
    def _remedy(self) -> str:
        name = self.path.rpartition("/")[2]
        return f"remove it and run the study again (`ablate run {name}`): finished trials stay"

    def choices(self) -> dict[str, int]:
        """Cell name -> index of the draw that was chosen on dev; empty before the choice."""
        return self.read("choices.json") or {}

    def search(self, search_id: str) -> Any:
        """What an adaptive search of one cell has chosen, as JSON; None when it has not begun.

        A damaged file counts as none: the search comes to the same draws by the trials' records.
        """
        try:
            return self.read(f"searches/{search_id}.json")
        except ValueError:
            return None

    def write_search(self, search_id: str, content: Mapping[str, Any]) -> None:
        """Keep what an adaptive search has chosen, in place of what it had before."""
        self.write(f"searches/{search_id}.json", dict(content))

    def searched(self) -> list[str]:
        """The ids of all trials that adaptive searches have chosen, also under other settings."""
        names = self.store.children(f"{self.path}/searches")
        found = [self.search(name.removesuffix(".json")) for name in names]
        return [row["trial_id"] for content in found if content for row in content["draws"]]

    def openings(self) -> list[dict[str, Any]]:
        """Every opening of a test split: when, which references, which trials."""
        names = self.store.children(f"{self.path}/openings")
        return [self.read(f"openings/{name}") for name in names]

    def open_test(self, opening: Mapping[str, Any], name: str) -> None:
        """Record that test splits are about to be scored; written before the first score."""
        self.write(f"openings/{name}.json", dict(opening))

    def executions(self) -> list[dict[str, Any]]:
        """Each run of the study's command: when, where, with which versions, how it ended."""
        names = self.store.children(f"{self.path}/executions")
        return [self.read(f"executions/{name}") for name in names]

    def baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """Baseline name -> reference -> metric key -> value."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        scored = self.read(BASELINES) or {}
        for name in self.store.children(f"{self.path}/baselines"):
            names = older.renamed(scored.get(name, {}))
            for folder in self.store.children(f"{self.path}/baselines/{name}"):
                metrics = self.read(f"baselines/{name}/{folder}/metrics.json")
                if metrics is not None:
                    label = folder.replace("__", "/")
                    found.setdefault(name, {})[names.get(label, label)] = metrics
        return found

    def baseline_marks(self) -> dict[str, dict[str, str]]:
        """Baseline name -> reference -> fingerprint of what it was scored on, where that is
        known."""
        scored = self.read(BASELINES) or {}
        return {name: older.marks_of_today(marks) for name, marks in scored.items()}

    def baseline_scores(
        self, name: str, ref_label: str
    ) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
        """A baseline's scores per query, as `Ledger.per_query` gives them."""
        return _scores(self.store, f"{self.path}/baselines/{name}", ref_label)


def cache_root(ledger: Ledger) -> str:
    """Where shared content is cached: in the run folder, or on each node when that is remote."""
    return str(ledger.store.local / "cache") if ledger.store.local else default_cache()


def default_cache() -> str:
    """The cache of what runs without a run folder on local disk."""
    return os.environ.get("ABLATE_CACHE", str(Path.home() / ".cache" / "ablate"))


@contextlib.contextmanager
def _readable(store: Store, path: str, remedy: str) -> Iterator[None]:
    """What the block cannot read of a file, as InvalidInput with the file and the remedy."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        rule = f"is damaged ({cause}); put a whole copy in its place, or {remedy}"
        raise InvalidInput([Problem(f"{store.shown}/{path}", rule)]) from None


def _scores(
    store: Store, home: str, label: str
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    import pyarrow.parquet as pq

    path = f"{home}/{older.slug_of(store, home, label)}/per_query.parquet"
    # One file is read several times faster so than by `read_table`, which looks for a data set.
    with store.reaching(), store.files.open_input_file(store.path(path)) as file:
        table = pq.ParquetFile(file).read(use_threads=False)
    columns = {name: table[name].to_numpy() for name in table.column_names[1:]}
    return table["query_id"].to_pylist(), columns


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()
