"""Machine labels from the command line: who judges, on how many Ray workers, with what result."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.run import sweep
from ablate.run.capacity import Capacity, ClusterCannot
from ablate.run.events import INFRASTRUCTURE_RETRIES
from ablate.run.quiet import quiet
from trainables.data.cache import Cache
from trainables.data.collections import Collection, open_collection, parse_ref
from trainables.data.collections.registry import is_collection
from trainables.errors import InvalidInput, Problem, unknown

if TYPE_CHECKING:
    from trainables.data.agreement import Agreement
    from trainables.prepare.annotate import Amount
    from trainables.prepare.annotators import Annotator
    from trainables.prepare.judging import Arrays, Block, Judging

QUEUED = 2
"""Blocks that a Ray worker has before it: the one it does, and the next."""

GIVEN = ("depth", "pool", "prompt", "threshold", "least", "share")
"""Settings of annotators that `ablate annotate` has options for."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Annotation:
    """A checked request: which queries of which collection are judged by what, under which name."""

    collection: Collection
    name: str
    """Name or path of the collection."""
    split: str | None
    """Split whose queries are judged; None for those of every split."""
    annotator: Annotator
    source: str
    output: Path | None
    """File in BEIR's form that the labels are written to as well."""

    @property
    def unit(self) -> str:
        """What progress counts: pairs, or passages where a bi-encoder judges."""
        from trainables.prepare.annotators import BiEncoder

        return "passages" if isinstance(self.annotator, BiEncoder) else "pairs"


def request(
    place: str,
    model: str,
    source: str,
    kind: str | None,
    settings: Mapping[str, Any],
    output: Path | None,
) -> Annotation:
    """The annotation of `place`, a COLLECTION[/SPLIT], by a model of `kind` (None: looked up).

    `settings` are the annotator's, those that were given. Raises InvalidInput with every mistake.
    """
    from trainables.prepare.annotate import name_problems

    problems: list[Problem] = []
    with _noted(problems):
        name, split = _place(place)
        collection = open_collection(name, Cache.default())
        problems += name_problems(collection, None, source, Cache.default())
    annotator = None
    with _noted(problems):
        annotator = _annotator(model, kind, settings)
    if not problems and annotator is not None:
        problems += name_problems(collection, annotator, source, Cache.default(), split)
    if output is not None and output.exists():
        problems.append(Problem("--output", "is there already; choose another", str(output)))
    elif output is not None and not output.absolute().parent.is_dir():
        problems.append(Problem("--output", "must be in a folder that exists", str(output)))
    if problems or annotator is None:
        raise InvalidInput(problems)
    return Annotation(collection, name, split, annotator, source, output)


def foresee(wanted: Annotation) -> Amount:
    """How many pairs would be judged."""
    from trainables.prepare.annotate import amount

    return amount(wanted.collection, wanted.annotator, Cache.default(), wanted.split)


def annotate_collection(
    wanted: Annotation, workers: int, address: str | None, progress: Progress
) -> Agreement:
    """Make the labels, here or on `workers` Ray workers; returns their agreement with the human
    ones. They lie in the user's cache then, and in `output` when there is one.

    Raises InvalidInput when the model is unfit, ClusterCannot when the workers have no room.
    """
    from trainables.data.sources import load_labels
    from trainables.prepare.annotate import annotate

    cache = Cache.default()
    with _judging(workers, address) as judging:
        agreement = annotate(
            wanted.name, wanted.annotator, wanted.source, cache, progress, wanted.split, judging
        )
    if wanted.output is not None:
        labels = load_labels(wanted.collection, wanted.source, cache)
        rows = zip(labels.query_ids, labels.passage_ids, labels.grades.tolist(), strict=True)
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
        half = wanted.output.with_name(f".{wanted.output.name}.{os.getpid()}")
        half.write_text("\n".join(lines) + "\n", encoding="utf-8")
        half.replace(wanted.output)
    return agreement


@contextlib.contextmanager
def _judging(workers: int, address: str | None) -> Iterator[Judging | None]:
    """Ray workers where they are asked for; None means this process."""
    if workers == 1 and address is None:
        yield None
        return
    with contextlib.ExitStack() as stack:

        def start() -> Mapping[str, float]:
            return _share(stack.enter_context(sweep.cluster(address, dashboard=False)), workers)

        yield _Crew(workers, start)


