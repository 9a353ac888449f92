"""Views of MLflow's pages that every colleague finds: saved in tags, opened by address."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ablate.learn.results import Results
from ablate.learn.tracked import PLAN, safe_name, text_columns

TAG = "mlflow.sharedViewState."
"""Experiment tag that MLflow's page reads a saved view from (MLflow 3.15 and later)."""


@dataclass(frozen=True)
class View:
    """A saved view of the runs table: which runs, in which order, with which columns."""

    key: str
    name: str
    search: str
    order_by: str
    ascending: bool
    columns: tuple[str, ...]
    charts: tuple[Mapping[str, Any], ...] = ()

    def state(self) -> str:
        """The page's state, as MLflow stores it."""
        content: dict[str, Any] = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsHiddenMode": "FIRST_10_RUNS",
            "groupBy": None,
        }
        if self.charts:
            section = {"uuid": "ablate", "name": "Study", "display": True, "isReordered": True}
            content["compareRunSections"] = [section]
            content["compareRunCharts"] = list(self.charts)
            content["isAccordionReordered"] = True
        packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode())
        return "deflate;" + base64.b64encode(packed).decode()

    def tag(self, created_ms: int) -> str:
        """Value of the experiment tag that holds the view."""
        content = {"name": self.name, "createdAt": created_ms, "state": self.state()}
        return json.dumps(content, separators=(",", ":"))


def saved_views(results: Results) -> tuple[View, ...]:
    """The views of a study. They show the current plan only, not what earlier plans left."""
    metric = f"metrics.`{safe_name(results.primary)}`"
    compared = [_param(key) for key in results.study.compared]
    varied = [*compared, *(_param(key) for key in results.study.tune)]
    primary, *others = (_tag(name) for name in text_columns(results))
    cells = (*compared, primary, *_tags("interval", "gain", "verdict"), *others)
    cells = (*cells, *_tags("seeds", "failed"))
    trials = (*_tags("cell", "seed", "state", "selected"), *varied, metric)
    every, best = _search(results, "cell"), "tags.best_per_loss = 'yes'"
    charts = _charts(results)
    return (
        View("cells", "Cells with intervals", every, metric, False, cells, charts),
        View("losses", "Best cell per loss", f"{every} and {best}", metric, False, cells, charts),
        View("trials", "All trials", _search(results, "trial"), metric, False, trials),
        View(
            "failed",
            "Failed trials",
            f"{_search(results, 'trial')} and tags.state = 'failed'",
            _param("seed"),
            True,
            (*_tags("reason", "seed"), *varied),
        ),
    )


def _search(results: Results, level: str) -> str:
    return f"tags.level = '{level}' and tags.`{PLAN}` = '{results.plan_id}'"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _tags(*names: str) -> tuple[str, ...]:
    return tuple(_tag(name) for name in names)


def _param(key: str) -> str:
    return f"params.`{safe_name(key)}`"


def _charts(results: Results) -> tuple[Mapping[str, Any], ...]:
    """A bar per cell, and parallel coordinates from the compared values to the primary metric."""
    key = safe_name(results.primary)
    common = {"metricSectionId": "ablate", "deleted": False, "isGenerated": False}
    bars = {
        **common,
        "uuid": "ablate-bars",
        "type": "BAR",
        "metricKey": key,
        "runsCountToCompare": 20,
        "displayName": results.primary,
    }
    lines = {
        **common,
        "uuid": "ablate-parallel",
        "type": "PARALLEL",
        "selectedParams": [safe_name(name) for name in results.study.compared],
        "selectedMetrics": [key],
        "showAllRuns": True,
        "runsCountToCompare": 100,
    }
    return (bars, lines) if results.study.compared else (bars,)


def view_url(base: str, experiment_id: str, key: str) -> str:
    """Address of a saved view on the MLflow server at `base`."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={quote(key)}"


def compare_url(base: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """Address of the page that compares the runs side by side."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")))
    experiments = quote(json.dumps([experiment_id]))
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def server_command(uri: str, artifacts: Path | None, port: int = 5000) -> str:
    """The command that serves the store at `uri` on this machine alone.

    `artifacts` is the folder of artifacts beside an SQLite store.
    """
    beside = Path(sys.executable).with_name("mlflow")
    program = str(beside) if beside.exists() else "mlflow"
    words = [program, "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", uri]
    if artifacts is not None:
        words += ["--artifacts-destination", str(artifacts)]
    return shlex.join([*words, "--workers", "1"])
