"""The MLflow door: the ledger's findings into MLflow, as often as one likes, with one outcome.

Every run is found again by its tag `ablate.key`, and left alone when its `ablate.digest` is still
right. MLflow is never read for findings, so an outage delays it and loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.learn.environment import environment
from ablate.learn.files import hashes, mask, places, small_files, study_files
from ablate.learn.guards import one_at_a_time, variables
from ablate.learn.results import Results
from ablate.learn.tracked import (
    DIGEST,
    KEY,
    PARENT,
    READING,
    TrackedRun,
    cell_key,
    describe,
    execution_key,
    safe_name,
    tracked_runs,
)
from ablate.learn.views import TAG, compare_url, saved_views, server_command, view_url
from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.run.ledger import Ledger

STORE_NAME, ARTIFACTS_NAME = "mlflow.db", "mlartifacts"
METRICS_PER_CALL, TAGS_PER_CALL, PAGE = 800, 100, 1000
PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 6000, 8000, 36
"""Within MLflow's own limits: 1000 entities a call, of which 100 parameters and 100 tags."""
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
PROBE_SECONDS = "5"
LOCK_SECONDS = 60.0
PORT, COMPARED = 5000, 20
CAUSES = {
    "NewConnectionError": "connection refused",
    "ReadTimeoutError": "no answer in time",
    "ConnectTimeoutError": "no connection in time",
    "NameResolutionError": "the host is not known",
    "unable to open database file": "the database file cannot be opened",
}
NOTE = "mlflow.note.content"


class TrackingUnavailable(RuntimeError):
    """MLflow cannot be reached; the ledger is whole, and a later `sync` sends everything."""


@dataclass(frozen=True)
class SyncSummary:
    """What a sync did, and where it is to be seen. `uri` holds no password."""

    uri: str
    experiment_id: str
    created: int
    updated: int
    unchanged: int
    cells: Mapping[str, str]
    """Cell name -> run id, best cell first."""
    execution: str
    """Run id of the parent run."""
    server_command: str | None
    """Serves the store on this machine; None when it is a server already."""
    compare_url: str
    """Compares the first cells side by side."""
    cells_url: str
    """The saved view of the cells with their intervals."""


def default_uri(ledger: Ledger) -> str:
    """The SQLite store in a local run folder. InvalidInput when the run folder is not local."""
    if ledger.store.local is None:
        rule = "must be given when the run folder is not on local disk"
        raise InvalidInput([Problem("--tracking-uri", rule)])
    return f"sqlite:///{ledger.store.local / STORE_NAME}"


def artifact_folder(ledger: Ledger) -> Path | None:
    """Where the default store keeps artifacts."""
    return ledger.store.local / ARTIFACTS_NAME if ledger.store.local else None


def sync(results: Results, ledger: Ledger, tracking_uri: str | None = None) -> SyncSummary:
    """Fill MLflow with what the results hold; what is there already stays.

    Raises TrackingUnavailable when the store cannot be reached or gives up on the way.
    """
    uri = tracking_uri or default_uri(ledger)
    folder = None if uri.startswith("http") else artifact_folder(ledger)
    with variables(QUIET), _failures_of(uri), one_at_a_time(ledger.store.local, LOCK_SECONDS):
        client = _connect(uri)
        experiment = _experiment(client, results.study.name, folder)
        return _Sync(client, experiment, results, ledger, mask(uri)).run()


