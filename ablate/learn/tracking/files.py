"""Which files of a run folder go along to MLflow, where the others are, and the store in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.run.ledger import Ledger

STORE_NAME, ARTIFACTS_NAME = "mlflow.db", "mlartifacts"
LARGEST_COPY = 4_000_000
"""Bytes up to which a file of a trial is copied; a larger one stays where the tags say."""
STUDY_FILES = (
    "study.yaml", "plan.json", "choices.json", "data.json", "confirm.json", "report.html",
    "report.md",
)  # fmt: skip
STUDY_FOLDERS = ("figures", "executions")


def default_uri(ledger: Ledger) -> str:
    """The SQLite store in a local run folder. InvalidInput when the run folder is not local."""
    if ledger.store.local is None:
        rule = "must be given when the run folder is not on local disk"
        raise InvalidInput([Problem("--tracking-uri", rule)])
    return f"sqlite:///{ledger.store.local / STORE_NAME}"


def artifact_folder(ledger: Ledger) -> Path | None:
    """Where the default store keeps artifacts."""
    return ledger.store.local / ARTIFACTS_NAME if ledger.store.local else None


def study_files(ledger: Ledger, study: str) -> dict[str, str]:
    """Name -> path in the run folder, of the study's files that are there."""
    home, store = ledger.study(study).path, ledger.store
    inner = [
        f"{part}/{name}" for part in STUDY_FOLDERS for name in store.children(f"{home}/{part}")
    ]
    paths = {name: f"{home}/{name}" for name in (*STUDY_FILES, *inner)}
    return {name: path for name, path in paths.items() if store.exists(path)}


def hashes(ledger: Ledger, study: str) -> dict[str, str]:
    """Name -> hash of the content, of the study's files."""
    return {
        name: hashlib.sha256(ledger.store.read(path) or b"").hexdigest()
        for name, path in study_files(ledger, study).items()
    }


def small_files(ledger: Ledger, trial_id: str) -> dict[str, str]:
    """Name -> path of the trial's files of evaluation that are small enough to copy."""
    store, home = ledger.store, f"trials/{trial_id}"
    paths = {}
    for evaluation in store.children(f"{home}/evaluations"):
        for name in store.children(f"{home}/evaluations/{evaluation}"):
            path = f"{home}/evaluations/{evaluation}/{name}"
            if store.files.get_file_info(store.path(path)).size <= LARGEST_COPY:
                paths[f"evaluations/{evaluation}/{name}"] = path
    return paths


def places(ledger: Ledger, trial_id: str) -> dict[str, str]:
    """Where the trial's folder and its checkpoint are, which are not copied."""
    home, uri = f"trials/{trial_id}", ledger.store.shown
    found = {"folder": f"{uri}/{home}"}
    if ledger.store.exists(f"{home}/checkpoint"):
        found["checkpoint"] = f"{uri}/{home}/checkpoint"
    return found
