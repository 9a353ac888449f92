"""One pass: whatever the ledger's findings have and MLflow lacks is sent.

Every run is found again by its tag `ablate.key`, and left alone when its `ablate.digest` is still
right. MLflow is never read for findings, so an outage delays it and loses nothing.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.learn.environment import environment
from ablate.learn.results import Results
from ablate.learn.tracking.door import (
    ONCE,
    QUIET,
    Point,
    connect,
    experiment_of,
    failures_of,
    write,
    write_inputs,
)
from ablate.learn.tracking.files import (
    artifact_folder,
    default_uri,
    hashes,
    places,
    small_files,
    study_files,
)
from ablate.learn.tracking.guards import one_at_a_time, variables
from ablate.learn.tracking.held import NOTE, has, superseded, without_foreign_note
from ablate.learn.tracking.names import safe_name
from ablate.learn.tracking.plots import figures, page
from ablate.learn.tracking.tracked import (
    DIGEST,
    FILES,
    KEY,
    PARENT,
    REVISION,
    TrackedRun,
    cell_key,
    describe,
    digest_of,
    execution_key,
    run_count,
    tracked_runs,
    trial_key,
)
from ablate.learn.tracking.views import (
    TAG,
    View,
    compare_url,
    comparison_view,
    saved_views,
    server_command,
    view_url,
)
from ablate.run.store import mask

if TYPE_CHECKING:
    from ablate.run.ledger import Ledger

PAGE = 1000
PARAM_LENGTH, TAG_LENGTH = 6000, 8000
"""Within MLflow's own limits."""
LOCK_SECONDS = 60.0
HANDS = 4
"""Trials that are sent to a server at a time, when no study runs beside: most of it is waiting."""
PORT, COMPARED = 5000, 20
FIGURES_PAGE = "figures.html"

Progress = Callable[[int, int], None]
"""Is told how many runs are as they should be, and of how many."""


@dataclass(frozen=True)
class SyncSummary:
    """What a sync did, and where it is to be seen. `uri` holds no password."""

    uri: str
    experiment_id: str
    created: int
    updated: int
    unchanged: int
    cells: Mapping[str, str]
    """Cell name -> run id, best cell first."""
    execution: str
    """Run id of the parent run."""
    server_command: str | None
    """Serves the store on this machine; None when it is a server already."""
    compare_url: str
    """The page that compares runs side by side: the chosen cells, or the first ones."""
    charts_url: str
    """The same cells in the charts of a saved view, whose axes are the study's."""
    cells_url: str
    """The saved view of the cells with their intervals."""


def sync(
    results: Results,
    ledger: Ledger,
    tracking_uri: str | None = None,
    on_the_way: bool = False,
    progress: Progress | None = None,
    compared: Sequence[str] = (),
) -> SyncSummary:
    """Fill MLflow with what the results hold; what is there already stays.

    A pass `on_the_way`, while the study runs, leaves the study's own files to the last one.
    `compared` names cells that get a saved view of their own. Raises TrackingUnavailable when the
    store cannot be reached or gives up on the way.
    """
    uri = tracking_uri or default_uri(ledger)
    folder = None if uri.startswith("http") else artifact_folder(ledger)
    with variables(QUIET), failures_of(uri), one_at_a_time(ledger.store.local, LOCK_SECONDS):
        client = connect(uri)
        experiment = experiment_of(client, results.study.name, folder)
        files = {} if on_the_way else hashes(ledger, results.study.name)
        drawn = {} if on_the_way else figures(results)
        one = _Sync(client, experiment, results, ledger, drawn)
        one.fill(files, progress, HANDS if uri.startswith("http") and not on_the_way else 1)
        one.describe_experiment()
        return one.summary(mask(uri), compared)


