"""One table of everything: a row per planned trial, for whatever tool comes next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from ablate.learn.results import Results

FORMATS = (".csv", ".parquet")


def export_trials(results: Results, out: Path) -> int:
    """Write trial_id, cell, state, reason, every spec key and every final metric; returns rows.

    Raises InvalidInput when the file's ending is neither .csv nor .parquet, or no file can be
    written there.
    """
    import pandas as pd

    _check(out)
    rows = [
        {
            "trial_id": trial.trial_id,
            "cell": trial.cell,
            "draw": trial.planned.draw,
            "state": trial.state,
            "reason": trial.reason,
            **trial.planned.flat,
            **trial.metrics,
        }
        for trial in results.trials
    ]
    table = pd.DataFrame(rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            table.to_csv(out, index=False)
        else:
            table.to_parquet(out, index=False)
    except PermissionError as error:
        rule = f"cannot be written: {error.strerror}"
        raise InvalidInput([Problem("--out", rule, str(out))]) from None
    return len(table)


def _check(out: Path) -> None:
    """Raises InvalidInput when `out` can be no table's file."""
    shown, rule, near = str(out), "", None
    above = next((place for place in out.parents if place.exists()), Path())
    if out.suffix not in FORMATS:
        rule, near = "must end in .csv or .parquet", f"{out.with_suffix('')}.csv"
    elif out.is_dir():
        rule, near = "must be a file, and is a folder", str(out / f"trials{out.suffix}")
    elif not above.is_dir():
        rule, near = f"must lie in a folder; {above} is a file", str(above.with_name(out.name))
    if rule:
        raise InvalidInput([Problem("--out", rule, shown, near)])
