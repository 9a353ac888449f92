"""Readers of the blocks about the study itself: question, budget, select, evaluate and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Annotated, Any, Union, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ablate.plan.document import Entry
from ablate.plan.draft import Blocks, Draft
from ablate.plan.known import check_part, check_ref, check_refs, is_dev
from ablate.plan.parts import (
    SEARCHES,
    Budget,
    Confirm,
    Exclusion,
    Resources,
    SearchKind,
    Select,
    Watch,
)
from ablate.plan.space import Grid, is_random
from ablate.plan.stops import RULES, Among
from trainables.data.collections import Ref
from trainables.errors import InvalidInput, Problem, nearest
from trainables.evaluation.metrics import DEPTH, parse_metric
from trainables.spec import Scalar, text_number

Entries = Mapping[str, Entry]

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_COUNT = Annotated[int, Field(ge=1)]
_BUDGET: Mapping[str, TypeAdapter[Any]] = {
    "draws_per_cell": TypeAdapter(_COUNT, config=_STRICT),
    "seed": TypeAdapter(Annotated[int, Field(ge=0)], config=_STRICT),
    "search": TypeAdapter(SearchKind),
    "label_price": TypeAdapter(Annotated[float, Field(gt=0)], config=_STRICT),
}
_SELECT: Mapping[str, TypeAdapter[Any]] = {
    "maximize": TypeAdapter(Any),
    "equal_within": TypeAdapter(Annotated[float, Field(gt=0, lt=1)], config=_STRICT),
}
_RESOURCES: Mapping[str, TypeAdapter[Any]] = {
    "workers": TypeAdapter(_COUNT, config=_STRICT),
    "cpus_per_worker": TypeAdapter(Annotated[float, Field(gt=0)], config=_STRICT),
    "gpus_per_worker": TypeAdapter(Annotated[float, Field(ge=0)], config=_STRICT),
    "max_concurrent_trials": TypeAdapter(Union[_COUNT, None], config=_STRICT),
}
_CONFIRM: Mapping[str, TypeAdapter[Any]] = {
    "workers": TypeAdapter(Annotated[int, Field(ge=2)], config=_STRICT),
}
_WATCH: Mapping[str, TypeAdapter[Any]] = {
    "every": TypeAdapter(_COUNT, config=_STRICT),
    "passages": TypeAdapter(Union[_COUNT, None], config=_STRICT),
}
_STOP: Mapping[str, TypeAdapter[Any]] = {
    "among": TypeAdapter(Among, config=_STRICT),
    "grace": TypeAdapter(_COUNT, config=_STRICT),
    "reduction": TypeAdapter(Annotated[int, Field(ge=2)], config=_STRICT),
    "least": TypeAdapter(_COUNT, config=_STRICT),
    "error": TypeAdapter(Annotated[float, Field(gt=0, lt=0.5)], config=_STRICT),
    "seed_sd": TypeAdapter(Annotated[float, Field(ge=0, lt=1)], config=_STRICT),
}
SETTINGS: tuple[str, ...] = (
    *(f"budget.{name}" for name in _BUDGET),
    *(f"resources.{name}" for name in _RESOURCES),
    *(f"confirm.{name}" for name in _CONFIRM),
    *(f"watch.{name}" for name in _WATCH),
    "watch.split",
    *(f"stop.{name}" for name in ("rule", *_STOP)),
    *(f"select.{name}" for name in _SELECT),
)
"""Every dotted key of a block that holds no key of a trial."""


def read_question(draft: Draft, entry: Entry | None) -> None:
    """The question in words."""
    if entry is None:
        draft.wrong("question", "is missing: say what the study asks", None, draft.source)
    elif not isinstance(entry.value, str) or not entry.value.strip():
        draft.wrong("question", "must be text", entry.value, entry.place())
    else:
        draft.question = entry.value.strip()


def read_budget(draft: Draft, entries: Entries) -> None:
    """How many random draws; needed exactly when something is drawn at random."""
    draft.budget = Budget(**_read_numbers(draft, "budget", entries, _BUDGET))
    drawn = [key for key, space in draft.tune.items() if is_random(space)]
    if drawn and "draws_per_cell" not in entries:
        rule = f"is missing: {', '.join(drawn)} is drawn at random; say how often"
        draft.wrong("budget.draws_per_cell", rule, None, draft.source)
    unclear = any(draft.blocks[key] == "tune" for key in draft.broken & draft.blocks.keys())
    if not drawn and "draws_per_cell" in entries and not unclear:
        rule = "counts random draws, and tune draws nothing at random"
        place = entries["draws_per_cell"].place()
        draft.wrong("budget.draws_per_cell", rule, entries["draws_per_cell"].value, place)
    if draft.budget.search == "adaptive" and not unclear:
        _check_adaptive(draft, entries["search"].place())


def _check_adaptive(draft: Draft, place: str) -> None:
    """A search needs something to draw, more than once, and no key whose values are all tried."""
    key, draws = "budget.search", draft.budget.draws_per_cell
    if not any(is_random(space) for space in draft.tune.values()):
        rule = "has nothing to search: tune draws nothing at random"
        draft.wrong(key, rule, "adaptive", place, "random")
    elif draws == 1:
        rule = "chooses by earlier draws and needs a budget.draws_per_cell of at least 2"
        draft.wrong(key, rule, "adaptive", place, "random")
    for name, space in draft.tune.items():
        if isinstance(space, Grid):
            rule = (
                "is a grid, of which every value is tried; under an adaptive search write a choice"
            )
            written = f"{{choice: {space.to_yaml()}}}"
            draft.wrong(name, rule, space.to_yaml(), draft.places[name], written)


def read_resources(draft: Draft, entries: Entries) -> None:
    """What one trial takes."""
    draft.resources = Resources(**_read_numbers(draft, "resources", entries, _RESOURCES))


def read_confirm(draft: Draft, entries: Entries) -> None:
    """`workers: N`: whether, and with how many workers, the winner is trained once more."""
    if not entries:
        return
    values = _read_numbers(draft, "confirm", entries, _CONFIRM)
    if "workers" not in entries:
        draft.wrong("confirm.workers", "is missing and has no default", None, draft.source)
    elif values:
        draft.confirm = Confirm(**values)


def read_evaluate(draft: Draft, entry: Entry | None) -> None:
    """The splits that trials are judged on: `NAME|PATH/SPLIT[>=GRADE][:SOURCE[>=GRADE]]...`."""
    if entry is None:
        draft.wrong("evaluate", "is missing: list splits, such as nq/test", None, draft.source)
        return
    listed = entry.value if isinstance(entry.value, list) else []
    if not listed:
        draft.wrong("evaluate", "must list splits, such as [nq/test]", entry.value, entry.place())
    found: dict[str, Ref] = {}
    for index, text in enumerate(listed):
        place = entry.place(index)
        refs, problems = check_refs("evaluate", text, place)
        draft.problems += problems
        for ref in refs:
            if ref.label in found:
                rule = f"is the second split called {ref.label}, a name that metrics need for one"
                draft.wrong("evaluate", rule, text, place)
            found[ref.label] = ref
    draft.evaluate = tuple(found.values())


def read_select(draft: Draft, entries: Entries) -> None:
    """`maximize: NAME|PATH/SPLIT/METRIC` on a dev split, needed when something is tuned; and
    `equal_within: NUMBER`."""
    others = {key: entry for key, entry in entries.items() if key != "maximize"}
    margin = _read_numbers(draft, "select", others, _SELECT)
    if "maximize" in entries:
        entry = entries["maximize"]
        if isinstance(entry.value, str) and "/" in entry.value:
            chosen = _select(draft, entry.value, entry.place())
            draft.select = None if chosen is None else replace(chosen, **margin)
        else:
            rule = "must be a split and a metric, such as nq/dev/mrr_at_10"
            draft.wrong("select.maximize", rule, entry.value, entry.place())
    elif "tune" in draft.blocks.values() or others:
        why = "tune needs" if "tune" in draft.blocks.values() else "select needs"
        rule = f"is missing: {why} a metric on a dev split to choose by, such as nq/dev/mrr_at_10"
        draft.wrong("select.maximize", rule, None, draft.source)


def read_watch(draft: Draft, entries: Entries) -> None:
    """`split: NAME|PATH/SPLIT, every: STEPS, passages: N`: a dev split scored in training."""
    if not entries:
        return
    ref = None
    if "split" in entries:
        entry = entries["split"]
        ref, problems = check_ref("watch.split", entry.value, entry.place())
        draft.problems += problems
        if ref is not None and not is_dev(ref):
            rule = f"watches the split {ref.split!r}; only a dev or validation split may be watched"
            draft.wrong("watch.split", rule, entry.value, entry.place())
    rest = {key: entry for key, entry in entries.items() if key != "split"}
    values = _read_numbers(draft, "watch", rest, _WATCH)
    for key in ("split", "every"):
        if key not in entries:
            draft.wrong(f"watch.{key}", "is missing and has no default", None, draft.source)
    size = values.get("passages")
    if ref is not None and size is not None:
        draft.problems += check_part("watch.passages", size, ref, entries["passages"].place())
    if ref is not None and "every" in values:
        draft.watch = Watch(ref, **values)


def read_stop(draft: Draft, entries: Entries) -> None:
    """`rule: asha|median|sequential` with that rule's settings: trials that are stopped early."""
    if not entries:
        return
    named = entries.get("rule")
    rule = RULES.get(named.value) if named and isinstance(named.value, str) else None
    if rule is None:
        given = named.value if named else None
        text = f"{'is unknown' if named else 'is missing'}; known: {', '.join(RULES)}"
        place = named.place() if named else draft.source
        draft.wrong("stop.rule", text, given, place, nearest(str(given), RULES) if named else None)
        return
    own = {each.name: each for each in fields(rule)}
    rest = {key: entry for key, entry in entries.items() if key != "rule"}
    values = _read_numbers(draft, "stop", rest, {key: _STOP[key] for key in own})
    for key, each in own.items():
        if key not in entries and each.default is MISSING:
            what = f": {' or '.join(get_args(Among))}" if key == "among" else ""
            why = f"is missing and has no default{what}"
            draft.wrong(f"stop.{key}", why, None, draft.source)
    if values.keys() == (rest.keys() & own.keys()) and all(
        key in values or each.default is not MISSING for key, each in own.items()
    ):
        draft.stop = rule(**values)


