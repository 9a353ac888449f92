"""A study's name or path -> a Study that is valid, or every mistake that keeps it from being so.

    question: TEXT                        what is asked
    fixed:    {KEY: VALUE}                one value of a trial's key
    compare:  {KEY: [VALUES]}             every value, one cell each; keys that belong together:
              {LABEL: {NAME: {KEY: VALUE, ...}, ...}} or {LABEL: [{KEY: VALUE, ...}, ...]}
    tune:     {KEY: SPACE}                drawn, or listed, alike for every cell; see `space`
    repeat:   {seed: [NUMBERS]}
    budget:   {draws_per_cell: N, seed: N}   random draws; a grid in tune multiplies them
              {search: random | adaptive} adaptive: after the first draws, which all cells share,
                                          each cell's are chosen by the scores of its earlier ones
              {label_price: NUMBER}       of one human label; puts money into the report
    select:   {maximize: COLLECTION/SPLIT/METRIC}   on a dev split; needed when something is tuned
              {equal_within: NUMBER}      difference in it up to which cells count as equal
    evaluate: [COLLECTION/SPLIT>=GRADE:SOURCE>=GRADE]   by SOURCE too, alone and in union
    watch:    {split: COLLECTION/SPLIT, every: STEPS, passages: N}   a dev split, scored in training
    stop:     {rule: asha, among: cells or draws, grace: STEPS, reduction: N}, by the watched score;
              {rule: median, among, grace, least: N}   or
              {rule: sequential, among, error: RATE, grace: STEPS, seed_sd: NUMBER}; see `stops`
    exclude:  [{when: {KEY or LABEL: VALUES}, reason: TEXT}]   cells that are left out
    resources: {workers, cpus_per_worker, gpus_per_worker, max_concurrent_trials}
    confirm:  {workers: N}                the winner trained once more by N Ray Train workers

A loss's own `loss.params.*` act in its cells alone; cells and draws that become equal are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ablate.plan.blocks import read_compare, read_fixed, read_repeat, read_tune
from ablate.plan.checks import check_together, without_left_over
from ablate.plan.document import Document, Entry, read_document, read_value
from ablate.plan.draft import Draft, split_blocks
from ablate.plan.overrides import apply_sets, changed_keys
from ablate.plan.parts import Study
from ablate.plan.presets import find_study
from ablate.plan.settings import read_conditions, read_settings
from trainables.errors import InvalidInput, Problem
from trainables.spec import TrialSpec


def load_study(source: str, sets: Mapping[str, str] | None = None) -> Study:
    """The study of a preset's name or a `.yaml` path, changed by `sets` (KEY -> YAML text).

    Raises InvalidInput with every mistake, each with its file and line.
    """
    found = find_study(source)
    return read_study(found.text, found.name, found.place, sets)


def read_study(
    text: str, name: str, place: str = "study", sets: Mapping[str, str] | None = None
) -> Study:
    """The study that `text` describes; as `load_study`, for text at hand."""
    document, problems = read_document(text, place)
    blocks = split_blocks(document, problems)
    problems += apply_sets(blocks, sets or {})
    draft = Draft(place, problems, changed=changed_keys(sets or {}))
    for block, read in _READERS.items():
        read(draft, blocks.keyed[block])
    read_settings(draft, blocks)
    study = _study(draft, name)
    check_together(draft, study)
    if draft.problems:
        raise InvalidInput(_ordered(draft.problems, place))
    return without_left_over(study) if draft.changed else study


def narrow(study: Study, only: Mapping[str, str]) -> Study:
    """The study with some compared values alone: KEY -> a value or a list, as YAML text.

    Cells keep their numbers and names. Raises InvalidInput for keys that are not compared and for
    values that are not among the compared ones.
    """
    draft = Draft("--only", compare=list(study.compare))
    kept = dict(study.only)
    for key, text in only.items():
        place = f"--only {key}={text}"
        try:
            value = {key: read_value(text, place)}
        except InvalidInput as error:
            draft.problems += error.problems
            continue
        kept |= read_conditions(draft, Entry(value, Document(place, value)))
    narrowed = replace(study, only=kept)
    if not draft.problems and not narrowed.cells():
        draft.wrong("--only", "leaves no cell", dict(only), None)
    if draft.problems:
        raise InvalidInput(draft.problems)
    return narrowed


def one_trial(study: Study) -> TrialSpec:
    """The only trial of a study in which nothing is left to compare or to tune; its first seed.

    Raises InvalidInput that names every key with several values.
    """
    problems = []
    cells = study.cells()
    if len(cells) > 1:
        for key in study.compared:
            values = list(dict.fromkeys(cell.values[key] for cell in cells if key in cell.values))
            if len(values) > 1:
                rule = "is compared; choose one value with --set or --only"
                problems.append(Problem(key, rule, values))
    for key, space in study.tune.items():
        problems.append(Problem(key, "is tuned; choose one value with --set", space.to_yaml()))
    if problems:
        raise InvalidInput(problems)
    return TrialSpec.from_flat({**study.fixed, **cells[0].values, "seed": study.seeds[0]})


_READERS = {
    "fixed": read_fixed,
    "compare": read_compare,
    "tune": read_tune,
    "repeat": read_repeat,
}


def _study(draft: Draft, name: str) -> Study:
    return Study(
        name=name,
        question=draft.question,
        fixed=draft.fixed,
        compare=tuple(draft.compare),
        tune=draft.tune,
        seeds=draft.seeds,
        evaluate=draft.evaluate,
        budget=draft.budget,
        select=draft.select,
        watch=draft.watch,
        stop=draft.stop,
        exclude=draft.exclude,
        resources=draft.resources,
        confirm=draft.confirm,
    )


def _ordered(problems: Iterable[Problem], source: str) -> list[Problem]:
    """The problems by line, each once; what has no line comes last."""

    def line(problem: Problem) -> tuple[int, int]:
        place = problem.place or ""
        number = place.removeprefix(source).removeprefix(":")
        return (0, int(number)) if number.isdecimal() else (1, 0)

    return sorted({str(problem): problem for problem in problems}.values(), key=line)
