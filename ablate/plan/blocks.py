"""Readers of the blocks that hold a trial's keys: fixed, compare, tune and repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

from ablate.plan.document import Entry
from ablate.plan.draft import Draft
from ablate.plan.keys import PARAMS, check_value, owners
from ablate.plan.parts import Axis
from ablate.plan.space import Choice, Fixed, Grid, Integer, LogUniform, Space, Uniform, parse_space
from trainables.errors import InvalidInput
from trainables.spec import Scalar, is_key

Entries = Mapping[str, Entry]


def read_fixed(draft: Draft, entries: Entries) -> None:
    """`KEY: VALUE`: one value for every trial."""
    for key, entry in entries.items():
        place = entry.place()
        if not draft.claim(key, "fixed", place):
            continue
        if isinstance(entry.value, (list, dict)):
            rule = "is fixed and takes one value; several belong in compare or tune"
            draft.wrong(key, rule, entry.value, place)
            draft.broken.add(key)
        else:
            draft.fixed[key] = draft.value(key, entry.value, place)


def read_compare(draft: Draft, entries: Entries) -> None:
    """`KEY: [values]`; or, for keys that belong together, `LABEL: [{KEY: value, ...}, ...]`.

    The options of a label may have names: `LABEL: {NAME: {KEY: value, ...}, ...}`.
    """
    for name, entry in entries.items():
        value = entry.value
        items = _items(entry)
        options = list(value.values()) if isinstance(value, dict) else items
        if options and not is_key(name) and all(isinstance(option, dict) for option in options):
            _read_bundle(draft, name, entry, list(value) if isinstance(value, dict) else [])
        elif not draft.claim(name, "compare", entry.place()):
            continue
        elif items:
            _read_axis(draft, name, entry, items)
        else:
            rule = "is compared and needs a list of values; one value belongs in fixed"
            draft.wrong(name, rule, value, entry.place())
            draft.broken.add(name)


def read_tune(draft: Draft, entries: Entries) -> None:
    """`KEY: SPACE`: values that are drawn, or listed, alike for every cell."""
    for key, entry in entries.items():
        place = entry.place()
        if not draft.claim(key, "tune", place):
            continue
        try:
            space = parse_space(entry.value)
        except InvalidInput as error:
            draft.adopt(error, key, place)
            draft.broken.add(key)
            continue
        checked = _checked_space(draft, key, space, entry)
        if checked is None:
            draft.broken.add(key)
        else:
            draft.tune[key] = checked


def read_repeat(draft: Draft, entries: Entries) -> None:
    """`seed: [0, 1, 2]`: the seeds that every chosen trial is repeated with."""
    for key, entry in entries.items():
        place = entry.place()
        value = entry.value
        if key != "seed":
            draft.wrong(key, "cannot be repeated; repeat holds seed alone", None, place)
        elif not isinstance(value, list) or not value:
            draft.wrong(key, "needs a list of whole numbers, such as [0, 1, 2]", value, place)
        elif draft.claim(key, "repeat", place):
            seeds = _values(draft, key, entry, value)
            draft.seeds = tuple(seed for seed in seeds if isinstance(seed, int))
    if "seed" not in entries:
        rule = "is missing: repeat: {seed: [0, 1, 2]}"
        draft.wrong("repeat", rule, None, draft.source)


def _read_axis(draft: Draft, key: str, entry: Entry, listed: Sequence[object]) -> None:
    values = _values(draft, key, entry, listed)
    if values:
        draft.compare.append(Axis(key, tuple({key: value} for value in values)))


def _values(draft: Draft, key: str, entry: Entry, listed: Sequence[object]) -> list[Scalar]:
    """The valid ones of the listed values, each once; the key is broken when there is none."""
    found: dict[tuple[bool, Scalar], Scalar] = {}
    for index, item in enumerate(listed):
        place = entry.place(index)
        before = len(draft.problems)
        value = draft.value(key, item, place)
        if len(draft.problems) > before:
            continue
        if (isinstance(value, bool), value) in found:
            draft.wrong(key, "is listed twice", item, place)
        found[isinstance(value, bool), value] = value
    if found:
        draft.broken.discard(key)
    return list(found.values())


def _read_bundle(draft: Draft, label: str, entry: Entry, names: Sequence[str]) -> None:
    """Options that set several keys each; but for a loss's own parameters, all set the same."""
    inner = [entry.inner(step) for step in names or range(len(_items(entry)))]
    options = [option.entries() for option in inner]
    places = {key: option[key].place() for option in reversed(options) for key in option}
    keys = dict.fromkeys(key for option in options for key in option)
    known = [key for key in keys if draft.claim(key, "compare", places[key])]
    read: list[dict[str, Scalar]] = []
    for index, option in enumerate(options):
        for key in known:
            if key not in option and not key.startswith(PARAMS):
                rule = f"is set by other options of {label} and missing in this one"
                draft.wrong(key, rule, None, inner[index].place())
        present = [key for key in known if key in option]
        values = {key: draft.value(key, option[key].value, option[key].place()) for key in present}
        _refuse_foreign(draft, values, option)
        if values in read:
            draft.wrong(label, "lists an option twice", values, inner[index].place())
        read.append(values)
    draft.compare.append(Axis(label, tuple(read), tuple(names)))


def _items(entry: Entry) -> list[object]:
    return entry.value if isinstance(entry.value, list) else []


def _refuse_foreign(draft: Draft, values: Mapping[str, Scalar], option: Entries) -> None:
    """Within one option a parameter must be one of the option's own loss."""
    loss = values.get("loss.name")
    for key, value in values.items():
        if loss is not None and key.startswith(PARAMS) and loss not in owners(key):
            rule = f"is not a parameter of {loss}, but of {', '.join(owners(key))}"
            draft.wrong(key, rule, value, option[key].place())


def _checked_space(draft: Draft, key: str, space: Space, entry: Entry) -> Space | None:
    """The space with its values as a trial stores them; None when there is a mistake."""
    if isinstance(space, Fixed):
        rule = "has one value and is not tuned; write it in fixed"
        draft.wrong(key, rule, space.value, entry.place())
        return None
    if isinstance(space, (Grid, Choice)):
        listed = entry.inner(space.kind) if isinstance(entry.value, dict) else entry
        values = _values(draft, key, listed, space.values)
        return type(space)(tuple(values)) if values else None
    return space if _bounds_fit(draft, key, space, entry.place()) else None


def _bounds_fit(
    draft: Draft, key: str, space: Union[Uniform, LogUniform, Integer], place: str
) -> bool:
    """Whether both bounds, and so all between, are values of `key` of the space's own type."""
    for bound in (space.low, space.high):
        value, problems = check_value(key, bound, place)
        rounded = not problems or check_value(key, round(bound), place)[1]
        if not rounded:
            rule = "takes whole numbers; write {integer: [low, high]}"
            draft.wrong(key, rule, space.to_yaml(), place)
            return False
        if problems:
            draft.problems += problems
            return False
        if type(value) is not type(bound):
            rule = "takes real numbers; write {uniform: [low, high]}"
            draft.wrong(key, rule, space.to_yaml(), place)
            return False
    return True
