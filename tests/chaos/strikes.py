"""One study under attack, strike by strike, until the same command has brought it to its end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ablate.run.ledger import Ledger
from ablate.run.processes import descendants
from tests.chaos.verdict import Process, started
from tests.chaos.world import Shape
from tests.learn.browser import Server

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 240.0
"""A sweep that neither ends nor makes a record for so long hangs."""
PAUSE_SECONDS = (1.0, 5.0)
EARLY = 0.2
"""Share of strikes that do not wait until trials run: at the driver's start, most of them."""
START_SECONDS = 90.0
AWAY_SECONDS = (1.0, 5.0)
"""How long the disk is full, or the MLflow server away; starting takes the server some more."""
TRIES = 8
"""Starts of the command, without a strike, within which a sweep must end."""
PROCESSES = {
    "trial": ("ray::ImplicitFunc", "ray::_tune_trial"),
    "train worker": ("ray::_RayTrainWorker", "ray::RayTrainWorker"),
}
WEIGHTS = {
    "alone": {"trial": 8, "checkpoint": 3, "cache file": 3, "MLflow server": 2, "driver": 2,
              "node daemon": 1, "full disk": 1},
    "group": {"train worker": 6, "trial": 2, "checkpoint": 3, "cache file": 2, "MLflow server": 2,
              "driver": 2, "node daemon": 1, "full disk": 1},
}  # fmt: skip
"""Shape of a sweep -> kinds of strikes and how often each is drawn. The last three end the driver,
or may, and cost a start; the others strike while it goes on."""


class SweepHangs(RuntimeError):
    """The sweep makes no progress, or does not end, though nothing strikes it any more."""


class Attack:
    """A sweep under attack. `done` is told every strike, as it is made, and every start again."""

    def __init__(
        self,
        study: Path,
        runs: Path,
        shape: Shape,
        server: Server,
        dice: random.Random,
        done: Callable[[str], None],
    ) -> None:
        self.study, self.runs, self.shape = study, runs, shape
        self.server, self.dice, self.done = server, dice, done
        self.seen: set[Process] = set()
        self.temporary = runs.parent / "tmp"
        self.process = self._start()

    def go(self, deadline: float) -> None:
        """Strike at random moments until the deadline, then let the sweep end.

        Raises SweepHangs.
        """
        weights = WEIGHTS[self.shape.name]
        while time.monotonic() < deadline and self.process.poll() != 0:
            if self.dice.random() >= EARLY:
                self._until_trials_run()
            self._wait(self.dice.uniform(*PAUSE_SECONDS))
            if self.process.poll() is None:
                self._look()
                (kind,) = self.dice.choices(list(weights), list(weights.values()))
                # A kind whose object is not there yet is drawn again, after another pause.
                getattr(self, "_" + kind.lower().replace(" ", "_"))(kind)
            elif self.process.returncode != 0:
                self._again()
        for _ in range(TRIES):
            if self._ended() == 0:
                return
            self._again()
        raise SweepHangs(f"{self.study.stem} does not end after {TRIES} starts")

    def end(self) -> None:
        """Kill the driver and all below it, wherever the sweep is."""
        for pid in (*descendants(self.process.pid), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _trial(self, kind: str) -> None:
        self._kill(kind)

    def _train_worker(self, kind: str) -> None:
        self._kill(kind)

    def _checkpoint(self, kind: str) -> None:
        """Damage what the running trials would go on from, then make them go on from it."""
        alone = self.shape.workers == 1
        pattern = "trials/*/resume" if alone else ".train/*/checkpoint_*"
        files = [
            file
            for ending in ("safetensors", "pt")
            for file in self.runs.glob(f"{pattern}/**/*.{ending}")
        ]
        victims = self._found("trial" if alone else "train worker")
        damaged = [self._damage(file) for file in files] if victims else []
        if any(damaged):
            self.done(kind)
            for pid in victims if alone else victims[:1]:
                self._strike(pid, "trial" if alone else "train worker")

    def _cache_file(self, kind: str) -> None:
        """Cut a file of the cache short; those who have it open keep what they have open."""
        files = [f for f in (self.runs / "cache").rglob("*") if f.is_file() and f.stat().st_size]
        files = [file for file in files if not {".locks", ".making"} & set(file.parts)]
        if files:
            file = self.dice.choice(sorted(files))
            short = self.runs / "short"
            with contextlib.suppress(FileNotFoundError):
                short.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                short.replace(file)
                self.done(kind)
            short.unlink(missing_ok=True)

    def _mlflow_server(self, kind: str) -> None:
        if self.server.answers():
            self.server.kill()
            self.done(kind)
            self._wait(self.dice.uniform(*AWAY_SECONDS))
            self.server.launch()

    def _driver(self, kind: str) -> None:
        self.process.kill()
        self.process.wait()
        self.done(kind)
        self._again()

    def _node_daemon(self, kind: str) -> None:
        below = descendants(self.process.pid)
        daemons = [pid for pid, command in below.items() if "raylet/raylet" in command]
        if daemons:
            self._strike(daemons[0], kind)
            if self._ended() != 0:
                self._again()

    def _full_disk(self, kind: str) -> None:
        """Take what room the disk of the run folder has left, for a while."""
        ballast = self.runs / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        self.done(kind)
        self._wait(self.dice.uniform(*AWAY_SECONDS))
        ballast.unlink()

    def _until_trials_run(self) -> None:
        until = time.monotonic() + START_SECONDS
        kind = "trial" if self.shape.workers == 1 else "train worker"
        while self.process.poll() is None and time.monotonic() < until and not self._found(kind):
            self._wait(0.3)

    def _damage(self, file: Path) -> bool:
        """Cut the file short or change one of its bytes; False when it has just gone."""
        try:
            content = bytearray(file.read_bytes())
            middle = len(content) // 2
            if self.dice.random() < 0.5:
                del content[middle:]
            else:
                content[middle] ^= 255
            with file.open("r+b") as there:
                there.truncate(len(content))
                there.write(content)
        except (FileNotFoundError, IndexError):
            return False
        return True

    def _kill(self, kind: str) -> None:
        found = self._found(kind)
        if found:
            self._strike(self.dice.choice(found), kind)

    def _found(self, kind: str) -> list[int]:
        below = descendants(self.process.pid)
        return sorted(pid for pid, said in below.items() if said.startswith(PROCESSES[kind]))

    def _strike(self, pid: int, kind: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.done(kind)

    def _look(self) -> None:
        """Remember the sweep's processes: none may be left at the end."""
        for pid in descendants(self.process.pid):
            since = started(pid)
            if since is not None:
                self.seen.add((pid, since))

    def _start(self) -> subprocess.Popen[bytes]:
        words = ["run", self.study, "--runs", self.runs, "--tracking-uri", self.server.url]
        self.temporary.mkdir(exist_ok=True)
        with (self.runs.parent / f"{self.runs.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ablate.cli", *map(str, words)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary), "RAY_TMPDIR": "/tmp"},
            )

    def _again(self) -> None:
        self.done("starts again")
        self.process = self._start()

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def _ended(self) -> int:
        """The exit code, once it is there. Raises SweepHangs."""
        before, since = -1, time.monotonic()
        while self.process.poll() is None:
            self._wait(0.5)
            self._look()
            attempts = sum(record.attempts for record in Ledger(self.runs).records())
            if attempts != before:
                before, since = attempts, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise SweepHangs(f"{self.study.stem}: nothing for {PATIENCE_SECONDS:g} s")
        return int(self.process.returncode)
