"""How runs, settings and columns are written in MLflow, and in which colours they are drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ablate.learn.results import CellResult, Results, split_key

if TYPE_CHECKING:
    from trainables.spec import Scalar

MAIN_METRICS = ("mrr_at_10", "ndcg_at_10", "recall_at_100")
"""Metrics that get a text column of their own beside the primary one."""
LOSS = "loss.name"
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933",
)  # fmt: skip
"""Okabe and Ito's palette, alike with and without colour blindness, and one more."""
COLOUR = "mlflow.runColor"
"""Tag that MLflow draws a run by, in tables and in charts."""


def written(value: object) -> str:
    """A setting as MLflow's parameters hold it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, (int, float)) else str(value)


def safe_name(key: str) -> str:
    """The key in characters that MLflow takes in names."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def text_columns(results: Results) -> dict[str, str]:
    """Tag name -> metric key, of the metrics that cells show as text."""
    ref, primary = split_key(results.primary)
    columns = {primary: results.primary}
    for label, name in set_names(results).items():
        for metric in dict.fromkeys((primary, *MAIN_METRICS)):
            key = f"{label}/{metric}"
            if key in results.metric_keys and key != results.primary:
                columns[safe_name(metric if label == ref else f"{name} {metric}")] = key
    return columns


def trial_columns(results: Results) -> dict[str, str]:
    """Tag name -> metric key, of the scores that trials show as text: the primary one, and the one
    that selects. `test ndcg_at_10` says the split: before the choice the primary one is of dev."""
    select = results.study.select
    keys = [results.primary] if select is None else [results.primary, select.key]
    parts = {key: split_key(key) for key in keys}
    return {
        safe_name(f"{ref.rpartition('/')[2]} {name}"): key for key, (ref, name) in parts.items()
    }


def set_names(results: Results) -> dict[str, str]:
    """Reference -> a short name of its own, the primary metric's reference first.

    `beir/scifact/test` is `scifact`, unless another reference would be called so too.
    """
    refs = dict.fromkeys([split_key(results.primary)[0], *results.test_refs])
    short = {label: label.split("/")[-2] if "/" in label else label for label in refs}
    names = list(short.values())
    return {label: name if names.count(name) == 1 else label for label, name in short.items()}


def loss_of(cell: CellResult) -> str:
    """The name of the cell's loss."""
    return loss_in(cell.trials[0].planned.flat) if cell.trials else "unknown"


def loss_in(flat: Mapping[str, Scalar]) -> str:
    """The name of the loss among the settings of a trial."""
    return written(flat.get(LOSS))


def colour(index: int) -> str:
    """One of the palette's colours; they begin again after the last."""
    return COLOURS[index % len(COLOURS)]


def loss_colour(results: Results, loss: str) -> str:
    """The colour that all runs of a loss have, the same on every page of the study."""
    known = [written(value) for value in results.settings(LOSS)]
    return colour(known.index(loss) if loss in known else len(known))
