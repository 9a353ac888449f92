"""`--set KEY=VALUE`: changes to a study as written, before it is read.

A scalar makes a trial's key fixed, wherever it stood; a list replaces the list of its block, or
makes the key compared; a mapping such as `{log_uniform: [1.0e-6, 1.0e-4]}` makes it tuned.
`BLOCK.KEY` says the block outright (`tune.optim.lr=[...]`). Other keys are `budget.*`,
`resources.*`, `confirm.workers`, `watch.*`, `stop.*`, `select.maximize`, `evaluate`, `exclude`
and `question`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ablate.plan.document import Document, Entry, read_value
from ablate.plan.draft import PLAIN, Blocks
from ablate.plan.settings import SETTINGS
from trainables.errors import InvalidInput, Problem, nearest
from trainables.spec import KEYS, LOSS_PARAMS, is_key

HOLDERS: tuple[str, ...] = ("fixed", "compare", "tune", "repeat")
"""The blocks that hold a trial's keys."""


def changed_keys(sets: Mapping[str, str]) -> frozenset[str]:
    """The keys of trials that `sets` changes, without their blocks."""
    parts = {key: key.partition(".") for key in sets}
    return frozenset(
        rest if head in HOLDERS and rest else key for key, (head, _, rest) in parts.items()
    )


def apply_sets(blocks: Blocks, sets: Mapping[str, str]) -> list[Problem]:
    """Changes `blocks` as `sets` says, text parsed as YAML; returns the mistakes in `sets`."""
    problems: list[Problem] = []
    drawn_before = _draws(blocks)
    for key, text in sets.items():
        place = f"--set {key}={text}"
        try:
            value = read_value(text, place)
        except InvalidInput as error:
            problems += error.problems
            continue
        problems += _apply(blocks, key, Entry(value, Document(place, value)))
    if drawn_before and not _draws(blocks):
        for name in {"draws_per_cell", "search"} - {key.removeprefix("budget.") for key in sets}:
            blocks.keyed["budget"].pop(name, None)
    return problems


def _apply(blocks: Blocks, key: str, entry: Entry) -> list[Problem]:
    block, _, rest = key.partition(".")
    if key in PLAIN:
        blocks.plain[key] = entry
    elif key in SETTINGS:
        blocks.keyed[block][rest] = entry
    elif block in HOLDERS and rest:
        _move(blocks, rest, block, entry)
    elif is_key(key) or key in blocks.keyed["compare"]:
        return _replace(blocks, key, entry)
    else:
        return [_unknown(blocks, key, entry.place())]
    return []


def _replace(blocks: Blocks, key: str, entry: Entry) -> list[Problem]:
    """Puts a trial's key, or a compared label, into the block that its value asks for."""
    value = entry.value
    bundle = _bundle_of(blocks, key)
    if bundle is not None:
        rule = f"is compared together with others in {bundle}; keep some of them with --only"
        return [Problem(key, rule, value, None, entry.place())]
    standing = next((name for name in HOLDERS if key in blocks.keyed[name]), None)
    if key == "seed":
        listed = value if isinstance(value, list) else [value]
        _move(blocks, key, "repeat", Entry(listed, entry.document))
    elif isinstance(value, dict):
        _move(blocks, key, "tune", entry)
    elif not isinstance(value, list):
        _move(blocks, key, "fixed", entry)
    else:
        _move(blocks, key, "tune" if standing == "tune" else "compare", entry)
    return []


def _move(blocks: Blocks, key: str, target: str, entry: Entry) -> None:
    for name in HOLDERS:
        if name != target:
            blocks.keyed[name].pop(key, None)
    blocks.keyed[target][key] = entry


def _bundle_of(blocks: Blocks, key: str) -> str | None:
    for label, entry in blocks.keyed["compare"].items():
        value = entry.value
        options = list(value.values()) if isinstance(value, dict) else value
        if isinstance(options, list) and any(
            isinstance(option, dict) and key in option for option in options
        ):
            return label
    return None


def _draws(blocks: Blocks) -> bool:
    """Whether something is drawn at random."""
    values = [entry.value for entry in blocks.keyed["tune"].values()]
    return any(isinstance(value, dict) and "grid" not in value for value in values)


def _unknown(blocks: Blocks, key: str, place: str) -> Problem:
    known = (*KEYS, *LOSS_PARAMS, *SETTINGS, *PLAIN, *blocks.keyed["compare"])
    rule = "is not a key of a trial or a study"
    return Problem(key, rule, None, nearest(key, known), place)
