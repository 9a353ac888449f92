"""What a person sees while a study runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablate.run.ledger import Record
from ablate.run.trial import Job


@dataclass
class _Running:
    since: float
    step: float = 0.0
    steps: float = 0.0
    loss: float | None = None


class LiveView:
    """A watcher of a study; `metric` is what "best so far" means, higher being better.

    `on_record` is called whenever the ledger holds a trial's final record.
    """

    def __init__(
        self,
        console: Console,
        metric: str | None,
        slots: int = 1,
        on_record: Callable[[], None] = lambda: None,
    ) -> None:
        self.console, self.metric, self.slots = console, metric, slots
        self._on_record = on_record
        self._live: Live | None = None
        self._jobs: Sequence[Job] = ()
        self._by_id: dict[str, Job] = {}
        self._total = 0
        self._running: dict[str, _Running] = {}
        self._ended: list[Record] = []
        self._phase = ""
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        """Say one thing that stays on the screen."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Say what is being done for as long as the block runs, and how long it took."""
        began = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(Text(text)):
                yield
        else:
            yield
        took = (f" ({_duration(time.monotonic() - began)})", "dim")
        self.console.print(Text.assemble(text, took), highlight=False)

    @contextmanager
    def phase(self, name: str, jobs: Sequence[Job], slots: int, to_come: int = 0) -> Iterator[None]:
        """Show the trials of one phase while the block runs; `jobs` grows by those `to_come`."""
        self._phase, self._jobs, self._total = name, jobs, len(jobs) + to_come
        self._running, self._ended, self.slots = {}, [], slots
        self._began = time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4) as live:
            self._live = live
            yield
        self._live = None

    def started(self, trial_id: str) -> None:
        """A trial has begun, or begun again."""
        self._running[trial_id] = _Running(time.monotonic())

    def lost(self, trial_id: str) -> None:
        """A trial's process or node is lost, and it waits to begin again."""
        self._running.pop(trial_id, None)

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial is at a step."""
        running = self._running.setdefault(trial_id, _Running(time.monotonic()))
        running.step, running.steps = metrics["step"], metrics["steps"]
        running.loss = metrics.get("train/loss")

    def ended(self, record: Record) -> None:
        """A trial's final record is there."""
        running = self._running.pop(record.trial_id, None)
        self._ended.append(record)
        self._on_record()
        if self._live is None or record.state != "finished":
            took = time.monotonic() - running.since if running else 0.0
            self.console.print(self._line(record, took), highlight=False, markup=False)

    def _job(self, trial_id: str) -> Job:
        if trial_id not in self._by_id:
            self._by_id = {job.trial_id: job for job in self._jobs}
        return self._by_id[trial_id]

    def _line(self, record: Record, seconds: float) -> str:
        job = self._job(record.trial_id)
        head = f"[{len(self._ended)}/{self._total}] {job.cell} seed {job.seed}"
        if record.state != "finished":
            return f"{head}: {record.state}: {record.reason}"
        value = record.metrics.get(self.metric) if self.metric else None
        shown = "" if value is None else f" {self.metric} {value:.4f}"
        left = f", {self._left()} left" if len(self._ended) < self._total else ""
        return f"{head}:{shown} ({_duration(seconds)}{left})"

    def _left(self) -> str:
        begun = [0.8 * run.step / run.steps for run in self._running.values() if run.steps]
        done = len(self._ended) + sum(begun)
        if not done:
            return "unknown time"
        elapsed = time.monotonic() - self._began
        return _duration(elapsed / done * (self._total - done))

    def _render(self) -> Group:
        failed = sum(record.state == "failed" for record in self._ended)
        stopped = sum(record.state == "stopped" for record in self._ended)
        head = Text.assemble(
            (f"{self._phase}  ", "bold"),
            f"{len(self._ended)} of {self._total} done",
            (f", {failed} failed" if failed else "", "red"),
            f", {stopped} stopped early" if stopped else "",
            f"  elapsed {_duration(time.monotonic() - self._began)}, {self._left()} left",
        )
        return Group(head, self._table(), self._best())

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial_id, running in self._running.items():
            job = self._job(trial_id)
            said = "starting"
            if running.steps:
                said = f"step {running.step:.0f}/{running.steps:.0f}"
            if running.steps and running.step >= running.steps:
                said = "evaluating"
            table.add_row(
                f"  {job.cell}",
                f"seed {job.seed}",
                ProgressBar(running.steps or 1.0, running.step, width=24),
                said,
                "" if running.loss is None else f"loss {running.loss:.3f}",
            )
        return table

    def _best(self) -> Text:
        metric = self.metric
        scored = [r for r in self._ended if metric is not None and metric in r.metrics]
        if not scored or metric is None:
            return Text("  no result yet", style="dim")
        best = max(scored, key=lambda record: record.metrics[metric])
        job = self._job(best.trial_id)
        text = f"  best so far: {job.cell} seed {job.seed}, {metric} {best.metrics[metric]:.4f}"
        return Text(text, style="green")


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
