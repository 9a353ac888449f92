"""A study as YAML text, all overrides applied: what is kept beside the results."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from ablate.plan.parts import Axis, Select, Study, Watch


def write_study(study: Study) -> str:
    """The YAML text of a study; reading it gives an equal study, but for `only`."""
    blocks: dict[str, Any] = {
        "question": study.question,
        "fixed": dict(study.fixed),
        "compare": {axis.name: _options(axis) for axis in study.compare},
        "tune": {key: space.to_yaml() for key, space in study.tune.items()},
        "repeat": {"seed": list(study.seeds)},
        "budget": {k: v for k, v in asdict(study.budget).items() if v is not None},
        "select": _select(study.select) if study.select else {},
        "evaluate": [str(ref) for ref in study.evaluate],
        "watch": _watch(study.watch) if study.watch else {},
        "stop": {"rule": study.stop.name, **asdict(study.stop)} if study.stop else {},
        "exclude": [
            {
                "when": {key: list(values) for key, values in rule.when.items()},
                "reason": rule.reason,
            }
            for rule in study.exclude
        ],
        "resources": asdict(study.resources),
        "confirm": asdict(study.confirm) if study.confirm else {},
    }
    written = {name: block for name, block in blocks.items() if block}
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=96)


def _watch(watch: Watch) -> dict[str, Any]:
    written = {"split": str(watch.ref), "every": watch.every, "passages": watch.passages}
    return {key: value for key, value in written.items() if value is not None}


def _select(select: Select) -> dict[str, Any]:
    margin = {} if select.equal_within is None else {"equal_within": select.equal_within}
    return {"maximize": f"{select.ref}/{select.metric}", **margin}


def _options(axis: Axis) -> list[Any] | dict[str, Any]:
    if axis.names:
        options = zip(axis.names, axis.options, strict=True)
        return {name: dict(option) for name, option in options}
    if axis.bundled:
        return [dict(option) for option in axis.options]
    return [option[axis.name] for option in axis.options]
