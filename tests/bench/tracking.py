"""MLflow at 1,000 trials: filling time and CPU, size of the store, and how fast its pages open.

    python tests/bench/tracking.py --trials 1000 --out FOLDER

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

from ablate.learn.results import collect
from ablate.learn.tracking.filler import Filler
from ablate.learn.tracking.sync import SyncSummary, sync
from ablate.learn.tracking.views import view_url
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import browser, fake

Found = TypeVar("Found")
LOSSES, SEEDS = 5, 4
SETTLED = 5.0
"""Seconds between a page's words and its screenshot: charts are drawn after texts."""


def plan_of(trials: int) -> Plan:
    """A study with so many trials: losses by temperatures by seeds."""
    count = trials // (LOSSES * SEEDS)
    temperatures = [round(0.01 * 100 ** (i / count), 5) for i in range(count)]
    text = fake.STUDY.replace("[0.02, 0.1]", str(temperatures))
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
            fake.write_trial(ledger, trial, ["pydocs/dev", "pydocs/test"], {})
            filler.changed()
            time.sleep(0.05)
        return filler.finish(600)


async def pages(summary: SyncSummary, base: str, best: str, out: Path) -> None:
    """Open each page once in a browser that has seen none, and once more."""
    home = "http://127.0.0.1:5000"
    views = {
        "runs table, cells": (summary.cells_url, [best, "±"], browser.TABLE),
        "runs table, trials": (
            view_url(home, summary.experiment_id, "trials"),
            ["0.6", "finished"],
            browser.TABLE,
        ),
        "chart view, cells": (summary.charts_url, [best, "0.6"], browser.CHARTS),
        "temperature curves": (
            view_url(home, summary.experiment_id, "temperature", charts=True),
            ["loss.temperature", "pydocs/test/ndcg_at_10"],
            browser.CHARTS,
        ),
        "comparison page, 20 cells": (
            summary.compare_url,
            ["loss.temperature", "pydocs/test/ndcg_at_10"],
            browser.CHARTS,
        ),
    }
    async with browser.tab(out / "profile") as page:
        for name, (url, words, places) in views.items():
            url = url.replace(home, base)
            first = await page.open(url, words, 120, places)
            await asyncio.sleep(SETTLED)
            await page.screenshot(out / f"{name.replace(' ', '-').replace(',', '')}.png")
            again = await page.open(url, words, 120, places)
            print(f"{name:<44}{first:>8.1f} s first {again:>6.1f} s again", flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--trials", type=int, default=1000)
    words.add_argument("--out", type=Path, required=True)
    words.add_argument("--beside", action="store_true", help="fill beside the writing of trials")
    asked = words.parse_args()
    plan, ledger = plan_of(asked.trials), Ledger(asked.out / "runs")
    print(f"{plan.trial_count} trials in {len(plan.cells)} cells", flush=True)
    fake.fill(plan, ledger, only=lambda trial: not asked.beside)
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
        asyncio.run(pages(summary, server.url, results.cells[0].name, asked.out))


if __name__ == "__main__":
    main()
