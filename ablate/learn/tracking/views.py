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

from ablate.learn.results import Results, split_key
from ablate.learn.tracking.names import safe_name, text_columns, trial_columns
from ablate.learn.tracking.tracked import (
    PLAN,
    REASON,
    cell_metrics,
    digest_of,
    trial_metrics,
)

TAG = "mlflow.sharedViewState."
"""Experiment tag that MLflow's page reads a saved view from (MLflow 3.15 and later)."""
TEMPERATURE = "loss.temperature"
SECTION, SHOWN, NAME_LENGTH = "ablate", 100, 80
"""Of charts: their section, and runs at most; and of a view's name."""
RUN_NAME, WHEN = "attributes.`Run Name`", ("runDateAndNestInfo", "duration")
"""Columns that the runs table always has: the name, the time of creation and the duration."""
WIDTHS = {RUN_NAME: 250, f"tags.`{REASON}`": 480}
"""Of columns, in pixels, where the length of the heading does not tell."""


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
    closed: tuple[str, ...] = ()
    """Sections of the charts that MLflow makes itself, one per prefix of a metric: closed at first,
    or the study's own charts are lost among them."""
    every_run: bool = False
    """Whether charts show every run of the table, rather than the first 20."""

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
            "columnOrder": [RUN_NAME, *self.columns, *WHEN],
            "columnWidths": {name: _width(name) for name in (RUN_NAME, *self.columns)},
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsHiddenMode": "SHOW_ALL" if self.every_run else "FIRST_20_RUNS",
            "groupBy": None,
        }
        if self.charts:
            # One chart a row: in half of the page the names of axes run into each other.
            own = {"uuid": SECTION, "name": "Study", "display": True, "columns": 1}
            others = [{"uuid": f"{SECTION}-{x}", "name": x, "display": False} for x in self.closed]
            content["compareRunSections"] = [{**x, "isReordered": True} for x in (own, *others)]
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
    metric, varied = _metric(results.primary), _varied(results)
    every, trials = _search(results, "cell"), _search(results, "trial")
    columns, charts, closed = _cell_columns(results), _charts(results), _prefixes(results, "cell")
    best = f"{every} and tags.best_per_loss = 'yes'"
    one_each = (*_tags(*trial_columns(results), "seed", "state", "selected"), *varied)
    bad = (*_tags("state", "seed", REASON), *varied)
    ended = "Failed trials" if results.study.stop is None else "Failed or stopped trials"
    return (
        View("cells", "Cells with intervals", every, metric, False, columns, charts, closed),
        View("losses", "Best cell per loss", best, metric, False, columns, charts, closed),
        *_temperature_view(results),
        *_sets_view(results),
        View("trials", "All trials", trials, metric, False, one_each),
        View("failed", ended, f"{trials} and tags.reason LIKE '%'", _param("seed"), True, bad),
    )


def comparison_view(results: Results, runs: Mapping[str, str]) -> View:
    """The chosen cells side by side, in the table and in charts; the same cells, the same key.

    `runs` maps their names to the ids of their runs.
    """
    ids = sorted(runs.values())
    listed = ", ".join(f"'{run_id}'" for run_id in ids)
    return View(
        f"compare-{digest_of(ids)}",
        f"Compared: {', '.join(sorted(runs))}"[:NAME_LENGTH],
        f"attributes.run_id IN ({listed})",
        _metric(results.primary),
        False,
        _cell_columns(results),
        _charts(results),
        _prefixes(results, "cell"),
        True,
    )


def _temperature_view(results: Results) -> tuple[View, ...]:
    """The primary metric over the temperature: of cells that compare it, of trials that tune it."""
    study, metric = results.study, results.primary
    if len(results.settings(TEMPERATURE)) < 2:
        return ()
    level = "cell" if TEMPERATURE in study.compared else "trial"
    if level == "trial" and study.select is not None:
        metric = study.select.key
    columns = _cell_columns(results)
    if level == "trial":
        columns = (*_tags(*trial_columns(results), "seed", "selected"), *_varied(results))
    order, charts = _param(TEMPERATURE), (_scatter(TEMPERATURE, "PARAM", metric),)
    name, search, closed = "Temperature curves", _search(results, level), _prefixes(results, level)
    return (View("temperature", name, search, order, True, columns, charts, closed, True),)


