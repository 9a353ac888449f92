"""One execution of a study: prepare, choose on dev, freeze, open the test splits, confirm.

Running it again is the resume: whatever the ledger holds is not done again, and when nothing is
left no cluster is started.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

from ablate.plan.planner import Plan, PlannedTrial
from ablate.plan.written import write_study
from ablate.run import baselines, confirm, sweep
from ablate.run.capacity import Capacity, Slots, slots, worker_need
from ablate.run.cluster import nodes
from ablate.run.cluster.check import check_nodes
from ablate.run.events import Watcher
from ablate.run.lease import Leases
from ablate.run.ledger import BASELINES, Ledger, Record, cache_root
from ablate.run.older import marks_of_today
from ablate.run.preparing import Preparation, preparations, prepare
from ablate.run.revision import revision
from ablate.run.search import Searches
from ablate.run.stops import Judge, Stopping, judge
from ablate.run.tasks import anywhere_spec, looks_place, moved, watched
from ablate.run.trial import Job, Resources, is_done, is_settled
from trainables.data.collections import Ref
from trainables.patience import PATIENCE_SECONDS

VERSIONS_OF = (
    "ablate", "torch", "ray", "transformers", "mlflow", "numpy", "pytrec-eval-terrier", "bm25s",
)  # fmt: skip


class StudyWatcher(Watcher, Protocol):
    """Sees a whole study as it goes."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """The block that follows takes a while."""

    def phase(
        self, name: str, jobs: Sequence[Job], slots: int, to_come: int
    ) -> AbstractContextManager[None]:
        """The block that follows runs these trials, and `to_come` more that `jobs` will hold."""


@dataclass
class Execution:
    """What one execution did."""

    trained: int = 0
    failed: int = 0
    already: int = 0
    left_failed: set[str] = field(default_factory=set)
    """Trials that failed before and would fail again: only `ablate retry` runs them once more."""
    stopped: int = 0
    left_stopped: set[str] = field(default_factory=set)
    """Trials that were stopped early before: only `ablate retry` takes them to their end."""
    choices: Mapping[str, int] = field(default_factory=dict)
    confirmed: Mapping[str, Any] | None = None


class StudyRun:
    """A plan on its way through the ledger."""

    def __init__(
        self,
        plan: Plan,
        runs: str,
        watcher: StudyWatcher,
        address: str | None = None,
        growth: Capacity | None = None,
    ) -> None:
        """`growth` is what the cluster at `address` may grow to, when an autoscaler adds nodes."""
        self.plan, self.watcher, self.address, self.growth = plan, watcher, address, growth
        self.ledger = Ledger(runs, PATIENCE_SECONDS)
        self.folder = self.ledger.study(plan.study.name)
        wanted = plan.study.resources
        self.resources = Resources(
            runs=self.ledger.store.uri,
            cache=cache_root(self.ledger),
            workers=wanted.workers,
            cpus=wanted.cpus_per_worker,
            gpus=wanted.gpus_per_worker,
        )
        self.done = Execution()
        self.leases = Leases(self.ledger.store, watcher.note)
        self._cluster = ExitStack()
        self._slots: Slots | None = None
        self._recorder: nodes.Recorder | None = None

    def run(self) -> Execution:
        """Bring the ledger to the study's end. Trials that fail are records, not exceptions.

        Raises ClusterCannot when no trial can ever run, InvalidInput when the data are wrong,
        StoreUnreachable when the run folder is not to be had.
        """
        self.ledger.store.require()
        self.ledger.store.sweep_scratch()
        started = time.time()
        self.plan = self.plan.resumed(self.folder.search)
        self.folder.write("plan.json", self.plan.to_json())
        self.folder.write("study.yaml", write_study(self.plan.study))
        with self.leases, self._cluster:
            if self.plan.frozen_by_design:
                self.done.choices = {cell.name: 0 for cell in self.plan.cells}
            else:
                self._choose()
                self.done.choices = choose(self.plan, self.ledger)
            self.folder.write("choices.json", dict(self.done.choices))
            with self._alone("openings", "opening the test splits"):
                self._open_test()
            rule = judge(self.plan, self.ledger, self.done.choices)
            self._jobs("training", self.plan.repeat(self.done.choices), self._refs, rule)
            with self._alone("baselines", "scoring the baselines"):
                self._baselines()
            with self._alone("confirmation", "confirming the winner"):
                self._confirm()
        # Workers of a driver that was killed a moment ago may have left something since.
        self.ledger.store.sweep_scratch()
        self._record(started)
        return self.done

    def _choose(self) -> None:
        refs = self.plan.dev_refs
        searches = Searches(
            self.plan,
            self.ledger,
            self.leases,
            job=lambda trial: self._job(trial, refs),
            slots=lambda: self._start().count,
        )
        rule = judge(self.plan, self.ledger, None)
        self._jobs("choosing on dev", self.plan.choose(), refs, rule, searches)
        if self.plan.study.adaptive:
            self.plan = searches.plan
            self.folder.write("plan.json", self.plan.to_json())

    def _jobs(
        self,
        name: str,
        trials: Iterator[PlannedTrial],
        refs: Sequence[Ref],
        rule: Judge | None,
        searches: Searches | None = None,
    ) -> None:
        wanted, pending = self.plan.marks(refs), []
        for trial in trials:
            record = self.ledger.record(trial.trial_id)
            if not is_settled(record, wanted, rule is not None):
                pending.append(trial)
            elif is_done(record, wanted):
                self.done.already += 1
            elif record is not None and record.state == "stopped":
                self.done.left_stopped.add(trial.trial_id)
            else:
                self.done.left_failed.add(trial.trial_id)
        to_come = searches.to_come if searches else 0
        if not pending and not to_come:
            return
        slots = self._start()
        if self._recorder is not None:
            self._recorder.expect(len(pending) + to_come)
        jobs = searches.jobs if searches else []
        jobs += [self._job(trial, refs) for trial in pending]
        if jobs:
            self._prepare(jobs)
        with self.watcher.phase(name, jobs, slots.count, to_come):
            watcher: Watcher = self._recorder or self.watcher
            watcher = watcher if rule is None else Stopping(watcher, rule)
            records = sweep.run_jobs(
                jobs, self.resources, slots.count, watcher, self.leases, searches
            )
        self.done.trained += sum(record.state == "finished" for record in records)
        self.done.failed += sum(record.state == "failed" for record in records)
        self.done.stopped += sum(record.state == "stopped" for record in records)

    def _prepare(self, jobs: Sequence[Job]) -> None:
        """Build what the trials share, unless the cache says that all of it was built before."""
        cache = self.resources.cache
        wanted = preparations(jobs, self.plan.fingerprints)
        # Nodes elsewhere have caches of their own, unless the run folder holds one for all.
        seen = self.address is None or self.ledger.store.local is not None
        found = [each.summary(cache) if seen else None for each in wanted]
        summaries = [summary for summary in found if summary is not None]
        if len(summaries) < len(wanted):
            summaries = self._make(wanted)
        self.folder.write("data.json", summaries)
        for line in dict.fromkeys(line for summary in summaries for line in summary["lines"]):
            self.watcher.note(line)

    def _make(self, wanted: Sequence[Preparation]) -> list[dict[str, Any]]:
        # One driver per collection, of whatever study: others would wait for locks, unheard.
        contents = self.plan.fingerprints.values() if self.ledger.store.local else ()
        names = [f"data {fingerprint}" for fingerprint in contents]
        alone = self.leases.holding(*names, doing="preparing the data")
        with alone, self.watcher.working("Preparing the data"):
            return self._remote([(prepare, each, self.resources.cache) for each in wanted])

    def _baselines(self) -> None:
        """Score BM25 and every backbone as it comes, unless the study's folder has them."""
        wanted = self.plan.marks(self._refs)
        encoders: dict[tuple[Any, ...], Job] = {}
        for trial in self.plan.repeat({cell.name: 0 for cell in self.plan.cells}):
            settings = tuple(kv for kv in trial.flat.items() if kv[0].startswith("encoder."))
            encoders.setdefault(settings, self._job(trial, self._refs))
        jobs = {f"untrained-{i}": job for i, job in enumerate(encoders.values(), start=1)}
        if len(jobs) == 1:
            jobs = {"untrained": jobs["untrained-1"]}
        if jobs:
            jobs["bm25"] = next(iter(jobs.values()))
        missing = {name: job for name, job in jobs.items() if self._lacks(name, wanted)}
        if not missing:
            return
        home = f"{self.folder.path}/baselines"
        with self.watcher.working(f"Scoring the baselines {', '.join(missing)}"):
            self._remote(
                [
                    (baselines.score, name, job, self.resources, f"{home}/{name}")
                    for name, job in missing.items()
                ]
            )
        scored = self.folder.read(BASELINES) or {}
        self.folder.write(BASELINES, {**scored, **dict.fromkeys(missing, wanted)})

    def _lacks(self, baseline: str, wanted: Mapping[str, str]) -> bool:
        scored = (self.folder.read(BASELINES) or {}).get(baseline, {})
        return marks_of_today(scored) != dict(wanted)

    def _open_test(self) -> None:
        labels = [ref.label for ref in self.plan.test_refs]
        trials = sorted(trial.trial_id for trial in self.plan.repeat(self.done.choices))
        known = {trial for opening in self.folder.openings() for trial in opening["trials"]}
        fresh = [trial for trial in trials if trial not in known]
        if labels and fresh:
            opening = {"time": time.time(), "references": labels, "trials": fresh}
            self.folder.open_test(opening, f"{len(self.folder.openings()):04d}")

    def _confirm(self) -> None:
        wanted = self.plan.study.confirm
        winner = best_cell(self.plan, self.ledger, self.done.choices)
        if wanted is None or winner is None:
            return
        trial = next(
            trial
            for trial in self.plan.repeat(self.done.choices)
            if trial.cell == winner and is_done(self.ledger.record(trial.trial_id), {})
        )
        before = self.folder.read("confirm.json")
        key = {"trial_id": trial.trial_id, "workers": wanted.workers}
        if before is None or {name: before[name] for name in key} != key:
            job = self._job(trial, self._refs)
            text = f"Training the winner once more with {wanted.workers} Ray Train workers"
            with self.watcher.working(text):
                call = (confirm.confirm, job, self.resources, wanted.workers)
                before = self._remote([call], driver=True)[0]
            self.folder.write("confirm.json", before)
        self.done.confirmed = before

    def _start(self) -> Slots:
        if self._slots is None:
            dashboard = self.resources.workers > 1 or self.plan.study.confirm is not None
            opened = sweep.cluster(self.address, dashboard, tune=True)
            total = self._cluster.enter_context(opened)
            if self.address is not None:
                check_nodes(self.resources, self.plan.fingerprints)
                self._recorder = self._cluster.enter_context(self._recording())
            limit = self.plan.study.resources.max_concurrent_trials
            self._slots = slots(self.resources, self.growth or total, limit)
        return self._slots

    def _recording(self) -> nodes.Recording:
        """On a cluster of several nodes, what records how many there are over time."""
        recorder = nodes.Recorder(self.watcher, groups=self.resources.workers > 1)
        fallback = nodes.Fallback.of(
            self.resources, self.growth, self.plan.study.resources.max_concurrent_trials
        )
        return nodes.Recording(self.folder, recorder, self.watcher.note, nodes.look, fallback)

    def _remote(self, calls: Sequence[tuple[Any, ...]], driver: bool = False) -> list[Any]:
        """Results of function calls as Ray tasks; a `driver` only waits for a worker group."""
        self._start()
        return sweep.remote(calls, sweep.DRIVER if driver else worker_need(self.resources))

    @property
    def _refs(self) -> tuple[Ref, ...]:
        return (*self.plan.dev_refs, *self.plan.test_refs)

    def _job(self, trial: PlannedTrial, refs: Sequence[Ref]) -> Job:
        return Job(
            trial_id=trial.trial_id,
            cell=trial.cell,
            seed=trial.seed,
            identity=trial.flat,
            spec=anywhere_spec(trial.flat),
            fingerprints=trial.fingerprints,
            refs=tuple(moved(str(ref), ref.collection) for ref in refs),
            wanted=self.plan.marks(refs),
            claim=self.leases.place(trial.trial_id),
            watch=watched(self.plan.study),
            looks=looks_place(self.plan, self.ledger, trial.trial_id),
            stops=self.plan.study.stop is not None,
        )

    def _alone(self, what: str, doing: str) -> AbstractContextManager[None]:
        """The block that follows is done by one driver of this study at a time."""
        return self.leases.holding(f"{self.plan.study.name} {what}", doing=doing)

    def _record(self, started: float) -> None:
        ended = self.done.trained + self.done.failed + self.done.stopped
        if not ended and self.folder.executions():
            return
        content = {
            "started": started,
            "finished": time.time(),
            "host": platform.node(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "revision": revision(),
            "versions": {name: _version(name) for name in VERSIONS_OF},
            "trained": self.done.trained,
            "failed": self.done.failed,
            "stopped": self.done.stopped,
            "already": self.done.already,
        }
        self.folder.write(f"executions/{int(started * 1000)}.json", content)


def choose(plan: Plan, ledger: Ledger) -> dict[str, int]:
    """Of each cell, the draw whose trials have the best mean of the selection metric on dev.

    Cells without a finished trial are left out; ties go to the earlier draw.
    """
    select = plan.study.select
    if select is None:
        return {cell.name: 0 for cell in plan.cells}
    values: dict[tuple[str, int], list[float]] = {}
    for trial in plan.choose():
        record = ledger.record(trial.trial_id)
        if record is not None and select.key in record.metrics:
            values.setdefault((trial.cell, trial.draw), []).append(record.metrics[select.key])
    best: dict[str, tuple[float, int]] = {}
    for (cell, draw), found in values.items():
        mean = sum(found) / len(found)
        if cell not in best or mean > best[cell][0]:
            best[cell] = (mean, draw)
    return {cell: draw for cell, (_, draw) in best.items()}


def best_cell(plan: Plan, ledger: Ledger, choices: Mapping[str, int]) -> str | None:
    """The cell with the best mean of the selection metric over its seeds, or None."""
    select = plan.study.select
    if select is None:
        return None
    values: dict[str, list[float]] = {}
    for trial in plan.repeat(choices):
        record: Record | None = ledger.record(trial.trial_id)
        if record is not None and select.key in record.metrics:
            values.setdefault(trial.cell, []).append(record.metrics[select.key])
    means = {cell: sum(found) / len(found) for cell, found in values.items()}
    return max(means, key=lambda cell: means[cell]) if means else None


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
