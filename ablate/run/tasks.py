"""What a trial is told, in words that mean the same in every folder and on every node."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.plan.parts import Study
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from trainables.data.collections import anywhere, parse_ref

WATCHED: tuple[str, ...] = ("mrr_at_10", "ndcg_at_10", "recall_at_100")
"""Metrics of a split that is watched in training, beside the one that selects."""


def watched(study: Study) -> dict[str, Any] | None:
    """What the study's trials score while they train, as a TrialTask takes it; None for nothing."""
    if study.watch is None:
        return None
    ref = study.watch.ref
    names = WATCHED if study.select is None else (study.select.metric, *WATCHED)
    return {
        "split": moved(str(ref), ref.collection),
        "every": study.watch.every,
        "passages": study.watch.passages,
        "metrics": list(dict.fromkeys(names)),
    }


def looks_place(plan: Plan, ledger: Ledger, trial_id: str) -> str | None:
    """Where a trial of the plan keeps its looks; None when nothing is watched.

    Looks at another split, part, metric or content have another place.
    """
    key = watched_key(plan)
    if plan.study.watch is None or key is None:
        return None
    content = f"{key} {plan.fingerprints[plan.study.watch.ref.collection]}"
    name = hashlib.sha256(content.encode()).hexdigest()[:12]
    return ledger.store.uri_of(f"trials/{trial_id}/looks/{name}")


def watched_key(plan: Plan) -> str | None:
    """The watched metric that trials are judged by: the one that selects, on the watched split."""
    watch, select = plan.study.watch, plan.study.select
    return None if watch is None or select is None else f"{watch.label}/{select.metric}"


def anywhere_spec(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with absolute paths, so that it means the same in every working directory."""
    train = str(flat["data.train"])
    backbone = str(flat["encoder.backbone"])
    place = Path(backbone).expanduser()
    return {
        **flat,
        "data.train": moved(train, parse_ref(train, "train").collection),
        "encoder.backbone": str(place.absolute()) if place.exists() else backbone,
    }


def moved(text: str, collection: str) -> str:
    """`text`, which begins with `collection`, in a form for every working directory."""
    return anywhere(collection) + text[len(collection) :]
