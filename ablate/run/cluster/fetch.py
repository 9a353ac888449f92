"""Bring a study's results from a run folder elsewhere into one on this machine."""

from __future__ import annotations

from ablate.run.ledger import Ledger
from trainables.errors import InvalidInput, Problem


def fetch(study: str, source: Ledger, target: Ledger) -> int:
    """Copy the study's folder and its trials' records, histories and scores; returns the trials.

    Checkpoints stay where they are. A trial that is here as it is there is not copied again. Raises
    InvalidInput when `source` does not know the study, or `target` is not on local disk.
    """
    if target.store.local is None:
        raise InvalidInput([Problem("--runs", "must be a local folder", target.store.shown)])
    folder = source.study(study)
    plan = folder.read("plan.json")
    if plan is None:
        known = ", ".join(source.store.children("studies")) or "none"
        raise InvalidInput([Problem(study, f"is not in {source.store.shown}; known: {known}")])
    _copy(source, target, folder.path)
    trials = [trial["trial_id"] for trial in plan["trials"]]
    trials += folder.searched()
    trials += [trial for opening in folder.openings() for trial in opening["trials"]]
    found = 0
    for trial in dict.fromkeys(trials):
        home = f"trials/{trial}"
        record = source.store.read(f"{home}/record.json")
        if record is None:
            continue
        found += 1
        if target.store.read(f"{home}/record.json") == record:
            continue
        history = source.store.read(f"{home}/history.jsonl")
        if history is not None:
            target.store.write(f"{home}/history.jsonl", history)
        if source.store.exists(f"{home}/evaluations"):
            _copy(source, target, f"{home}/evaluations")
        target.store.write(f"{home}/record.json", record)
    return found


def _copy(source: Ledger, target: Ledger, path: str) -> None:
    from pyarrow import fs

    (target.store.local / path).mkdir(parents=True, exist_ok=True)  # type: ignore[operator]
    fs.copy_files(
        source.store.path(path),
        target.store.path(path),
        source_filesystem=source.store.files,
        destination_filesystem=target.store.files,
    )
