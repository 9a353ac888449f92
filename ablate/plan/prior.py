"""How far scores scatter by chance, as a plan assumes it or as earlier trials showed it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """How much two cells of equal quality differ by chance, in units of the metric (0 to 1).

    `query_sd`: standard deviation over queries of the difference of two encoders' scores.
    `seed_sd`: standard deviation over seeds of one cell's mean score. The defaults are guesses for
    MRR@10 and nDCG@10. `query_trials` and `seed_trials` are how many earlier trials on `label` a
    value was measured on; 0 for a guess.
    """

    query_sd: float = 0.25
    seed_sd: float = 0.005
    query_trials: int = 0
    seed_trials: int = 0
    label: str = ""

    def __str__(self) -> str:
        queries, seeds = f"{self.query_sd:.2g} over queries", f"{self.seed_sd:.2g} over seeds"
        if not self.query_trials:
            return f"assumed spread {queries}, {seeds}"
        found = f"from {self.query_trials:,} earlier trials on {self.label}"
        if not self.seed_trials:
            return f"spread {queries} {found}, assumed {seeds}"
        if self.seed_trials == self.query_trials:
            return f"spread {queries}, {seeds} {found}"
        return f"spread {queries} {found}, {seeds} from {self.seed_trials:,} of them"
