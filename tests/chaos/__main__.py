"""Strike sweeps of small real trials again and again, run the same command again, compare.

    python -m tests.chaos --seconds 1500 --seed 0
    python -m tests.chaos --seconds 1500 --seed 0 --keep FOLDER     goes on where it was stopped

Sweeps of one-worker trials and of groups of two Ray Train workers take turns (`--only` for one of
them). Struck are a trial's process, a Train worker, the driver, the node's daemon and the MLflow
server (killed), training checkpoints (cut short or a byte changed, then the trial killed), a cache
file (cut short), and the disk of the run folder (a tmpfs that is filled to the last byte; needs
leave to mount, else it is left out). Prints a line per strike and a tally per kind. Ends with code
1 when a sweep under attack differs from one in peace: in its metrics, weights or history, by a bit;
by a trial twice or not at all, in the ledger or in MLflow; by a point of MLflow lost or doubled; by
a process or a temporary file left behind. The last sweep ends some time after `--seconds`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.run.ledger import Ledger
from tests.chaos import strikes, verdict, world
from tests.chaos.strikes import ROOT, Attack, SweepHangs
from tests.learn.browser import Server

NOT_FAULTS = ("starts again", "sweeps")
DISK = "256m"
LAST_SECONDS = 60.0
"""Before the end a sweep that is struck no more takes about so long."""


class Campaign:
    """Sweep after sweep in one folder; what was done is kept there, so that it can be gone on."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.dice = folder, random.Random(options.seed)
        self.began, self.seconds = time.monotonic(), options.seconds
        self.shapes = [s for s in world.SHAPES if options.only in (None, s.name)]
        self.file = folder / "tally.json"
        kept = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.tally = Counter[str](kept)
        self.server = Server(f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
        self.wrong: list[str] = []

    def run(self) -> None:
        """Strike until the time is over or something is wrong."""
        world.make(self.folder)
        peace = {shape.name: self._peace(shape) for shape in self.shapes}
        self.server.start()
        while self._left() > LAST_SECONDS and not self.wrong:
            shape = self.shapes[self.tally["sweeps"] % len(self.shapes)]
            name = f"sweep-{self.tally['sweeps'] + 1}"
            runs = self.folder / name
            with _disk_of_its_own(runs):
                self._war(shape, name, runs, peace[shape.name])
            self._count("sweeps", name)

    def faults(self) -> int:
        """How many strikes there were."""
        return sum(count for kind, count in self.tally.items() if kind not in NOT_FAULTS)

    def _peace(self, shape: world.Shape) -> dict[str, Any]:
        """What the sweep comes to when nothing happens to it."""
        study = world.write_study(self.folder, f"peace-{shape.name}", shape)
        runs, since = self.folder / study.stem, time.monotonic()
        script = ROOT / "tests" / "run" / "study_in_process.py"
        command = [sys.executable, str(script), str(study), str(runs)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found = verdict.findings(runs)
        seconds = time.monotonic() - since
        print(f"{shape.name} in peace: {len(found)} trials, {seconds:.0f} s", flush=True)
        return found

    def _war(self, shape: world.Shape, name: str, runs: Path, peace: dict[str, Any]) -> None:
        study = world.write_study(self.folder, name, shape)
        attack = Attack(
            study, runs, shape, self.server, self.dice, lambda kind: self._count(kind, name)
        )
        try:
            attack.go(time.monotonic() + self._left() - LAST_SECONDS)
        except SweepHangs as error:
            self.wrong.append(str(error))
        finally:
            attack.end()
        self.wrong += verdict.orphans(attack.seen)
        self.wrong += verdict.left_files(runs, attack.temporary)
        self.wrong += verdict.differences(verdict.findings(runs), peace)
        self.wrong += self._tracking(study, runs, shape.cells)
        self._say(name, "differs" if self.wrong else "the same as in peace")

    def _tracking(self, study: Path, runs: Path, cells: int) -> list[str]:
        """What MLflow lacks or has twice, once what it had missed was sent."""
        if not self.server.answers():
            self.server.kill()
            self.server.start()
        words = ["track", str(study), "--runs", str(runs), "--tracking-uri", self.server.url]
        command = [sys.executable, "-m", "ablate.cli", *words]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            return [f"track: {done.stderr}"]
        counts = verdict.tracked(self.server.url, Ledger(runs), study.stem, cells)
        self._say(study.stem, f"MLflow: {counts}")
        return list(verdict.untracked(counts))

    def _left(self) -> float:
        return float(self.seconds - (time.monotonic() - self.began))

    def _count(self, kind: str, name: str) -> None:
        self.tally[kind] += 1
        self.file.write_text(json.dumps(self.tally), encoding="utf-8")
        if kind not in NOT_FAULTS:
            self._say(name, f"{self.faults():4} {kind}")

    def _say(self, name: str, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.0f} s  {name}  {text}", flush=True)


@contextlib.contextmanager
def _disk_of_its_own(folder: Path) -> Iterator[None]:
    """A small tmpfs at `folder` for the block; where none may be mounted, no disk is filled."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        print("may not mount: the disk is not filled", flush=True)
        for weights in strikes.WEIGHTS.values():
            weights["full disk"] = 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[shape.name for shape in world.SHAPES])
    parser.add_argument("--keep", type=Path, help="Folder to work in, kept afterwards.")
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder, options)
    stopped = False
    try:
        campaign.run()
    except KeyboardInterrupt:
        stopped = True
    finally:
        campaign.server.kill()
        for line in campaign.wrong:
            print(line)
        tally = dict(campaign.tally.most_common())
        print(f"seed {options.seed}: {campaign.faults()} faults, {tally}", flush=True)
        if options.keep is None:
            shutil.rmtree(folder)
    if stopped:
        sys.exit("stopped on the way")
    print("differs" if campaign.wrong else "the same as in peace, every time")
    sys.exit(1 if campaign.wrong else 0)


if __name__ == "__main__":
    main()
