"""Fixtures that the tests of tracking share: an MLflow store, its client, and a study in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.run.ledger import Ledger
from tests.learn.tracked import FAILED, REASON, filled, runs_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the module: a fresh one takes seconds of migrations."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store)


@pytest.fixture
def names() -> Iterator[Callable[[], str]]:
    """Names of studies that no other test of the module has."""
    return lambda: f"study-{time.monotonic_ns()}"


@pytest.fixture(scope="module")
def study(store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Ledger]:
    root = tmp_path_factory.mktemp("runs")
    plan, ledger = filled(root, "layout", failed={f"{FAILED} 1": REASON})
    (root / "studies/layout/report.html").write_text("<html></html>")
    return collect(plan, ledger), ledger


@pytest.fixture(scope="module")
def summary(study: tuple[Results, Ledger], store: str) -> SyncSummary:
    return sync(*study, store)


@pytest.fixture(scope="module")
def runs(summary: SyncSummary, client: Any) -> dict[str, Any]:
    return runs_of(client, summary.experiment_id)
