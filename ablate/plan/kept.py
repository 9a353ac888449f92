"""What a plan asks for beside what a run folder holds: the keys in which the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import Problem


def differences(asked: Mapping[str, Any], kept: Mapping[str, Any]) -> list[Problem]:
    """A problem for each key whose values differ between two plans, each as `Plan.to_json`."""
    new, old = _values(asked), _values(kept)
    keys = [key for key in dict.fromkeys((*new, *old)) if new.get(key) != old.get(key)]
    return [
        Problem(key, f"was {_shown(old.get(key))} in the run", new.get(key, "nothing"))
        for key in keys
    ]


def _values(plan: Mapping[str, Any]) -> dict[str, Any]:
    """By key what a trial may have: one value, a list of those compared, or a space."""
    compared: dict[str, list[Any]] = {}
    for cell in plan.get("cells", ()):
        for key, value in cell["values"].items():
            seen = compared.setdefault(key, [])
            if value not in seen:
                seen.append(value)
    content = {f"content of {name}": mark for name, mark in plan.get("fingerprints", {}).items()}
    seeds = plan.get("seeds")
    return {**plan.get("fixed", {}), **compared, **plan.get("tune", {}), "seed": seeds, **content}


def _shown(value: object) -> str:
    return "not given" if value is None else repr(value)