def read_exclude(draft: Draft, entry: Entry | None) -> None:
    """`[{when: {KEY: VALUE or [VALUES]}, reason: TEXT}]`: cells that are left out, and why."""
    if entry is None:
        return
    if not isinstance(entry.value, list):
        draft.wrong("exclude", "must be a list of {when, reason}", entry.value, entry.place())
        return
    rules = []
    for index, item in enumerate(entry.value):
        place = entry.place(index)
        if not isinstance(item, dict) or set(item) != {"when", "reason"}:
            draft.wrong("exclude", "an item holds exactly when and reason", item, place)
        elif not isinstance(item["reason"], str) or not item["reason"].strip():
            draft.wrong("exclude", "a reason must be text", item["reason"], place)
        else:
            when = read_conditions(draft, entry.inner(index).inner("when"))
            rules.append(Exclusion(when, item["reason"].strip()))
    draft.exclude = tuple(rule for rule in rules if rule.when)


def read_conditions(draft: Draft, entry: Entry) -> dict[str, tuple[Scalar, ...]]:
    """Compared keys with some of their values; others are mistakes."""
    if not entry.entries():
        rule = "must map compared keys to values"
        draft.wrong("when", rule, entry.value, entry.place())
    conditions = {}
    for key, inner in entry.entries().items():
        known = _compared_values(draft, key)
        if not known and key in draft.changed and key in draft.fixed:
            known = [draft.fixed[key]]
        if not known:
            compared = [key for axis in draft.compare for key in axis.keys]
            compared += [axis.name for axis in draft.compare if axis.names]
            rule = f"is not compared; compared: {', '.join(compared) or 'nothing'}"
            draft.wrong(key, rule, None, inner.place(), nearest(key, compared))
            continue
        listed = inner.value if isinstance(inner.value, list) else [inner.value]
        for value in listed:
            if value not in known and key not in draft.changed:
                texts = list(dict.fromkeys(map(str, known)))
                rule = f"is not among the compared values {', '.join(texts)}"
                draft.wrong(key, rule, value, inner.place(), nearest(str(value), texts))
        conditions[key] = tuple(listed)
    return conditions