class _Sync:
    """One pass over everything that should be there."""

    def __init__(
        self, client: Any, experiment: Any, results: Results, ledger: Ledger, uri: str
    ) -> None:
        self.client, self.results, self.ledger, self.uri = client, results, ledger, uri
        self.experiment = experiment
        self.ids: dict[str, str] = {}
        self.created = self.updated = self.unchanged = 0
        self.known = self._known()

    def run(self) -> SyncSummary:
        """Send what is missing or changed."""
        for run in tracked_runs(self.results, hashes(self.ledger, self.results.study.name)):
            self._put(run)
        self._describe_experiment()
        cells = {
            cell.name: self.ids.get(cell_key(self.results, cell)) for cell in self.results.cells
        }
        found = {name: run_id for name, run_id in cells.items() if run_id is not None}
        experiment, served = self.experiment.experiment_id, self.uri.startswith("http")
        base = self.uri.replace("***@", "") if served else f"http://127.0.0.1:{PORT}"
        command = None if served else server_command(self.uri, artifact_folder(self.ledger), PORT)
        return SyncSummary(
            uri=self.uri,
            experiment_id=experiment,
            created=self.created,
            updated=self.updated,
            unchanged=self.unchanged,
            cells=found,
            execution=self.ids[execution_key(self.results)],
            server_command=command,
            compare_url=compare_url(base, experiment, list(found.values())[:COMPARED]),
            cells_url=view_url(base, experiment, "cells"),
        )

    def _known(self) -> dict[str, Any]:
        """Key -> run. Where an interrupted answer left two of a key, the younger goes."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment.experiment_id],
                max_results=PAGE,
                order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
                page_token=token,
            )
            for run in page:
                key = run.data.tags.get(KEY)
                if key in found:
                    self.client.delete_run(run.info.run_id)
                elif key is not None:
                    found[key] = run
            token = page.token
            if not token:
                return found

    def _put(self, run: TrackedRun) -> None:
        before = self.known.get(run.key)
        tags = {KEY: run.key, **{k: v[:TAG_LENGTH] for k, v in run.tags.items()}}
        if run.parent is not None:
            tags[PARENT] = self.ids[run.parent]
        if before is not None:
            tags = _without_foreign_note(tags, before.data.tags)
            if before.data.tags.get(DIGEST) == run.digest and _has(before.data.tags, tags):
                self.ids[run.key] = before.info.run_id
                self.unchanged += 1
                return
        if run.trial is not None:
            tags |= places(self.ledger, run.trial.trial_id)
        params = {safe_name(k): v[:PARAM_LENGTH] for k, v in run.params.items()}
        if before is not None and _contradicts(before, params):
            self.client.delete_run(before.info.run_id)
            before = None
        if before is None:
            before = self._create(run, tags)
            self.created += 1
        else:
            self.updated += 1
        self.ids[run.key] = before.info.run_id
        self._fill(run, before, params, tags)

    def _create(self, run: TrackedRun, tags: Mapping[str, str]) -> Any:
        return self.client.create_run(
            self.experiment.experiment_id,
            start_time=int(run.started * 1000),
            tags=dict(tags),
            run_name=run.name,
        )

    def _fill(
        self, run: TrackedRun, before: Any, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Bring an existing run up to date; its digest comes last, so that a break is seen."""
        from mlflow.entities import Metric, Param, RunTag

        run_id, data = before.info.run_id, before.data
        now = int(time.time() * 1000)
        fresh = [Param(k, v) for k, v in params.items() if k not in data.params]
        new = [RunTag(k, v) for k, v in tags.items() if data.tags.get(k) != v]
        steps = self._history(run)
        logged = {point.key for point in steps}
        changed = {k: v for k, v in run.metrics.items() if data.metrics.get(k) != v}
        metrics = [*steps, *(Metric(k, v, now, 0) for k, v in changed.items() if k not in logged)]
        self._batches(run_id, metrics, fresh, new)
        self._inputs(run, run_id)
        self._artifacts(run, run_id)
        if run.status == "RUNNING":
            self.client.update_run(run_id, status=run.status)
        else:
            ended = None if run.ended is None else int(run.ended * 1000)
            self.client.set_terminated(run_id, run.status, ended)
        self.client.set_tag(run_id, DIGEST, run.digest)

    def _batches(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        """Everything in as few calls as MLflow's limits allow."""
        calls = max(
            math.ceil(len(metrics) / METRICS_PER_CALL),
            math.ceil(len(params) / TAGS_PER_CALL),
            math.ceil(len(tags) / TAGS_PER_CALL),
        )
        for call in range(calls):
            metric, tag = call * METRICS_PER_CALL, call * TAGS_PER_CALL
            self.client.log_batch(
                run_id,
                metrics=metrics[metric : metric + METRICS_PER_CALL],
                params=params[tag : tag + TAGS_PER_CALL],
                tags=tags[tag : tag + TAGS_PER_CALL],
            )

    def _history(self, run: TrackedRun) -> list[Any]:
        """A trial's logged steps. Sent again they change nothing: MLflow knows equal points."""
        from mlflow.entities import Metric

        if run.trial is None:
            return []
        at = int(run.started * 1000)
        return [
            Metric(safe_name(key), float(value), at, int(row["step"]))
            for row in self.results.scores.history(run.trial)
            for key, value in row.items()
            if key != "step"
        ]

    def _inputs(self, run: TrackedRun, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=one.name,
                    digest=one.fingerprint[:DIGEST_LENGTH],
                    source_type="collection",
                    source=json.dumps({"name": one.name, "fingerprint": one.fingerprint}),
                ),
                [InputTag("mlflow.data.context", one.context)],
            )
            for one in run.datasets
        ]
        if inputs:
            self.client.log_inputs(run_id, datasets=inputs)

    def _artifacts(self, run: TrackedRun, run_id: str) -> None:
        """Copy the small files of a trial or of the study; tags say where the large ones are."""
        if run.parent is None:
            paths = study_files(self.ledger, self.results.study.name)
        elif run.trial is not None:
            paths = small_files(self.ledger, run.trial.trial_id)
        else:
            return
        with tempfile.TemporaryDirectory(prefix="ablate-") as staged:
            for name, path in paths.items():
                target = Path(staged) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.ledger.store.read(path) or b"")
            if run.parent is None:
                (Path(staged) / "environment.txt").write_text(environment(), encoding="utf-8")
            self.client.log_artifacts(run_id, staged)

    def _describe_experiment(self) -> None:
        """Note and saved views, where they are not already so."""
        tags = self.experiment.tags
        note = describe(self.results)
        wanted = {NOTE: note, "mlflow.experimentKind": "custom_model_development"}
        wanted = _without_foreign_note(wanted, tags)
        for view in saved_views(self.results):
            key, before = f"{TAG}{view.key}", tags.get(f"{TAG}{view.key}")
            created = json.loads(before)["createdAt"] if before else int(time.time() * 1000)
            wanted[key] = view.tag(created)
        for key, value in wanted.items():
            if tags.get(key) != value:
                self.client.set_experiment_tag(self.experiment.experiment_id, key, value)


