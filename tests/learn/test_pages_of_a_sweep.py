"""A sweep that was really trained, as a colleague finds it in MLflow's pages afterwards."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from ablate.learn.results import CellResult, Results, collect
from ablate.learn.tracking.views import comparison_view, saved_views, view_url
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.run.ledger import Ledger
from tests.learn import browser

pytest.importorskip("mlflow")
pytestmark = pytest.mark.cluster

STUDY = """
question: Which loss ranks best at which temperature?
fixed:
  data.train: {collection}
  data.machine_labels: weak
  data.human_fraction: 0.5
  encoder.backbone: {backbone}
  encoder.query_length: 8
  encoder.passage_length: 16
  optim.batch_size: 6
  optim.steps: 6
  optim.lr: 1.0e-3
compare:
  loss.name: [joint_lh, lse_pair]
  loss.temperature: [0.05, 0.2]
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
resources: {{max_concurrent_trials: 2}}
"""
SECONDS = 60.0
PAIR = ("01 joint_lh 0.05", "04 lse_pair 0.2")


@dataclass(frozen=True)
class Sweep:
    """A finished sweep, and what `ablate compare` says of two of its cells."""

    results: Results
    ledger: Ledger
    said: str

    def address(self, name: str) -> str:
        """The address behind a word such as `Charts:`."""
        (found,) = re.findall(rf"^{name}: +(\S+)$", self.said, re.MULTILINE)
        return str(found)


def ablate(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ablate.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sweep(
    tmp_path_factory: pytest.TempPathFactory, tiny_collection: str, tiny_backbone: str
) -> Sweep:
    browser.needs_browser()
    folder = tmp_path_factory.mktemp("sweep")
    study, runs = folder / "pages.yaml", folder / "runs"
    study.write_text(STUDY.format(collection=tiny_collection, backbone=tiny_backbone))
    ablate("run", str(study), "--runs", str(runs))
    cells = [word for name in PAIR for word in ("--cells", name)]
    said = ablate("compare", str(study), "--runs", str(runs), *cells)
    ledger = Ledger(runs)
    return Sweep(collect(make_plan(load_study(str(study))), ledger), ledger, said)


def test_a_real_sweep_is_found_in_table_charts_and_comparison(sweep: Sweep, tmp_path: Path) -> None:
    home = Path(sweep.ledger.store.local or "")
    assert [trial.state for trial in sweep.results.trials] == ["finished"] * 8

    async def look(base: str) -> None:
        async with browser.tab(tmp_path, 2400, 1800) as page:
            await _table(page, base, sweep)
            await _menu(page, sweep.results)
            await _charts(page, base, sweep)
            await _comparison(page, base, sweep)

    with browser.serving(f"sqlite:///{home}/mlflow.db", home / "mlartifacts") as server:
        asyncio.run(look(server.url))


def _here(url: str, base: str) -> str:
    return url.replace("http://" + urlparse(url).netloc, base)


async def _table(page: browser.Page, base: str, sweep: Sweep) -> None:
    """A row per cell: what was compared, the mean with its spread, the interval, the verdict."""
    results = sweep.results
    (experiment,) = re.findall(r"experiments/(\d+)/", sweep.address("Charts"))
    words = ["loss.name", "loss.temperatur", "ndcg_at_10", "interval", "verdict"]
    for cell in results.cells:
        found = results.primary_of(cell)
        words += [cell.name, f"{found.mean:.3f} ± {found.sd:.3f}", cell.verdict]
        words.append(f"{found.low:.3f}–{found.high:.3f}")
    await page.open(view_url(base, experiment, "cells"), words, SECONDS)


async def _menu(page: browser.Page, results: Results) -> None:
    """Every saved view is in the menu above the table, that of the compared cells too."""
    await page.wait(["Cells with intervals"], SECONDS, browser.MENU)
    await page.click(browser.MENU)
    names = [view.name for view in saved_views(results)]
    names.append(comparison_view(results, dict.fromkeys(PAIR, "")).name)
    assert len(names) >= 5
    await page.wait(names, SECONDS, browser.ITEMS)


async def _charts(page: browser.Page, base: str, sweep: Sweep) -> None:
    """The two cells alone, as bars and as lines from the temperature to the metric."""
    results = sweep.results
    drawn = ["loss.temperature", results.primary]
    drawn += [f"{results.primary_of(cell).mean:.2f}" for cell in _compared(results)]
    await page.open(_here(sweep.address("Charts"), base), drawn, SECONDS, browser.CHARTS)
    table = await page.text(browser.TABLE)
    assert {cell.name for cell in results.cells if cell.name in table} == set(PAIR)


def _compared(results: Results) -> list[CellResult]:
    return [cell for cell in results.cells if cell.name in PAIR]


async def _comparison(page: browser.Page, base: str, sweep: Sweep) -> None:
    """Names, settings and metrics of the two cells, side by side."""
    results = sweep.results
    words = ["Comparing 2 Runs", *PAIR, "joint_lh", "lse_pair", results.primary]
    words += [f"{results.primary_of(cell).mean:.3f}" for cell in _compared(results)]
    await page.open(_here(sweep.address("Compare"), base), words, SECONDS, "body")
