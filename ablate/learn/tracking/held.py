"""What MLflow holds already, against what it should: what stays, and what cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.learn.tracking.tracked import READING, REASON, TrackedRun

NOTE = "mlflow.note.content"


def has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether the tags hold all the wanted ones."""
    return all(tags.get(key) == value for key, value in wanted.items())


def without_foreign_note(wanted: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The wanted tags, without the note where somebody wrote one of their own."""
    own = NOTE not in tags or READING in tags[NOTE]
    return {key: value for key, value in wanted.items() if own or key != NOTE}


def superseded(
    before: Any, run: TrackedRun, params: Mapping[str, str], tags: Mapping[str, str]
) -> bool:
    """Whether the MLflow run `before` must make way for a new one: a parameter never changes there,
    and a metric never goes.

    A trial that failed or was stopped, and is run again, is another attempt: it gets a run without
    what the attempt before left. So does a cell or study that has lost a metric, such as the spread
    over seeds of which one is left.
    """
    known, reason = before.data.params, before.data.tags.get(REASON)
    if run.trial is None:
        another = not before.data.metrics.keys() <= run.metrics.keys()
    else:
        another = reason not in (None, tags.get(REASON))
    return another or any(known.get(key, value) != value for key, value in params.items())
