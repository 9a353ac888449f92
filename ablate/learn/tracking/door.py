"""The MLflow door: connecting to a store, its failures, and writing within its limits."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablate.learn.tracking.guards import variables
from ablate.learn.tracking.names import safe_name
from ablate.learn.tracking.tracked import Dataset
from ablate.run.store import mask
from trainables.errors import InvalidInput, Problem, nearest

METRICS_PER_CALL, TAGS_PER_CALL = 800, 100
"""Within MLflow's own limits: 1000 entities a call, of which 100 parameters and 100 tags."""
DIGEST_LENGTH = 36
SQLITE = "sqlite:///"
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings during a call: give up on a dead server in seconds, and report to nobody."""
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Settings of a call that must not be repeated."""
PROBE_SECONDS = "5"
CAUSES = {
    "NewConnectionError": "connection refused",
    "ReadTimeoutError": "no answer in time",
    "ConnectTimeoutError": "no connection in time",
    "NameResolutionError": "the host is not known",
    "unable to open database file": "the database file cannot be opened",
}


SCHEMES = (
    "http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks",
    "databricks-uc", "uc",
)  # fmt: skip
"""How an MLflow address may begin; a database's may name its driver (`mysql+pymysql`)."""


class TrackingUnavailable(RuntimeError):
    """MLflow cannot be reached, and why; the ledger is whole, and a later `sync` sends the rest."""


class Point(NamedTuple):
    """One value of a metric; `time` in Unix milliseconds."""

    key: str
    value: float
    time: int
    step: int


def check_uri(uri: str | None, option: str = "--tracking-uri") -> None:
    """Raises InvalidInput when `uri` is no address that MLflow knows; None is always one."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.+-]*):(//)?", uri or "")
    scheme = found[1].partition("+")[0].lower() if found else None
    host = re.match(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d+(/|$)", uri or "")
    if uri is None or (not host and scheme in (*SCHEMES, None)):
        return
    near = f"http://{uri}" if host else None
    if not host and scheme:
        best = nearest(scheme, SCHEMES)
        near = best and f"{best}{mask(uri)[len(scheme) :]}"
    rule = f"must begin with one of {', '.join(f'{name}:' for name in SCHEMES)} or be a path"
    raise InvalidInput([Problem(option, rule, mask(uri), near)])


def connect(uri: str) -> Any:
    """A client whose store answered, in seconds or not at all."""
    from mlflow import MlflowClient

    for name, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("urllib3", "ERROR")):
        logging.getLogger(name).setLevel(level)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        _create(Path(uri.removeprefix(SQLITE)))
    client = MlflowClient(tracking_uri=uri)
    with variables({"MLFLOW_HTTP_REQUEST_TIMEOUT": PROBE_SECONDS}):
        client.search_experiments(max_results=1)
    return client


def _create(path: Path) -> None:
    """A new SQLite store, whole or not at all: MLflow never recovers from half of its tables."""
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{SQLITE}{draft}").search_experiments(max_results=1)
    draft.replace(path)


def experiment_of(client: Any, name: str, artifacts: Path | None) -> Any:
    """The study's experiment; one that was deleted comes back."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if artifacts is None else (artifacts / safe_name(name)).as_uri()
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found


def write(
    client: Any,
    run_id: str,
    metrics: Sequence[Point],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """Everything in as few calls as MLflow's limits allow; tags go with or after the rest."""
    from mlflow.entities import Metric, Param, RunTag

    points = [Metric(*point) for point in metrics]
    settings = [Param(key, value) for key, value in params.items()]
    marks = [RunTag(key, value) for key, value in tags.items()]
    calls = max(
        math.ceil(len(points) / METRICS_PER_CALL),
        math.ceil(len(settings) / TAGS_PER_CALL),
        math.ceil(len(marks) / TAGS_PER_CALL),
    )
    for call in range(calls):
        metric, tag = call * METRICS_PER_CALL, call * TAGS_PER_CALL
        client.log_batch(
            run_id,
            metrics=points[metric : metric + METRICS_PER_CALL],
            params=settings[tag : tag + TAGS_PER_CALL],
            tags=marks[tag : tag + TAGS_PER_CALL],
        )


def write_inputs(client: Any, run_id: str, datasets: Sequence[Dataset]) -> None:
    """The collections that a run read."""
    from mlflow.entities import Dataset as TrackedDataset
    from mlflow.entities import DatasetInput, InputTag

    inputs = [
        DatasetInput(
            TrackedDataset(
                name=one.name,
                digest=one.fingerprint[:DIGEST_LENGTH],
                source_type="collection",
                source=json.dumps({"name": one.name, "fingerprint": one.fingerprint}),
            ),
            [InputTag("mlflow.data.context", one.context)],
        )
        for one in datasets
    ]
    if inputs:
        client.log_inputs(run_id, datasets=inputs)


@contextlib.contextmanager
def failures_of(uri: str) -> Iterator[None]:
    """What a store in trouble raises, as one exception with a message for a person."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (
        MlflowException,
        requests.RequestException,
        SQLAlchemyError,
        OSError,
        ImportError,
    ) as error:
        if getattr(error, "error_code", None) in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
            raise
        reason = f"MLflow at {mask(uri)} does not answer: {_reason(error)}"
        raise TrackingUnavailable(reason) from error


def _reason(error: Exception) -> str:
    """The cause in a few words, without addresses that may hold a password."""
    text = str(error)
    for sign, words in CAUSES.items():
        if sign in text:
            return words
    return mask(next(iter(text.splitlines()), type(error).__name__))[:200]