class _Sync:
    """One pass over everything that should be there."""

    def __init__(
        self,
        client: Any,
        experiment: Any,
        results: Results,
        ledger: Ledger,
        drawn: Mapping[str, Any],
    ) -> None:
        self.client, self.results, self.ledger, self.drawn = client, results, ledger, drawn
        self.experiment = experiment
        self.ids: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self.creating, self.counting = threading.Lock(), threading.Lock()
        self.known = self._known()

    def fill(self, files: Mapping[str, str], progress: Progress | None, hands: int) -> None:
        """Send what is missing or changed; `files` are the study's, by their hashes."""
        if self.drawn:
            files = {**files, FIGURES_PAGE: digest_of(self.drawn)}
        tell, total = progress or (lambda done, total: None), run_count(self.results)
        tell(0, total)

        def put(run: TrackedRun) -> None:
            outcome = self._put(run)
            with self.counting:
                self.done[outcome] += 1
                tell(self.done.total(), total)

        with ThreadPoolExecutor(hands) as pool:
            under_way: set[Future[None]] = set()
            try:
                for run in tracked_runs(self.results, files):
                    if run.trial is None or hands == 1:  # Trials need the id of their cell's run.
                        put(run)
                        continue
                    under_way.add(pool.submit(put, run))
                    under_way = _some_done(under_way, 2 * hands)
                _some_done(under_way, 1)
            finally:
                pool.shutdown(cancel_futures=True)
        self._forget_what_was_put_back()

    def _forget_what_was_put_back(self) -> None:
        """Delete the runs of ended trials that are planned ones again."""
        for trial in self.results.trials:
            left = self.known.pop(trial_key(trial), None) if trial.state == "planned" else None
            if left is not None:
                self.client.delete_run(left.info.run_id)

    def summary(self, uri: str, compared: Sequence[str]) -> SyncSummary:
        """What was done; `uri` without a password."""
        keys = {cell.name: cell_key(cell) for cell in self.results.cells}
        found = {name: self.ids[key] for name, key in keys.items() if key in self.ids}
        experiment, served = self.experiment.experiment_id, uri.startswith("http")
        base = uri.replace("***@", "") if served else f"http://127.0.0.1:{PORT}"
        command = None if served else server_command(uri, artifact_folder(self.ledger), PORT)
        # MLflow compares what all the runs have: one without a score hides those of the others.
        scored = [cell.name for cell in self.results.scored][:COMPARED]
        shown = list(found)[:COMPARED]
        chosen = {name: found[name] for name in compared or scored or shown if name in found}
        view = self._compare(chosen) if compared and chosen else "cells"
        return SyncSummary(
            uri=uri,
            experiment_id=experiment,
            created=self.done["created"],
            updated=self.done["updated"],
            unchanged=self.done["unchanged"],
            cells=found,
            execution=self.ids[execution_key(self.results)],
            server_command=command,
            compare_url=compare_url(base, experiment, list(chosen.values())),
            charts_url=view_url(base, experiment, view, charts=True),
            cells_url=view_url(base, experiment, "cells"),
        )

    def _known(self) -> dict[str, Any]:
        """Key -> run. Where an interrupted answer left two of a key, the younger goes."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment.experiment_id],
                max_results=PAGE,
                order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
                page_token=token,
            )
            for run in page:
                key = run.data.tags.get(KEY)
                if key in found:
                    self.client.delete_run(run.info.run_id)
                elif key is not None:
                    found[key] = run
            token = page.token
            if not token:
                return found

    def _put(self, run: TrackedRun) -> str:
        """Bring a run up to date; returns what it was: created, updated or unchanged."""
        # Popped: what is known is needed once, and holds much.
        before = self.known.pop(run.key, None)
        tags = {KEY: run.key, **{k: v[:TAG_LENGTH] for k, v in run.tags.items()}}
        if run.parent is not None:
            tags[PARENT] = self.ids[run.parent]
        params = {safe_name(k): v[:PARAM_LENGTH] for k, v in run.params.items()}
        if before is not None and superseded(before, run, params, tags):
            self.client.delete_run(before.info.run_id)
            before = None
        if before is not None:
            tags = without_foreign_note(tags, before.data.tags)
            if before.data.tags.get(DIGEST) == run.digest and has(before.data.tags, tags):
                self.ids[run.key] = before.info.run_id
                return "unchanged"
        if run.trial is not None:
            tags |= places(self.ledger, run.trial.trial_id)
        outcome = "created" if before is None else "updated"
        if before is None:
            before = self._create(run, tags)
        self.ids[run.key] = before.info.run_id
        self._fill(run, before, params, tags)
        return outcome

    def _create(self, run: TrackedRun, tags: Mapping[str, str]) -> Any:
        """A new run. What a server did whose answer is late is unknown, so it is asked once: asked
        again it would make two. The next pass finds what it made."""
        with self.creating, variables(ONCE):
            return self.client.create_run(
                self.experiment.experiment_id,
                start_time=int(run.started * 1000),
                tags=dict(tags),
                run_name=run.name,
            )

    def _fill(
        self, run: TrackedRun, before: Any, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Bring a run up to date; marks that say so come last, so that a break is seen.

        MLflow shows the youngest value of the last step. A metric's value at the end is logged
        there, after its history: so every run shows what the ledger and the report do.
        """
        run_id, data = before.info.run_id, before.data
        now, files = int(time.time() * 1000), digest_of(run.state)
        stale = data.tags.get(FILES) != files
        history = self._history(run)
        last = {point.key: point for point in history}
        changed = {k: v for k, v in run.metrics.items() if data.metrics.get(k) != v}
        points = [
            Point(k, v, now, last[k].step if k in last else 0)
            for k, v in changed.items()
            if k not in last or last[k].value != v
        ]
        fresh = {k: v for k, v in params.items() if k not in data.params}
        new = {k: v for k, v in tags.items() if data.tags.get(k) != v}
        marks = {FILES: files, DIGEST: run.digest}
        ended = None if run.ended is None else int(run.ended * 1000)
        if not stale and (before.info.status, before.info.end_time) == (run.status, ended):
            write(self.client, run_id, points, fresh, new | marks)
            return
        write(self.client, run_id, [*(history if stale else ()), *points], fresh, new)
        if stale:
            write_inputs(self.client, run_id, run.datasets)
            self._artifacts(run, run_id)
        if run.status == "RUNNING":
            self.client.update_run(run_id, status=run.status)
        else:
            self.client.set_terminated(run_id, run.status, ended)
        write(self.client, run_id, (), {}, marks)

    def _history(self, run: TrackedRun) -> list[Point]:
        """A trial's logged steps. Sent again they change nothing: MLflow knows equal points.

        Those that a running trial without a score has are of the attempt before.
        """
        if run.trial is None or (run.trial.state == "running" and not run.trial.metrics):
            return []
        at = int(run.started * 1000)
        return [
            Point(safe_name(key), float(value), at, int(row["step"]))
            for row in self.results.scores.history(run.trial)
            for key, value in row.items()
            if key != "step"
        ]

    def _artifacts(self, run: TrackedRun, run_id: str) -> None:
        """Copy the small files of a trial or of the study; tags say where the large ones are."""
        if run.parent is None:
            known = study_files(self.ledger, self.results.study.name)
            paths = {name: path for name, path in known.items() if name in run.state["files"]}
        elif run.trial is not None:
            paths = small_files(self.ledger, run.trial.trial_id)
        else:
            return
        with tempfile.TemporaryDirectory(prefix="ablate-") as staged:
            for name, path in paths.items():
                target = Path(staged) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.ledger.store.read(path) or b"")
            if run.parent is None:
                (Path(staged) / "environment.txt").write_text(
                    environment(run.tags.get(REVISION)), encoding="utf-8"
                )
            if run.parent is None and self.drawn:
                (Path(staged) / FIGURES_PAGE).write_text(page(self.drawn), encoding="utf-8")
            self.client.log_artifacts(run_id, staged)

    def describe_experiment(self) -> None:
        """Note and saved views, where they are not already so."""
        tags = self.experiment.tags
        note = describe(self.results)
        wanted = {NOTE: note, "mlflow.experimentKind": "custom_model_development"}
        wanted = without_foreign_note(wanted, tags)
        for view in saved_views(self.results):
            wanted |= _view_tag(view, tags)
        self._tag_experiment(wanted)

    def _compare(self, runs: Mapping[str, str]) -> str:
        """The key of a saved view of these cells."""
        view = comparison_view(self.results, runs)
        self._tag_experiment(_view_tag(view, self.experiment.tags))
        return view.key

    def _tag_experiment(self, wanted: Mapping[str, str]) -> None:
        for key, value in wanted.items():
            if self.experiment.tags.get(key) != value:
                self.client.set_experiment_tag(self.experiment.experiment_id, key, value)


def _some_done(under_way: set[Future[None]], room: int) -> set[Future[None]]:
    """What is still under way when fewer than `room` are; raises what broke any of the others."""
    while len(under_way) >= room:
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
    return under_way


def _view_tag(view: View, tags: Mapping[str, str]) -> dict[str, str]:
    """The experiment tag that holds a view, with the time at which it was first made."""
    key = f"{TAG}{view.key}"
    created = json.loads(tags[key])["createdAt"] if key in tags else int(time.time() * 1000)
    return {key: view.tag(created)}