class _Crew:
    """Judging by Ray actors, each of which holds the model; one model at a time."""

    def __init__(self, workers: int, start: Callable[[], Mapping[str, float]]) -> None:
        """`start` connects to Ray, when there is work, and says what each worker gets."""
        self._workers, self._start = workers, start
        self._need: Mapping[str, float] = {}
        self._annotator: Annotator | None = None
        self._actors: list[Any] = []

    def __call__(
        self, annotator: Annotator, blocks: Iterable[Block]
    ) -> Iterator[tuple[int, Arrays]]:
        """The blocks' arrays as they come. A worker that is lost is started anew, and its blocks
        are done again; what a worker raises is raised here."""
        left = iter(blocks)
        asked: dict[Any, Any] = {}
        for block in islice(left, QUEUED * self._workers):
            actor = self._hired(annotator)[len(asked) % self._workers]
            asked[actor.work.remote(block)] = actor
        while asked:
            task, result = _first(list(asked))
            actor = asked.pop(task)
            for block in islice(left, 1):
                asked[actor.work.remote(block)] = actor
            yield result

    def _hired(self, annotator: Annotator) -> list[Any]:
        if self._annotator == annotator:
            return self._actors
        import ray

        from trainables.prepare.judging import Worker

        self._need = self._need or self._start()
        for actor in self._actors:
            ray.kill(actor)
        hire = ray.remote(
            num_cpus=self._need["CPU"],
            num_gpus=self._need["GPU"],
            max_restarts=INFRASTRUCTURE_RETRIES,
            max_task_retries=INFRASTRUCTURE_RETRIES,
        )(Worker)
        threads = int(self._need["CPU"])
        self._actors = [hire.remote(annotator, threads) for _ in range(self._workers)]
        self._annotator = annotator
        return self._actors


def _first(tasks: list[Any]) -> tuple[Any, tuple[int, Arrays]]:
    """The first of the tasks to be done, and its result."""
    import ray

    with quiet():
        (ready, *_), _ = ray.wait(tasks)
        try:
            return ready, ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError:
            times = INFRASTRUCTURE_RETRIES + 1
            rule = f"a worker was lost {times} times; is there memory for the model in each?"
            raise ClusterCannot(rule) from None


def _share(total: Capacity, workers: int) -> dict[str, float]:
    """What each worker gets: a GPU where all can have one, and an even share of the CPUs."""
    for need in ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0}):
        if total.places(need) >= workers:
            break
    else:
        room = total.places({"CPU": 1.0})
        raise ClusterCannot(f"{workers} workers need a CPU each, but there is room for {room}")
    while total.places({**need, "CPU": need["CPU"] + 1.0}) >= workers:
        need["CPU"] += 1.0
    return {"GPU": 0.0, **need}


def _place(text: str) -> tuple[str, str | None]:
    """COLLECTION[/SPLIT] as its two parts."""
    if is_collection(text.rstrip("/") or text):
        return text.rstrip("/") or text, None
    ref = parse_ref(text)
    if ref.min_grade != 1:
        rule = "takes no grade: which passages are judged does not depend on it"
        raise InvalidInput([Problem("collection", rule, text)])
    return ref.collection, ref.split


def _annotator(model: str, kind: str | None, settings: Mapping[str, Any]) -> Annotator:
    from trainables.prepare.annotators import KINDS, CausalLM, settings_of
    from trainables.prepare.judges import PROMPTS, kind_of, load_prompt

    if kind is not None and kind not in KINDS:
        raise InvalidInput([unknown("--kind", kind, list(KINDS))])
    kind = kind or kind_of(model)
    known = settings_of(KINDS[kind])
    problems = []
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(_option(one) for one in GIVEN if one in known)
            rule = f"is no option of a {kind}, which has: {listed}"
            problems.append(Problem(_option(name), rule, value))
    if problems:
        raise InvalidInput(problems)
    named = {("pool", "bm25"), *(("prompt", path.stem) for path in PROMPTS.iterdir())}
    anywhere = {k: v if (k, v) in named else _anywhere(v) for k, v in settings.items()}
    annotator = KINDS[kind](_anywhere(model), **anywhere)
    if isinstance(annotator, CausalLM):
        load_prompt(annotator.prompt)
    return annotator


def _anywhere(value: Any) -> Any:
    """A file or folder of this machine by its absolute path, so that every worker finds it."""
    if not isinstance(value, str) or not Path(value).expanduser().exists():
        return value
    return str(Path(value).expanduser().absolute())


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


@contextlib.contextmanager
def _noted(problems: list[Problem]) -> Iterator[None]:
    """What the block finds wrong is added to `problems`."""
    try:
        yield
    except InvalidInput as error:
        problems += error.problems
