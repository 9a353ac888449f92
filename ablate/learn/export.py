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

    Raises InvalidInput when the file's ending is neither .csv nor .parquet.
    """
    import pandas as pd

    if out.suffix not in FORMATS:
        raise InvalidInput([Problem("--out", "must end in .csv or .parquet", str(out))])
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
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        table.to_parquet(out, index=False)
    return len(table)
