"""One trial, or one evaluation, outside a sweep: what `ablate train` and `ablate evaluate` do."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.plan.known import check_source
from ablate.run import sweep
from ablate.run.capacity import slots
from ablate.run.ledger import default_cache
from ablate.run.processes import threads
from ablate.run.quiet import quiet
from ablate.run.trial import Resources
from trainables.data.collections import parse_refs
from trainables.errors import InvalidInput, Problem
from trainables.evaluation.means import beir_means

if TYPE_CHECKING:
    from trainables.train import Outcome, TrialTask


def train_one(
    flat: Mapping[str, Any],
    refs: Sequence[str],
    workers: int,
    out: Path,
    on_progress: Callable[[Mapping[str, float]], None],
    watch: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and score one trial; leaves `result.json` and `checkpoint/` in `out`.

    `watch` says what is scored while it trains: fields of `trainables.evaluation.watching.Watch`.
    What an earlier training left in `out` stays until this one has ended well.

    Returns the content of `result.json`: `spec`, `metrics`, `seconds`. Raises InvalidInput,
    TrainingFailed, or ClusterCannot.
    """
    problems = list(_unwritable(out))
    if problems:
        raise InvalidInput(problems)
    from trainables.train import TrialTask

    with _stage(out) as stage:
        made = stage / "output"
        made.mkdir()
        task = TrialTask(dict(flat), tuple(refs), default_cache(), str(made), watch=watch)
        outcome = _trained(task, workers, stage / "group", on_progress)
        result = {"spec": dict(flat), "metrics": outcome.metrics, "seconds": outcome.seconds}
        _replace(made, out)
        text = json.dumps(result, indent=1, sort_keys=True)
        (out / "result.json").write_text(text, encoding="utf-8")
    return result


def _trained(
    task: TrialTask,
    workers: int,
    storage: Path,
    on_progress: Callable[[Mapping[str, float]], None],
) -> Outcome:
    """The outcome of the task, trained here or by a worker group that keeps its state in
    `storage`."""
    from trainables import worker

    if workers > 1:
        resources = Resources(runs=task.output, cache=task.cache, workers=workers)
        with sweep.cluster(None, dashboard=True) as total:
            slots(resources, total, None)
            with quiet():
                return worker.run_group(task, worker.Group(workers), str(storage), "trial")
    reporter = worker.HereReporter(on_progress, keep=shutil.rmtree, kept=lambda: None)
    return worker.run_here(task, reporter, threads=threads())


@contextlib.contextmanager
def _stage(out: Path) -> Iterator[Path]:
    """An empty folder within `out` for what is not whole yet; it is gone at the end, and so is
    every folder that was made for it and holds nothing else."""
    missing = [path for path in (out, *out.parents) if not path.exists()]
    stage = out.absolute() / ".train"
    # A killed training of other settings may have left its state: Ray would go on from it.
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _replace(made: Path, out: Path) -> None:
    """Move what a training made to `out`, in the place of what an earlier one left there."""
    (out / "result.json").unlink(missing_ok=True)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    for path in made.iterdir():
        target = out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)


def evaluate_one(
    model: str,
    on: Sequence[str],
    out: Path,
    on_progress: Callable[[int, int], None],
    judges: Sequence[str] = (),
    keep_embeddings: bool = False,
) -> dict[str, float]:
    """Score a model on the references `on`, each of them by `judges` too.

    Leaves `metrics.json` and a folder per reference and judge in `out`. Returns metric key ->
    value, means over the sets of BEIR included. `keep_embeddings` leaves the vectors in the cache
    for the next evaluation. Raises InvalidInput when the model, a reference or a judge is unknown,
    two references share a name in metrics, or `out` cannot be written to.
    """
    refs = [":".join((text, *judges)) for text in on]
    problems = [*_wrong_references(refs), *_unwritable(out)]
    if problems:
        raise InvalidInput(problems)
    from trainables import worker

    metrics = worker.evaluate_here(
        model,
        refs,
        default_cache(),
        str(out),
        threads(),
        on_progress,
        keep_embeddings,
    )
    metrics |= beir_means(metrics)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=1, sort_keys=True)
    (out / "metrics.json").write_text(text, encoding="utf-8")
    return metrics


def _wrong_references(texts: Sequence[str]) -> Iterator[Problem]:
    """Every mistake in the references; two of one name would write over each other's scores."""
    known: dict[str, str] = {}
    said: set[str] = set()
    for text in texts:
        try:
            refs = parse_refs(text, key="--on")
        except InvalidInput as error:
            yield from error.problems
            continue
        for ref in refs:
            judges = [check_source("--judge", str(j), ref.collection, None) for j in ref.judges]
            for problem in chain(*judges):
                if str(problem) not in said:
                    yield problem
                said.add(str(problem))
            if ref.label in known:
                rule = f"is called {ref.label} in metrics, as {known[ref.label]} is"
                yield Problem("--on", rule, text)
            known.setdefault(ref.label, text)


def _unwritable(folder: Path) -> Iterator[Problem]:
    """Why no file can be made in `folder`, found by making one; the folder is left as it was."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Problem("--out", f"cannot be written to: {error.strerror}", str(folder))
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
