"""Run folders of an older form: a threshold stood in the marks of judges, not in the labels.

There `nq/test` may be `nq/test>=2`, and the mark `FINGERPRINT 2 SOURCE>=2` of a judge beside it is
what tells. Such records are read under the labels of today, and their files found, so that they
stay valid. A record without a judge does not tell and is read as of grade 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainables.data.collections.refs import graded

if TYPE_CHECKING:
    from ablate.run.store import Store

_MARK = re.compile(r"(?P<fingerprint>\S+) (?P<own>\d+) [^>\s]+(>=(?P<judge>\d+))?")


def renamed(evaluated: Mapping[str, str]) -> dict[str, str]:
    """Label as it is written -> label of today, for those of `evaluated` that an older form
    wrote without their thresholds."""
    names = {}
    for label, mark in evaluated.items():
        found = _MARK.fullmatch(mark)
        if found is not None:
            split, kind, source = label.rsplit(":", 2)
            own = graded(split, int(found["own"]))
            names[split] = own
            names[label] = graded(f"{own}:{kind}:{source}", int(found["judge"] or 1))
    return {old: new for old, new in names.items() if old != new}


def marks_of_today(evaluated: Mapping[str, str]) -> dict[str, str]:
    """`evaluated` under the labels of today, each with its collection's fingerprint alone."""
    names = renamed(evaluated)
    return {names.get(label, label): mark.partition(" ")[0] for label, mark in evaluated.items()}


def slug(ref_label: str) -> str:
    """The folder name of a reference: `nq/test` -> `nq__test`."""
    return ref_label.replace("/", "__")


def slug_of(store: Store, home: str, label: str) -> str:
    """The name of the folder below `home` that holds the scores on `label`, today's or older."""
    name, older = slug(label), slug(re.sub(r":grade-\d+", "", label))
    if name == older or store.exists(f"{home}/{name}"):
        return name
    return older if store.exists(f"{home}/{older}") else name


def settle(store: Store, home: str, evaluated: Mapping[str, str]) -> None:
    """Move the scores below `home` to the folders that their labels name today, so that scores
    of another threshold can stand beside them."""
    for label in evaluated:
        found = slug_of(store, home, label)
        folder = store.fetch(f"{home}/{found}", store.scratch()) if found != slug(label) else None
        if folder is not None:
            store.publish(folder, f"{home}/{slug(label)}")


def record_of_today(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields, its scores under the labels of today."""
    names = renamed(content["evaluated"])
    metrics = {}
    for key, value in content["metrics"].items():
        label, slash, metric = key.rpartition("/")
        metrics[f"{names.get(label, label)}{slash}{metric}"] = value
    return {**content, "metrics": metrics, "evaluated": marks_of_today(content["evaluated"])}
