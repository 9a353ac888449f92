"""MLflow at 1,000 trials: filling time and CPU, size of the store, and how fast its pages open.

    python -m tests.bench.tracking --trials 1000 --out FOLDER

Trials are simulated. The store is SQLite behind an `mlflow server`; pages are opened in headless
Chromium, and screenshots of them are left in FOLDER.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ablate.learn.results import Results, collect
from ablate.learn.tracking.filler import Filler
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.tracked import best_per_loss
from ablate.learn.tracking.views import saved_views, view_url
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import browser, fake

Found = TypeVar("Found")
HOME = "http://127.0.0.1:5000"
LOSSES, SEEDS = 5, 4
FURTHER = "pydocs/small/test"
REASON = "out of memory"
PATIENCE = 120.0
SETTLED = 5.0
"""Seconds between a page's words and its screenshot: charts are drawn after texts."""


def plan_of(trials: int) -> Plan:
    """A study with so many trials: losses by temperatures by seeds."""
    count = trials // (LOSSES * SEEDS)
    temperatures = [round(0.01 * 100 ** (i / count), 5) for i in range(count)]
    fake.QUERIES[FURTHER] = 100
    text = fake.STUDY.replace("[0.02, 0.1]", str(temperatures))
    text = text.replace("[pydocs/test]", f"[pydocs/test, {FURTHER}]")
    return fake.plan_of(text.replace("[0, 1, 2]", str(list(range(SEEDS)))), "thousand")


def measured(name: str, work: Callable[[], Found], who: int = resource.RUSAGE_SELF) -> Found:
    """Do the work, and print its wall time, its CPU time and the most memory so far."""
    before, began = resource.getrusage(who), time.monotonic()
    found = work()
    after = resource.getrusage(who)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall, memory = time.monotonic() - began, after.ru_maxrss / 1024
    print(f"{name:<44}{wall:>8.1f} s {cpu:>8.1f} CPU s {memory:>7.0f} MB", flush=True)
    return found


def beside(plan: Plan, ledger: Ledger) -> object:
    """The filler beside a study that goes quickly: told of every trial as it is written."""
    with Filler(plan, str(ledger.store.local), None) as filler:
        trials = list(plan.repeat())
        for trial in trials:
            fake.write_trial(ledger, trial, list(fake.QUERIES), {})
            filler.changed()
            time.sleep(0.05)
        return filler.finish(600)


def looks(
    results: Results, summary: SyncSummary, base: str
) -> dict[str, tuple[str, list[str], str]]:
    """Name of a page -> its address, words that must be there, and where."""
    best, primary = results.cells[0].name, results.primary
    words = {
        "cells": [best, "±"],
        "losses": [*best_per_loss(results), "±"],
        "sets": [best, "±"],
        "trials": ["finished", "0.6"],
        "failed": [REASON],
    }
    found = {}
    for view in saved_views(results):
        url = view_url(base, summary.experiment_id, view.key)
        if view.key in words:
            found[f"view {view.key}, table"] = (url, words[view.key], browser.TABLE)
        if view.charts:
            url = view_url(base, summary.experiment_id, view.key, charts=True)
            found[f"view {view.key}, charts"] = (url, [primary], "body")
    compare = summary.compare_url.replace(HOME, base)
    trial = f"{base}/#/experiments/{summary.experiment_id}/runs/{_a_trial(summary, base)}"
    return {
        **found,
        "comparison of 20 cells": (compare, ["loss.temperature", primary], browser.CHARTS),
        "a trial": (trial, ["loss.temperature", "train/loss", "trial_id"], "body"),
        "a trial, charts": (f"{trial}/model-metrics", ["train/loss"], "body"),
    }


def _a_trial(summary: SyncSummary, base: str) -> str:
    """The run of some finished trial."""
    from mlflow import MlflowClient

    search = "tags.level = 'trial' and tags.state = 'finished'"
    (run,) = MlflowClient(tracking_uri=base).search_runs(
        [summary.experiment_id], search, max_results=1
    )
    return str(run.info.run_id)


async def pages(results: Results, summary: SyncSummary, base: str, out: Path) -> None:
    """Open each page once in a browser that has seen none, and once more."""
    async with browser.tab(out / "profile") as page:
        for name, (url, words, places) in looks(results, summary, base).items():
            try:
                first = await page.open(url, words, PATIENCE, places)
                again = await page.open(url, words, PATIENCE, places)
                said = f"{first:>8.1f} s first {again:>6.1f} s again"
            except TimeoutError as error:
                said = f" {error}"
            await asyncio.sleep(SETTLED)
            await page.screenshot(out / f"{name.replace(' ', '-').replace(',', '')}.png")
            print(f"{name:<44}{said}", flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--trials", type=int, default=1000)
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--beside", action="store_true", help="fill beside the writing of trials")
    asked = words.parse_args()
    plan, ledger = plan_of(asked.trials), Ledger(asked.out / "runs")
    print(f"{plan.trial_count} trials in {len(plan.cells)} cells", flush=True)
    lost = {f"{plan.cells[0].name} 1": REASON}
    fake.fill(plan, ledger, only=lambda trial: not asked.beside, failed=lost)
    if asked.beside:
        measured("beside a study, at the end", lambda: beside(plan, ledger))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        print(f"{'the filler in all':<44}{'':>10} {cpu:>8.1f} CPU s {memory:>7.0f} MB")
    results = measured("analysing", lambda: collect(plan, ledger))
    measured("filling what is missing", lambda: sync(results, ledger))
    summary = measured("filling again, nothing is new", lambda: sync(results, ledger))
    store = asked.out / "runs" / "mlflow.db"
    print(f"{'size of the store':<44}{store.stat().st_size / 1e6:>8.0f} MB")
    with browser.serving(f"sqlite:///{store}", asked.out / "runs" / "mlartifacts") as server:
        asyncio.run(pages(results, summary, server.url, asked.out))


if __name__ == "__main__":
    main()
