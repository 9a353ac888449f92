"""What one key of a trial may hold, asked of TrialSpec itself and of what is registered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from trainables.errors import InvalidInput, Problem
from trainables.model.losses import LOSSES
from trainables.spec import Scalar, TrialSpec

STAND_INS: Mapping[str, Scalar] = {
    "data.train": "train",
    "data.machine_labels": "machine",
    "encoder.backbone": "backbone",
    "loss.name": next(iter(LOSSES)),
    "loss.temperature": 1.0,
    "optim.lr": 1.0,
    "optim.batch_size": 1,
    "optim.steps": 1,
}
"""A valid value for every key without a default, so that another key can be judged alone."""

PARAMS = "loss.params."


def check_value(key: str, value: object, place: str | None) -> tuple[Scalar, list[Problem]]:
    """The value of a known key as TrialSpec stores it (1 becomes 1.0 where it takes real numbers).

    The problems are those of this key alone; rules that join keys are checked on whole cells.
    """
    flat = {**STAND_INS, **_companions(key, value), key: value}
    try:
        return TrialSpec.from_flat(flat, place).to_flat()[key], []
    except InvalidInput as error:
        return None, [problem for problem in error.problems if problem.key == key]


def owners(key: str) -> tuple[str, ...]:
    """The losses that have the parameter `loss.params.NAME`."""
    name = key.removeprefix(PARAMS)
    return tuple(loss for loss, entry in LOSSES.items() if name in entry.params)


def without_foreign(values: Mapping[str, Scalar], loss: object) -> dict[str, Scalar]:
    """`values` without the parameters of other losses than `loss`."""
    return {
        key: value
        for key, value in values.items()
        if not key.startswith(PARAMS) or loss in owners(key)
    }


@lru_cache(maxsize=1)
def _templates() -> Mapping[str, Mapping[str, Scalar]]:
    """Of each loss, every key of a trial with its default; null where there is none."""
    found = {}
    for loss in LOSSES:
        flat = TrialSpec.from_flat({**STAND_INS, "loss.name": loss}).to_flat()
        found[loss] = {key: None if key in STAND_INS else value for key, value in flat.items()}
    return found


def complete(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The flat form of a trial, every key present: what TrialSpec would make of `values`.

    The values are those that `check_value` returned, and every key without a default is there.
    """
    loss = str(values["loss.name"])
    return {**_templates()[loss], **without_foreign(values, loss)}


def _companions(key: str, value: object) -> dict[str, Scalar]:
    """What must stand beside the key for it to be judged alone."""
    if key.startswith(PARAMS):
        return {"loss.name": owners(key)[0]}
    if key == "optim.epochs" and value is not None:
        return {"optim.steps": None}
    if key == "optim.steps" and value is None:
        return {"optim.epochs": 1.0}
    return {}