def _sets_view(results: Results) -> tuple[View, ...]:
    """One column per test set, where there are several."""
    if len(results.test_refs) < 2:
        return ()
    metric = split_key(results.primary)[1]
    texts = [name for name, key in text_columns(results).items() if split_key(key)[1] == metric]
    keys = [f"{ref}/{metric}" for ref in results.test_refs]
    known = [key for key in keys if key in results.metric_keys]
    columns = (*_tags("loss"), *_tags(*texts))
    charts = tuple(_bars(key) for key in known)
    search, order = _search(results, "cell"), _metric(results.primary)
    closed = _prefixes(results, "cell")
    return (View("sets", "Every test set", search, order, False, columns, charts, closed),)


def _cell_columns(results: Results) -> tuple[str, ...]:
    """What was compared, the primary metric as text, the verdict, and the rest."""
    compared = tuple(_param(key) for key in results.study.compared)
    primary, *others = (_tag(name) for name in text_columns(results))
    own = (*compared, primary, *_tags("interval", "verdict", "gain"), *others)
    stopped = () if results.study.stop is None else ("stopped",)
    return (*own, *_tags("seeds", "failed", *stopped))


def _prefixes(results: Results, level: str) -> tuple[str, ...]:
    """What stands before the last slash in the names of the metrics of cells or of trials."""
    names: set[str] = set()
    if level == "cell":
        names = {name for cell in results.cells for name in cell_metrics(results, cell)}
    else:
        names = {name for trial in results.trials for name in trial_metrics(trial)}
    return tuple(sorted({name.rpartition("/")[0] for name in names}))


def _width(column: str) -> int:
    """Pixels in which a column's heading can be read."""
    return WIDTHS.get(column, max(100, 34 + 7 * len(column.split("`")[1])))


def _varied(results: Results) -> tuple[str, ...]:
    return tuple(_param(key) for key in (*results.study.compared, *results.study.tune))


def _search(results: Results, level: str) -> str:
    return f"tags.level = '{level}' and tags.`{PLAN}` = '{results.plan_id}'"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _tags(*names: str) -> tuple[str, ...]:
    return tuple(_tag(name) for name in names)


def _param(key: str) -> str:
    return f"params.`{safe_name(key)}`"


def _metric(key: str) -> str:
    return f"metrics.`{safe_name(key)}`"


def _charts(results: Results) -> tuple[Mapping[str, Any], ...]:
    """A bar per cell, parallel coordinates from the compared values to the primary metric, and
    that metric against the others of its set: losses trade recall for precision."""
    ref = split_key(results.primary)[0]
    own = [key for key in text_columns(results).values() if split_key(key)[0] == ref]
    lines = {
        **_chart("parallel", "PARALLEL"),
        "selectedParams": [safe_name(name) for name in results.study.compared],
        # MLflow colours the lines by the last one.
        "selectedMetrics": [safe_name(key) for key in dict.fromkeys((own[-1], own[0]))],
        "showAllRuns": True,
    }
    traded = tuple(_scatter(key, "METRIC", own[0]) for key in own[1:])
    between = (lines,) if results.study.compared else ()
    return (_bars(own[0]), *between, *traded)


def _chart(name: str, kind: str) -> dict[str, Any]:
    return {
        "uuid": f"ablate-{name}",
        "type": kind,
        "runsCountToCompare": SHOWN,
        "metricSectionId": SECTION,
        "deleted": False,
        "isGenerated": False,
    }


def _bars(key: str) -> dict[str, Any]:
    name = safe_name(key)
    return {**_chart(f"bars-{name}", "BAR"), "metricKey": name}


def _scatter(across: str, kind: str, up: str) -> dict[str, Any]:
    """Each run as a point; `kind` of the horizontal axis is PARAM or METRIC."""
    return {
        **_chart(f"scatter-{safe_name(across)}", "SCATTER"),
        "xaxis": {"key": safe_name(across), "type": kind},
        "yaxis": {"key": safe_name(up), "type": "METRIC"},
    }


def view_url(base: str, experiment_id: str, key: str, charts: bool = False) -> str:
    """Address of a saved view on the MLflow server at `base`: its table, or its charts."""
    page = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={quote(key)}"
    return f"{page}&compareRunsMode=CHART" if charts else page


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
