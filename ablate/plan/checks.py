"""Rules that join several keys or blocks, checked once every key has been judged alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

from ablate.plan.backbone import check_layers
from ablate.plan.draft import Draft
from ablate.plan.draws import Draw, count_draws, make_draws
from ablate.plan.keys import PARAMS, STAND_INS, owners, without_foreign
from ablate.plan.known import check_source, check_supplied
from ablate.plan.parts import Cell, Study
from ablate.plan.space import Choice, Fixed, Grid
from trainables.data.collections import parse_ref
from trainables.errors import InvalidInput, Problem
from trainables.spec import Scalar, TrialSpec

MOST_TRIALS = 1_000_000
"""A study that plans more is taken for a slip of the pen."""

MOST_CHECKED = 10_000
"""Combinations that are built to look for broken rules; of more, an even selection."""


def check_together(draft: Draft, study: Study) -> None:
    """Notes in `draft` what is wrong with the study as a whole."""
    planned = study.size * count_draws(study) * max(1, len(study.seeds))
    if planned > MOST_TRIALS:
        rule = f"the study plans {planned:,} trials; at most {MOST_TRIALS:,} are allowed"
        draft.wrong("study", rule, None, draft.source)
        return
    _check_params(draft, study)
    _check_exclusions(draft, study)
    _check_sources(draft, study)
    _check_refs(draft, study)
    _check_watch(draft, study)
    _check_stop(draft, study)
    try:
        draws = make_draws(study)
    except InvalidInput as error:
        draft.problems += [replace(p, place=_place(draft, p)) for p in error.problems]
        return
    _check_trials(draft, study, draws)


def without_left_over(study: Study) -> Study:
    """The study without what a changed key has made idle.

    That is, parameters of losses that are trained no more, and exclusions that leave out nothing.
    """
    losses = set(study.listed("loss.name"))

    def idle(key: str) -> bool:
        return key.startswith(PARAMS) and not losses & set(owners(key))

    axes = []
    for axis in study.compare:
        kept = [{k: v for k, v in option.items() if not idle(k)} for option in axis.options]
        first = [i for i, option in enumerate(kept) if option and option not in kept[:i]]
        names = tuple(axis.names[i] for i in first) if axis.names else ()
        if first:
            axes.append(replace(axis, options=tuple(kept[i] for i in first), names=names))
    rest = replace(
        study,
        fixed={key: value for key, value in study.fixed.items() if not idle(key)},
        tune={key: space for key, space in study.tune.items() if not idle(key)},
        compare=tuple(axes),
    )
    return replace(rest, exclude=tuple(rule for rule in rest.exclude if rest.excludes(rule)))


def _check_params(draft: Draft, study: Study) -> None:
    """A loss's own parameter stands in its cells alone; some cell must have that loss."""
    losses = study.listed("loss.name")
    if "loss.name" in draft.changed or any(p.key == "loss.name" for p in draft.problems):
        return
    for key, place in draft.places.items():
        if key.startswith(PARAMS) and losses and not set(owners(key)) & set(losses):
            rule = f"is a parameter of {', '.join(owners(key))}, which this study does not train"
            draft.wrong(key, rule, None, place)


def _check_exclusions(draft: Draft, study: Study) -> None:
    for rule in study.exclude:
        if not study.excludes(rule) and not draft.changed:
            draft.wrong("exclude", "leaves out no cell", dict(rule.when), draft.source)
    if study.exclude and not study.cells():
        draft.wrong("exclude", "leaves out every cell", None, draft.source)


def _check_sources(draft: Draft, study: Study) -> None:
    trained = [
        parse_ref(train, "train").collection
        for train in study.listed("data.train")
        if isinstance(train, str)
    ]
    for key in ("data.human_labels", "data.machine_labels"):
        for source in study.listed(key):
            if isinstance(source, str):
                for name in trained:
                    draft.problems += check_source(key, source, name, draft.places[key])
    if "supplied" in study.listed("data.negatives"):
        for name in trained:
            draft.problems += check_supplied(name, draft.places["data.negatives"])


def _check_refs(draft: Draft, study: Study) -> None:
    """No split is both trained on and judged on, and no two splits share a name in metrics."""
    trained = [parse_ref(str(text), "train") for text in study.listed("data.train") if text]
    for ref in study.evaluate:
        if any((ref.collection, ref.split) == (other.collection, other.split) for other in trained):
            draft.wrong("evaluate", "is the split that is trained on", str(ref), draft.source)
    select = study.select
    for ref in study.evaluate if select else ():
        alike = replace(ref, judges=())
        if select and ref.label == select.ref.label and alike != select.ref:
            rule = f"shares the name {ref.label} in metrics with the split that selects"
            draft.wrong("evaluate", rule, str(ref), draft.source)


