"""MLflow's own pages in a headless browser: what a colleague who opens a link finds there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

from ablate.learn.results import Results, collect
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.views import view_url
from ablate.run.ledger import Ledger
from tests.learn import browser, fake

pytest.importorskip("mlflow")

SECONDS = 60.0
PRIMARY = "pydocs/test/ndcg_at_10"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Ledger]:
    browser.needs_browser()
    plan, ledger = fake.plan_of(), Ledger(tmp_path_factory.mktemp("pages"))
    fake.fill(plan, ledger, failed={"01 single_lh 0.02 1": "out of memory"})
    return collect(plan, ledger), ledger


@pytest.fixture(scope="module")
def served(study: tuple[Results, Ledger]) -> Iterator[tuple[SyncSummary, str]]:
    """The filled store, and the address of a server on it."""
    results, ledger = study
    summary = sync(results, ledger, compared=["03 rand1_lh 0.02", "10 lse_pair 0.1"])
    store, artifacts = f"sqlite:///{ledger.store.local}/mlflow.db", "mlartifacts"
    with browser.serving(store, Path(f"{ledger.store.local}/{artifacts}")) as server:
        yield summary, server.url


def test_pages_show_what_a_person_looks_for(
    study: tuple[Results, Ledger], served: tuple[SyncSummary, str], tmp_path: Path
) -> None:
    results, (summary, base) = study[0], served

    def here(url: str) -> str:
        return url.replace("http://" + urlparse(url).netloc, base)

    def view(key: str, charts: bool = False) -> str:
        return view_url(base, summary.experiment_id, key, charts)

    names = [cell.name for cell in results.cells]
    best = results.primary_of(results.cells[0])
    mean = f"{best.mean:.3f} ± {best.sd:.3f}"
    interval = f"{best.low:.3f}–{best.high:.3f}"
    columns = ["loss.name", "loss.temperatur", "ndcg_at_10", "interval"]
    pair = ["03 rand1_lh 0.02", "10 lse_pair 0.1"]

    async def look() -> None:
        async with browser.tab(tmp_path, 2400, 1800) as page:
            await page.open(here(summary.cells_url), [*names, *columns, mean, interval], SECONDS)
            words = ["01 single_lh 0.02 s1", "reason", "out of memory"]
            await page.open(view("failed"), words, SECONDS)
            await page.open(here(summary.charts_url), pair, SECONDS)
            assert names[1] in pair or names[1] not in await page.text(browser.TABLE)
            traded = [PRIMARY, "pydocs/test/recall_at_100"]
            await page.open(here(summary.charts_url), traded, SECONDS, browser.CHARTS)
            titles = await page.text("body")
            assert PRIMARY in titles and "Parallel Coordinates" in titles
            # What MLflow draws of every metric by itself is closed:.
            assert "pydocs/test (" in titles and "pydocs/test/unjudged_at_10" not in titles
            axes = ["loss.temperature", PRIMARY]
            await page.open(view("temperature", True), axes, SECONDS, browser.CHARTS)
            await page.open(here(summary.compare_url), axes, SECONDS, browser.CHARTS)
            assert "Comparing 2 Runs" in await page.text("body")

    asyncio.run(look())