def _contradicts(run: Any, params: Mapping[str, str]) -> bool:
    """Whether a parameter, which MLflow never lets change, holds another value."""
    return any(run.data.params.get(key, value) != value for key, value in params.items())


def _without_foreign_note(wanted: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The wanted tags, without the note where somebody wrote one of their own."""
    own = NOTE not in tags or READING in tags[NOTE]
    return {key: value for key, value in wanted.items() if own or key != NOTE}


def _has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(tags.get(key) == value for key, value in wanted.items())


def _connect(uri: str) -> Any:
    """A client whose store answered, in seconds or not at all."""
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    with variables({"MLFLOW_HTTP_REQUEST_TIMEOUT": PROBE_SECONDS}):
        client.search_experiments(max_results=1)
    return client


def _experiment(client: Any, name: str, artifacts: Path | None) -> Any:
    """The study's experiment; one that was deleted comes back."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if artifacts is None else (artifacts / safe_name(name)).as_uri()
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found


@contextlib.contextmanager
def _failures_of(uri: str) -> Iterator[None]:
    """What a store in trouble raises, as one exception with a message for a person."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
        if getattr(error, "error_code", None) in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
            raise
        raise TrackingUnavailable(
            f"MLflow at {mask(uri)} does not answer: {_reason(error)}. Nothing is lost: the run "
            "folder holds every result, and `ablate track` sends them later."
        ) from error


def _reason(error: Exception) -> str:
    """The cause in a few words, without addresses that may hold a password."""
    text = str(error)
    for sign, words in CAUSES.items():
        if sign in text:
            return words
    return mask(next(iter(text.splitlines()), type(error).__name__))[:200]
