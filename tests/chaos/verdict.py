"""What a sweep under attack must have in common with one in peace, and must not leave behind."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.learn.tracking.tracked import KEY
from ablate.run.lease import CLAIMS, DRIVERS
from ablate.run.ledger import Ledger
from ablate.run.store import TEMPORARY

Process = tuple[int, str]
"""A process's id and when it started: ids are used again."""
LIFE_SECONDS = 60.0
"""How long a process that lost its driver may go on; a pass over MLflow ends first."""


def findings(runs: Path) -> dict[str, Any]:
    """Per trial what must not depend on how it was run, weights and history by their hashes."""
    found = {}
    for record in Ledger(runs).records():
        home = runs / "trials" / record.trial_id
        files = [home / "history.jsonl", *sorted(home.glob("checkpoint/*.safetensors"))]
        hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}
        found[record.trial_id] = (record.state, dict(record.metrics), hashes)
    return found


def differences(here: dict[str, Any], peace: dict[str, Any]) -> list[str]:
    """Trials that are missing, too many, or not the same to the last bit."""
    return [
        f"{trial_id}: {here.get(trial_id)} instead of {peace.get(trial_id)}"
        for trial_id in sorted(peace.keys() | here.keys())
        if here.get(trial_id) != peace.get(trial_id)
    ]


def left_files(runs: Path, temporary: Path) -> list[str]:
    """Files that only a running sweep needs; `temporary` is the drivers' TMPDIR."""
    found: list[Path] = []
    for place in (TEMPORARY, CLAIMS, DRIVERS, ".train"):
        found += (runs / place).glob("*")
    for pattern in ("trials/*/resume*", "cache/*/.making/*"):
        found += runs.glob(pattern)
    return [f"left: {path}" for path in (*found, *temporary.glob("ablate-*"))]


def living(processes: set[Process]) -> set[Process]:
    """Those that still run; what only waits to be reaped does not."""
    return {process for process in processes if started(process[0]) == process[1]}


def started(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot; None when it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def orphans(processes: set[Process]) -> list[str]:
    """Those of the sweep's processes that do not end by themselves."""
    until = time.monotonic() + LIFE_SECONDS
    while living(processes) and time.monotonic() < until:
        time.sleep(0.5)
    return [f"orphan: process {pid}" for pid, _ in living(processes)]


def tracked(url: str, ledger: Ledger, experiment: str, cells: int) -> dict[str, int]:
    """What MLflow holds of a study whose trials are all in the ledger, and what it should hold."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=url)
    there = client.get_experiment_by_name(experiment)
    where = [] if there is None else [there.experiment_id]
    found = list(client.search_runs(where, max_results=1000)) if where else []
    runs = {run.data.tags[KEY]: run for run in found}
    counts = Counter[str]()
    for record in ledger.records():
        run = runs.get(f"trial/{record.trial_id}")
        if run is not None:
            counts.update(_points(client, ledger, record, run))
    return {
        "expected": 1 + cells + sum(1 for _ in ledger.records()),
        "found": len(runs),
        "doubled": len(found) - len(runs),
        "unfinished": sum(run.info.status != "FINISHED" for run in found),
        "points": counts["points"],
        "points lost or doubled": counts["wrong"],
    }


def untracked(counts: dict[str, int]) -> Iterator[str]:
    """What is wrong with what `tracked` has counted."""
    wrong = ("doubled", "unfinished", "points lost or doubled")
    if counts["found"] != counts["expected"] or any(counts[name] for name in wrong):
        yield f"MLflow: {counts}"
    if not counts["points"]:
        yield "MLflow: no point at all"


def _points(client: Any, ledger: Ledger, record: Any, run: Any) -> dict[str, int]:
    """Points of the ledger's history and scores; how many of them MLflow lacks or has twice."""
    expected, last = Counter[tuple[str, int, float]](), dict[str, tuple[int, float]]()
    for row in ledger.history(record.trial_id):
        for key, value in row.items():
            if key != "step":
                last[key] = int(row["step"]), value
                expected[key, int(row["step"]), value] += 1
    # The value at the end is a point of its own, unless the last step has it.
    for key, value in record.metrics.items():
        step, before = last.get(key, (0, None))
        expected[key, step, value] += value != before
    found = Counter(
        (key, point.step, point.value)
        for key in {key for key, *_ in expected}
        for point in client.get_metric_history(run.info.run_id, key)
    )
    wrong = ((expected - found) + (found - expected)).total()
    wrong += sum(run.data.metrics.get(key) != end for key, end in record.metrics.items())
    return {"points": expected.total(), "wrong": wrong}
