"""What the engine costs: slots kept busy by short real trials, and the driver's memory.

    python tests/bench/overhead.py busy --trials 24 --steps 20
    python tests/bench/overhead.py memory --trials 2000

`busy` prints (the trials' own training and evaluation time) / (slots x wall time) of a whole
execution on two slots: from the command's first line to its last, the first imports included. The
data are prepared and the baselines scored by a short execution before it. `memory` runs trials that
do nothing and prints the driver's resident memory as they pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tests/bench"]

SLOTS = 2
STUDY = """
question: How busy are the slots?
fixed:
  data.train: pydocs/small
  encoder.backbone: packaged/all-MiniLM-L6-v2
  encoder.layers: 2
  encoder.query_length: 16
  encoder.passage_length: 40
  encoder.dropout: 0.0
  loss.temperature: 0.05
  optim.lr: 5.0e-4
  optim.batch_size: 16
  optim.steps: {steps}
compare: {{loss.name: [joint_lh, lse_pair]}}
repeat: {{seed: [{seeds}]}}
evaluate: [pydocs/small/dev]
resources: {{max_concurrent_trials: 2}}
"""


class Silent:
    """A watcher that says nothing; `ends` has the time of each trial's end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def note(self, text: str) -> None: ...

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        print(f"  {text}: {time.monotonic() - began:.1f} s", file=sys.__stdout__, flush=True)

    @contextmanager
    def phase(self, name: str, jobs: Sequence[Any], slots: int, to_come: int) -> Iterator[None]:
        yield

    def started(self, trial_id: str) -> None: ...

    def lost(self, trial_id: str) -> None: ...

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None: ...

    def ended(self, record: Any) -> None:
        self.ends.append(time.monotonic())


def main() -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("busy")
    command.add_argument("--trials", type=int, default=24)
    command.add_argument("--steps", type=int, default=20)
    command.set_defaults(run=lambda options: busy(options.trials, options.steps))
    command = commands.add_parser("execution")
    command.add_argument("study")
    command.add_argument("runs")
    command.set_defaults(run=lambda options: execution(options.study, options.runs))
    command = commands.add_parser("memory")
    command.add_argument("--trials", type=int, default=2000)
    command.set_defaults(run=lambda options: memory(options.trials))
    options = parser.parse_args()
    options.run(options)


def busy(trials: int, steps: int) -> None:
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        study, runs = Path(folder) / "overhead.yaml", Path(folder) / "runs"
        for seeds in (range(1), range(1, 1 + trials // 2)):
            numbers = ", ".join(map(str, seeds))
            study.write_text(STUDY.format(steps=steps, seeds=numbers), encoding="utf-8")
            command = [sys.executable, __file__, "execution", str(study), str(runs)]
            began = time.monotonic()
            subprocess.run(command, check=True, cwd=ROOT)
            wall = time.monotonic() - began
        show(runs, set(seeds), wall)


def show(runs: Path, seeds: set[int], wall: float) -> None:
    from ablate.run.ledger import Ledger

    records = [record for record in Ledger(runs).records() if record.spec["seed"] in seeds]
    own = [record.seconds["train"] + record.seconds["evaluate"] for record in records]
    whole = [(record.finished or 0) - (record.started or 0) for record in records]
    stages = {key: sum(r.seconds[key] for r in records) for key in records[0].seconds}
    print(f"{len(records)} trials of {sum(own) / len(own):.1f} s on {SLOTS} slots in {wall:.1f} s")
    print(f"own time by stage: {json.dumps({k: round(v, 1) for k, v in stages.items()})}")
    print(f"from record to record: {sum(whole):.1f} s")
    print(f"busy: {sum(own) / (SLOTS * wall):.3f}")


def execution(study: str, runs: str) -> None:
    began = time.monotonic()
    from ablate.plan.planner import make_plan
    from ablate.plan.study import load_study
    from ablate.run.execution import StudyRun

    watcher = Silent()
    StudyRun(make_plan(load_study(study)), runs, watcher).run()
    ends = [f"{end - began:.0f}" for end in watcher.ends]
    print(f"  trials ended at {' '.join(ends)} s, all at {time.monotonic() - began:.1f} s")


def resident() -> int:
    """The process's resident memory in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    raise OSError("/proc/self/status has no VmRSS")


def do_nothing(config: Mapping[str, Any], resources: Mapping[str, Any], mark: str) -> None:
    """Stands for a trial: a record, and the report that ends it."""
    from ray import tune

    from ablate.run.ledger import Ledger, Record

    job = config["job"].job
    Ledger(resources["runs"]).write(Record(job.trial_id, {}, {}, state="finished"))
    tune.report({"state": "finished"})


def memory(trials: int) -> None:
    from ablate.run import sweep
    from ablate.run.lease import Leases
    from ablate.run.ledger import Ledger
    from ablate.run.trial import Job, Resources

    class Curve(Silent):
        def ended(self, record: Any) -> None:
            super().ended(record)
            if len(self.ends) % 100 == 0:
                rate = 100 / (self.ends[-1] - self.ends[-100])
                line = f"{len(self.ends):6d} trials {resident():6d} MB {rate:6.1f} trials/s"
                print(line, file=sys.__stdout__, flush=True)

    jobs = [Job(f"t{i:05d}", "cell", i, {}, {}, {}, ()) for i in range(trials)]
    sweep._tune_trial = do_nothing
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, sweep.cluster(None, False):
        resources = Resources(runs=f"{folder}/runs", cache=folder)
        print(f"     0 trials {resident():6d} MB", flush=True)
        with Leases(Ledger(resources.runs).store) as leases:
            sweep.run_jobs(jobs, resources, SLOTS, Curve(), leases)
    print(f"all done  {resident():6d} MB")


if __name__ == "__main__":
    main()
