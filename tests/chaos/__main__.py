"""Kill, damage and fill up while a sweep runs, run the same command again, compare with peace.

    python -m tests.chaos --seconds 300 --seed 0            one-worker trials
    python -m tests.chaos --seconds 300 --seed 0 --group    trials of two Ray Train workers

Prints how often each kind of fault was done. Ends with code 1 when a sweep under attack differs
from the undisturbed one: in its metrics, by a bit; by a trial twice or not at all; by a process or
a temporary file left behind. Faults: the driver, a trial's process, a Train worker, or the node's
daemon killed; a training checkpoint or a cache file cut short or changed; no space for files
beyond 64 kB (a limit on the size of files, which stands for a full disk).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ablate.run.lease import CLAIMS, DRIVERS
from ablate.run.ledger import Ledger
from ablate.run.processes import descendants
from ablate.run.store import TEMPORARY
from tests.chaos import world

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120.0
"""A sweep that neither ends nor makes a record for so long hangs."""
SMALL_FILE = 64_000
PROCESSES = {
    "trial": ("ray::ImplicitFunc", "ray::_tune_trial"),
    "train worker": ("ray::_RayTrainWorker", "ray::RayTrainWorker"),
    "node daemon": ("raylet/raylet",),
}


class Attack:
    """One study under attack until it ends; `tally` counts the faults done."""

    def __init__(self, study: Path, runs: Path, dice: random.Random, group: bool) -> None:
        self.study, self.runs, self.dice, self.group = study, runs, dice, group
        self.tally: Counter[str] = Counter()
        self.orphans: set[int] = set()
        self.process = self._start()

    def go(self, deadline: float) -> None:
        """Do faults at random moments until the deadline, then let the study end."""
        while time.monotonic() < deadline:
            self._wait(self.dice.uniform(0.5, 6.0))
            if self.process.poll() == 0:
                return
            if self.process.poll() is not None:
                self._again()
                continue
            getattr(self, "_" + self._kind().replace(" ", "_"))()
        while self._ended() != 0:
            self._again()

    def _kind(self) -> str:
        if self.group:
            return self.dice.choices(["train worker", "driver", "node daemon"], [6, 2, 1])[0]
        kinds = ["trial", "driver", "node daemon", "checkpoint", "cache file", "disk"]
        return self.dice.choices(kinds, [12, 3, 1, 1, 1, 1])[0]

    def _trial(self) -> None:
        self._kill("trial")

    def _train_worker(self) -> None:
        self._kill("train worker")

    def _node_daemon(self) -> None:
        if self._kill("node daemon"):
            self._ended()
            self._again()

    def _driver(self) -> None:
        self.tally["driver"] += 1
        self._kill_driver()
        self._again()

    def _checkpoint(self) -> None:
        """Damage a checkpoint that training would go on from, while nothing runs."""
        self._kill_driver()
        folder = self.runs / "trials"
        files = [*folder.glob("*/resume/*.safetensors"), *folder.glob("*/resume/*.pt")]
        self._damage("checkpoint", files, cut=self.dice.random() < 0.5)
        self._again()

    def _cache_file(self) -> None:
        self._kill_driver()
        files = [f for f in (self.runs / "cache").rglob("*") if f.is_file() and f.stat().st_size]
        files = [file for file in files if not {".locks", ".making"} & set(file.parts)]
        self._damage("cache file", files, cut=True)
        self._again()

    def _disk(self) -> None:
        """One start of the command during which no file can grow beyond `SMALL_FILE`."""
        self._kill_driver()
        self.tally["disk"] += 1
        self.process = self._start(SMALL_FILE)
        self._wait(self.dice.uniform(10, 25))
        self._kill_driver()
        self._again()

    def _damage(self, kind: str, files: list[Path], cut: bool) -> None:
        if files:
            file = self.dice.choice(sorted(files))
            content = bytearray(file.read_bytes())
            if cut:
                content = content[: len(content) // 2]
            else:
                content[len(content) // 2] ^= 255
            file.write_bytes(content)
            self.tally[kind] += 1

    def _kill(self, kind: str) -> bool:
        below = descendants(self.process.pid)
        found = [pid for pid, command in below.items() if command.startswith(PROCESSES[kind])]
        if kind == "node daemon":
            found = [pid for pid, command in below.items() if PROCESSES[kind][0] in command]
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.dice.choice(sorted(found)), signal.SIGKILL)
        self.tally[kind] += 1
        return True

    def _kill_driver(self) -> None:
        self.orphans |= set(descendants(self.process.pid))
        self.process.kill()
        self.process.wait()

    def _start(self, largest: int | None = None) -> subprocess.Popen[bytes]:
        def limit() -> None:
            if largest is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

        command = [sys.executable, str(ROOT / "tests/run/study_in_process.py")]
        log = (self.runs.parent / f"{self.runs.name}.log").open("ab")
        return subprocess.Popen(
            [*command, str(self.study), str(self.runs)],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            preexec_fn=limit,
        )

    def _again(self) -> None:
        self.tally["starts again"] += 1
        self.process = self._start()

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def _ended(self) -> int | None:
        """The exit code, once it is there; a sweep that hangs is killed and counted."""
        before, since = -1, time.monotonic()
        while self.process.poll() is None:
            self._wait(0.5)
            attempts = sum(record.attempts for record in Ledger(self.runs).records())
            if attempts != before:
                before, since = attempts, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS:
                self.tally["HANGS"] += 1
                self._kill_driver()
        return self.process.returncode


def findings(runs: Path) -> dict[str, object]:
    """Per trial what must not depend on how it was run."""
    return {r.trial_id: (r.state, dict(r.metrics)) for r in Ledger(runs).records()}


def faults(attack: Attack, peace: dict[str, object]) -> list[str]:
    """How the run folder after the attack differs from one of peace."""
    said = []
    here = findings(attack.runs)
    for trial_id in sorted(peace.keys() | here.keys()):
        if here.get(trial_id) != peace.get(trial_id):
            said.append(f"{trial_id}: {here.get(trial_id)} instead of {peace.get(trial_id)}")
    for place in (TEMPORARY, CLAIMS, DRIVERS, ".train"):
        if (attack.runs / place).exists():
            said += [f"left: {path}" for path in (attack.runs / place).iterdir()]
    said += [f"left: {path}" for path in attack.runs.glob("trials/*/resume")]
    deadline = time.monotonic() + 60
    alive = attack.orphans
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if Path(f"/proc/{pid}/cmdline").exists()}
        alive = {pid for pid in alive if Path(f"/proc/{pid}/cmdline").read_bytes()}
        time.sleep(0.5)
    return said + [f"orphan: {pid}" for pid in alive]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--keep", type=Path, help="Folder to work in, kept afterwards.")
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    began = time.monotonic()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    world.make(folder)
    seeds, workers = (1, 2) if options.group else (6, 1)
    study = world.write_study(folder, "chaos", 450, seeds, workers)
    dice = random.Random(options.seed)
    calm = Attack(study, folder / "peace", dice, options.group)
    calm.go(0.0)
    peace = findings(folder / "peace")
    print(f"in peace: {len(peace)} trials in {time.monotonic() - began:.0f} s", flush=True)
    tally, wrong, sweeps = Counter[str](), list[str](), 0
    deadline = began + options.seconds
    while time.monotonic() < deadline - 60 and not wrong:
        sweeps += 1
        attack = Attack(study, folder / f"war-{sweeps}", dice, options.group)
        attack.go(deadline - 60)
        tally += attack.tally
        wrong = faults(attack, peace)
        print(f"sweep {sweeps}: {dict(attack.tally)}", flush=True)
    for line in wrong:
        print(line)
    kills = sum(count for kind, count in tally.items() if kind not in ("starts again", "HANGS"))
    print(f"seed {options.seed}: {kills} faults in {sweeps} sweeps, {dict(tally)}")
    print("differs" if wrong or tally["HANGS"] else "the same as in peace, every time")
    if options.keep is None:
        shutil.rmtree(folder)
    sys.exit(1 if wrong or tally["HANGS"] else 0)


if __name__ == "__main__":
    main()