def _check_watch(draft: Draft, study: Study) -> None:
    """The watched split is scored in full at the end: so its curve ends in a known score."""
    known = {ref.label: replace(ref, judges=()) for ref in study.references}
    if study.watch is not None and known.get(study.watch.ref.label) != study.watch.ref:
        rule = "is neither the split that selects nor one of evaluate, which are scored at the end"
        draft.wrong("watch.split", rule, str(study.watch.ref), draft.source)


def _check_stop(draft: Draft, study: Study) -> None:
    """Trials are stopped by the score that selects, on the split that is watched."""
    stop, place = study.stop, draft.places.get("stop.among", draft.source)
    if stop is None:
        return
    said = {problem.key.partition(".")[0] for problem in draft.problems}
    if study.watch is None and "watch" not in said:
        rule = "needs watch: the score in training by which a trial is stopped"
        draft.wrong("stop", rule, None, place)
    if study.select is None and "select" not in said:
        draft.wrong("stop", "needs select.maximize: the metric that is compared", None, place)
    if study.watch and study.select and study.watch.ref != study.select.ref:
        rule = f"must be {study.select.ref}, the split that selects, for trials to be stopped by it"
        draft.wrong("watch.split", rule, str(study.watch.ref), draft.source)
    if study.adaptive:
        rule = "cannot stop what an adaptive search chooses: it would learn from cut trials"
        draft.wrong("stop", rule, None, place, "budget.search: random")
    if stop.among == "draws" and not study.tune:
        draft.wrong("stop.among", "compares draws, and nothing is tuned", stop.among, place)
    if stop.among == "cells" and len(study.cells()) < 2:
        draft.wrong("stop.among", "compares cells, and there is one", stop.among, place)
    steps = [number for number in study.listed("optim.steps") if isinstance(number, int)]
    if steps and stop.grace >= max(steps):
        rule = f"must be below optim.steps ({max(steps)}), or no trial is ever stopped"
        draft.wrong("stop.grace", rule, stop.grace, draft.places.get("stop.grace", draft.source))


def _check_trials(draft: Draft, study: Study, draws: Sequence[Draw]) -> None:
    """Builds the spec of every cell, at every listed value of the tuned keys."""
    cells = study.cells()
    selected = list(_representatives(study, cells, draws))
    broken: dict[str, tuple[Problem, list[Cell]]] = {}
    for cell, draw in selected:
        for problem in _problems(draft, {**study.fixed, **cell.values, **draw.values}):
            broken.setdefault(str(problem), (problem, []))[1].append(cell)
    for problem, failing in broken.values():
        rule = problem.rule
        if len(failing) < len(selected):
            rule = f"{rule}, in cell {failing[0].name!r}"
        draft.wrong(problem.key, rule, problem.value, _place(draft, problem), problem.nearest)


def _representatives(
    study: Study, cells: Sequence[Cell], draws: Sequence[Draw]
) -> Iterator[tuple[Cell, Draw]]:
    """Cells with draws that differ in a listed value: numbers drawn from a range obey one rule."""
    listed = [key for key, space in study.tune.items() if isinstance(space, (Fixed, Grid, Choice))]
    tried = _combined(study, draws[0]) if study.adaptive else reversed(draws)
    distinct = {tuple(draw.values[key] for key in listed): draw for draw in tried}
    pairs = ((cell, draw) for cell in cells for draw in distinct.values())
    step = 1 + len(cells) * len(distinct) // MOST_CHECKED
    return islice(pairs, 0, None, step)


def _combined(study: Study, draw: Draw) -> Iterator[Draw]:
    """`draw` with every combination of the choices, any of which a search may come to."""
    choices = {key: space.values for key, space in study.tune.items() if isinstance(space, Choice)}
    for point in islice(product(*choices.values()), MOST_CHECKED):
        yield Draw(draw.index, {**draw.values, **dict(zip(choices, point, strict=True))})


def _problems(draft: Draft, values: Mapping[str, Scalar]) -> list[Problem]:
    """What TrialSpec and the backbone say of a trial, but for keys that are known to be wrong."""
    flat = {key: value for key, value in values.items() if key not in draft.broken}
    flat |= {key: STAND_INS[key] for key in draft.broken if key in STAND_INS}
    flat = without_foreign(flat, flat.get("loss.name"))
    try:
        TrialSpec.from_flat({**flat, "seed": 0})
    except InvalidInput as error:
        return [problem for problem in error.problems if problem.key not in draft.broken]
    return [] if "encoder.layers" in draft.broken else check_layers(flat)


def _place(draft: Draft, problem: Problem) -> str:
    """The line of the problem's key, or of a key of its group that the rule names."""
    if problem.key in draft.places:
        return draft.places[problem.key]
    for key, place in draft.places.items():
        group, _, name = key.partition(".")
        if group == problem.key and name in problem.rule:
            return place
    return draft.source