def _compared_values(draft: Draft, key: str) -> list[Scalar]:
    """The values of a compared key, or the names of a label's options."""
    named = [name for axis in draft.compare if axis.name == key for name in axis.names]
    options = [option for axis in draft.compare for option in axis.options]
    return [*named, *(option[key] for option in options if key in option)]


def _select(draft: Draft, text: str, place: str) -> Select | None:
    written, _, name = text.rpartition("/")
    key = "select.maximize"
    metric = None
    try:
        metric = parse_metric(name, key, place)
    except InvalidInput as error:
        draft.problems += error.problems
    if metric is not None and not metric.higher_is_better:
        draft.wrong(key, "is better when it is small and cannot be maximized", name, place)
    if metric is not None and (metric.cutoff or 0) > DEPTH:
        draft.wrong(key, f"reads below the end of a run, which is {DEPTH} deep", name, place)
    ref, problems = check_ref(key, written, place)
    draft.problems += problems
    if ref is not None and not is_dev(ref):
        rule = f"selects on the split {ref.split!r}; only a dev or validation split may select"
        draft.wrong(key, rule, text, place)
    return None if ref is None or metric is None else Select(ref, metric.name)


def _read_numbers(
    draft: Draft, block: str, entries: Entries, known: Mapping[str, TypeAdapter[Any]]
) -> dict[str, Any]:
    values = {}
    for key, entry in entries.items():
        dotted = f"{block}.{key}"
        draft.places[dotted] = entry.place()
        if key not in known:
            rule = f"is not a key of {block}; known: {', '.join(known)}"
            draft.wrong(dotted, rule, None, entry.place(), nearest(key, known))
            continue
        try:
            values[key] = known[key].validate_python(entry.value)
        except ValidationError as error:
            draft.problems.append(_number_problem(dotted, entry, error))
    return values


def _number_problem(key: str, entry: Entry, error: ValidationError) -> Problem:
    written = text_number(entry.value)
    if written is not None:
        rule = f"{written.rule}; write {written.nearest}"
        return Problem(key, rule, entry.value, None, entry.place())
    rule = error.errors()[0]["msg"].removeprefix("Input ")
    hint = nearest(str(entry.value), SEARCHES) if key == "budget.search" else None
    return Problem(key, rule, entry.value, hint, entry.place())


def read_settings(draft: Draft, blocks: Blocks) -> None:
    """Every block that holds no key of a trial; the others have been read before."""
    read_question(draft, blocks.plain.get("question"))
    read_budget(draft, blocks.keyed["budget"])
    read_select(draft, blocks.keyed["select"])
    read_evaluate(draft, blocks.plain.get("evaluate"))
    read_watch(draft, blocks.keyed["watch"])
    read_stop(draft, blocks.keyed["stop"])
    read_exclude(draft, blocks.plain.get("exclude"))
    read_resources(draft, blocks.keyed["resources"])
    read_confirm(draft, blocks.keyed["confirm"])
