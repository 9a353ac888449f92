"""What people open in MLflow: saved views, addresses and figures."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.names import set_names
from ablate.learn.tracking.plots import figures, page
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.views import compare_url, saved_views, server_command, view_url
from ablate.run.ledger import Ledger
from tests.learn import fake
from tests.learn.tracked import (
    FAILED,
    PRIMARY,
    REASON,
    SMALL,
    filled,
)

pytest.importorskip("mlflow")


def test_saved_views_find_their_runs(
    study: tuple[Results, Ledger], summary: SyncSummary, client: Any
) -> None:
    tags = client.get_experiment(summary.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    expected = {"cells": 2, "losses": 1, "temperature": 2, "trials": 6, "failed": 1}
    for view in saved_views(study[0]):
        tag = json.loads(tags[f"mlflow.sharedViewState.{view.key}"])
        assert tag["name"] == view.name
        assert len(tags[f"mlflow.sharedViewState.{view.key}"]) < 20_000
        packed = base64.b64decode(tag["state"].removeprefix("deflate;"))
        state = json.loads(zlib.decompress(packed))
        direction = "ASC" if state["orderByAsc"] else "DESC"
        found = client.search_runs(
            [summary.experiment_id],
            state["searchFilter"],
            order_by=[f"{state['orderByKey']} {direction}"],
        )
        assert len(found) == expected.pop(view.key)
        first = found[0].data
        held = {f"params.`{key}`" for key in first.params} | {f"tags.`{key}`" for key in first.tags}
        held |= {f"metrics.`{key}`" for key in first.metrics}
        assert set(state["selectedColumns"]) <= held
        shown = [name for name in state["columnOrder"] if name in held]
        assert shown == state["selectedColumns"] != []
        assert set(shown) < set(state["columnWidths"])
        assert state["columnWidths"].get("tags.`reason`", 480) > 400
        if "compareRunCharts" in state:
            own, *closed = state["compareRunSections"]
            assert own["display"] and not any(section["display"] for section in closed)
            names = {section["name"] for section in closed}
            assert names == {name.rpartition("/")[0] for name in first.metrics}
            lines = [one for one in state["compareRunCharts"] if one["type"] == "PARALLEL"]
            assert all(one["selectedMetrics"][-1] == PRIMARY for one in lines)
    assert expected == {}


def test_cells_without_a_score_are_not_in_the_comparison(
    tmp_path: Path, store: str, client: Any, names: Callable[[], str]
) -> None:
    """MLflow compares what all its runs have, so one of them would hide the scores of the rest."""
    failed = {f"{FAILED} {seed}": REASON for seed in range(3)}
    plan, ledger = filled(tmp_path, names(), failed=failed)
    results = collect(plan, ledger)
    summary = sync(results, ledger, store)
    assert len(summary.cells) == 2 and len(results.scored) == 1
    for name, run_id in summary.cells.items():
        assert (run_id in summary.compare_url) == (name != FAILED)
    asked = sync(results, ledger, store, compared=[FAILED])
    assert summary.cells[FAILED] in asked.compare_url
    nothing, empty = filled(tmp_path / "b", names(), failed=failed | {
        f"02 joint_lh 0.1 {seed}": REASON for seed in range(3)
    })  # fmt: skip
    none = sync(collect(nothing, empty), empty, store)
    assert all(run_id in none.compare_url for run_id in none.cells.values())


def test_a_view_keeps_the_time_it_was_made(study: tuple[Results, Ledger]) -> None:
    view = saved_views(study[0])[0]
    assert json.loads(view.tag(5))["createdAt"] == 5
    assert view.tag(5) == view.tag(5)


def test_addresses_and_command(summary: SyncSummary, study: tuple[Results, Ledger]) -> None:
    url = compare_url("http://127.0.0.1:5000/", "7", ["a", "b"])
    assert unquote(url) == ('http://127.0.0.1:5000/#/compare-runs?runs=["a","b"]&experiments=["7"]')
    assert view_url("http://h", "7", "cells") == (
        "http://h/#/experiments/7/runs?viewStateShareKey=cells"
    )
    command = server_command("sqlite:////runs/mlflow.db", Path("/runs/my artifacts"), 5001)
    assert "--host 127.0.0.1 --port 5001" in command
    assert "--artifacts-destination '/runs/my artifacts'" in command
    assert summary.server_command is not None
    assert summary.uri in summary.server_command
    assert all(run_id in summary.compare_url for run_id in summary.cells.values())


def test_figures_show_the_results(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "figures", fake.STUDY)
    results = collect(plan, ledger)
    drawn = figures(results)
    ranked, heat, lines, training = drawn.values()
    order = ranked["layout"]["yaxis"]["categoryarray"]
    assert order[-1] == results.cells[0].name and len(order) == 10
    for trace in ranked["data"]:
        for name, mean, up in zip(trace["y"], trace["x"], trace["error_x"]["array"], strict=True):
            (cell,) = (cell for cell in results.cells if cell.name == name)
            summary = results.primary_of(cell)
            assert (mean, mean + up) == pytest.approx((summary.mean, summary.high))
    (tiles,) = heat["data"]
    assert (len(tiles["z"]), tiles["x"]) == (5, ["0.02", "0.1"])
    best = results.cells[0].values
    shown = tiles["z"][tiles["y"].index(best["loss.name"])]
    value = shown[tiles["x"].index(str(best["loss.temperature"]))]
    assert value == results.primary_of(results.cells[0]).mean
    assert {trace["name"] for trace in lines["data"]} == set(fake.LOSS_EFFECT)
    assert len(training["data"]) == 30 and training["layout"]["yaxis"]["title"]["text"]
    html = page(drawn)
    assert html.count("plotly.js v") == 1 and all(escape(name) in html for name in drawn)
    assert re.search(r"<script[^>]*\ssrc=", html) is None


def test_a_study_of_one_cell_has_the_figures_that_make_sense(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "one", SMALL.replace("[0.02, 0.1]", "[0.1]"))
    assert len(figures(collect(plan, ledger))) == 2


def test_several_test_sets_have_a_view_of_their_own(tmp_path: Path) -> None:
    plan, ledger = filled(tmp_path, "sets")
    results = collect(plan, ledger)
    refs = ("beir/nfcorpus/test", "beir/scifact/test")
    keys = [f"{ref}/{metric}" for ref in refs for metric in ("ndcg_at_10", "mrr_at_10")]
    several = replace(results, test_refs=refs, primary=keys[0], metric_keys=tuple(keys))
    assert "sets" not in {view.key for view in saved_views(results)}
    (view,) = (view for view in saved_views(several) if view.key == "sets")
    assert view.columns == ("tags.`loss`", "tags.`ndcg_at_10`", "tags.`scifact ndcg_at_10`")
    assert [chart["metricKey"] for chart in view.charts] == [keys[0], keys[2]]
    twice = replace(several, test_refs=("a/test", "b/a/test"))
    assert list(set_names(twice).values()) == ["nfcorpus", "a/test", "b/a/test"]
