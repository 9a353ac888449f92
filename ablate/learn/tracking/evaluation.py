"""One evaluation outside a study as a run of its own: what `ablate evaluate --track` sends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.learn.tracking.door import (
    QUIET,
    SQLITE,
    Point,
    connect,
    experiment_of,
    failures_of,
    write,
)
from ablate.learn.tracking.files import ARTIFACTS_NAME
from ablate.learn.tracking.guards import variables
from ablate.learn.tracking.names import safe_name
from ablate.run.ledger import slug

EXPERIMENT = "evaluations"


def log_evaluation(
    model: str,
    on: Sequence[str],
    judges: Sequence[str],
    metrics: Mapping[str, float],
    out: Path,
    uri: str,
) -> str:
    """Send metrics, settings and the files below `out` to MLflow; returns the new run's id.

    Files are metrics.json and, of every reference and judge in `metrics`, the scores per query and
    the TREC run. Raises TrackingUnavailable when the store cannot be reached.
    """
    params = {"model": model, "on": ", ".join(on), "judge": ", ".join(judges) or "null"}
    store = Path(uri.removeprefix(SQLITE)).absolute().parent
    artifacts = store / ARTIFACTS_NAME if uri.startswith(SQLITE) else None
    started = int(time.time() * 1000)
    with variables(QUIET), failures_of(uri):
        client = connect(uri)
        experiment = experiment_of(client, EXPERIMENT, artifacts)
        name = Path(model).name or model
        run = client.create_run(experiment.experiment_id, started, {"level": "evaluation"}, name)
        run_id: str = run.info.run_id
        points = [Point(safe_name(key), value, started, 0) for key, value in metrics.items()]
        write(client, run_id, points, params, {})
        _files(client, run_id, metrics, out)
        client.set_terminated(run_id)
    return run_id


def _files(client: Any, run_id: str, metrics: Mapping[str, float], out: Path) -> None:
    client.log_artifact(run_id, str(out / "metrics.json"))
    for name in sorted({slug(key.rpartition("/")[0]) for key in metrics}):
        if (out / name).is_dir():  # A mean over sets has no files of its own.
            client.log_artifacts(run_id, str(out / name), f"evaluations/{name}")
