"""How long a large study takes to be analysed and reported, and in how much memory.

    python -m tests.bench.analysis [--trials 10000] [--queries 1000]

Writes simulated trials to a temporary run folder, then collects the results and writes the report
in a process of its own, and prints seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ablate.learn.claims import load_claims
from ablate.learn.report import write_report
from ablate.learn.results import collect
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import fake

SEEDS = 4


def plan_of(trials: int) -> Plan:
    """Five losses at so many temperatures that there are about `trials`, under four seeds."""
    count = max(1, trials // (5 * SEEDS))
    temperatures = ", ".join(f"{0.01 + place * 1e-4:.4f}" for place in range(count))
    text = fake.STUDY.replace("[0.02, 0.1]", f"[{temperatures}]")
    return fake.plan_of(text.replace("[0, 1, 2]", str(list(range(SEEDS)))))


def analyse(root: Path, trials: int) -> None:
    """Collect and report; prints what it took as JSON."""
    plan, started = plan_of(trials), time.monotonic()
    results = collect(plan, Ledger(root))
    collected = time.monotonic()
    write_report(results, root / "report", load_claims("paper"))
    ended = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"collect": collected - started, "report": ended - collected, "peak GiB": peak}
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


def main() -> None:
    """Write the trials, then measure in a fresh process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--analyse", type=Path)
    given = parser.parse_args()
    if given.analyse is not None:
        analyse(given.analyse, given.trials)
        return
    fake.QUERIES["pydocs/test"] = given.queries
    with tempfile.TemporaryDirectory() as folder:
        fake.fill(plan_of(given.trials), Ledger(folder))
        options = ["--trials", str(given.trials), "--analyse", folder]
        subprocess.run([sys.executable, "-m", "tests.bench.analysis", *options], check=True)


if __name__ == "__main__":
    main()
