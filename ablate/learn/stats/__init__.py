"""What differences are real: paired effects, intervals and verdicts from per-query scores.

The scores of a cell are an array [seeds, queries]; seeds nest in cells, queries are shared by all
of them. `compare` is the door; `cells.py` states the model, `seeds.py` and `errors.py` how it is
estimated.
"""

from __future__ import annotations

from ablate.learn.stats.cells import Scores, mean_of_sets
from ablate.learn.stats.curves import BreakEven, FrontPoint, break_even, pareto
from ablate.learn.stats.design import Design, Level
from ablate.learn.stats.errors import Scope
from ablate.learn.stats.importance import Effect, importance
from ablate.learn.stats.interactions import (
    Interaction,
    Profile,
    Winner,
    interaction,
    profiles,
    winners,
)
from ablate.learn.stats.pairs import Comparison, Equivalence, compare, equivalent
from ablate.learn.stats.permutation import Permutation, sign_flip
from ablate.learn.stats.power import power_of, queries_needed, seeds_needed, smallest_effect
from ablate.learn.stats.seeds import NoiseFloor, Variances, seed_noise_floor, variance_components
from ablate.learn.stats.selection import WinnersCurse, winners_curse
from ablate.learn.stats.sequential import confidence_sequence
from ablate.learn.stats.slices import Slice, slices
from ablate.learn.stats.summaries import Summary, cell_summaries, cell_summary
from ablate.learn.stats.tables import Table

__all__ = [
    "BreakEven",
    "Comparison",
    "Design",
    "Effect",
    "Equivalence",
    "FrontPoint",
    "Interaction",
    "Level",
    "NoiseFloor",
    "Permutation",
    "Profile",
    "Scope",
    "Scores",
    "Slice",
    "Summary",
    "Table",
    "Variances",
    "Winner",
    "WinnersCurse",
    "break_even",
    "cell_summaries",
    "cell_summary",
    "compare",
    "confidence_sequence",
    "equivalent",
    "importance",
    "interaction",
    "mean_of_sets",
    "pareto",
    "power_of",
    "profiles",
    "queries_needed",
    "seed_noise_floor",
    "seeds_needed",
    "sign_flip",
    "slices",
    "smallest_effect",
    "variance_components",
    "winners",
    "winners_curse",
]
