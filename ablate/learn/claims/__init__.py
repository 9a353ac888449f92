"""Claims: hypotheses written down as YAML, each judged on a study as holds, fails or undecided."""

from __future__ import annotations

from ablate.learn.claims.judge import Finding, Verdict, judge
from ablate.learn.claims.read import claim_presets, find_claims, load_claims
from ablate.learn.claims.values import Between, Claim, Contrast, OneOf, Selector

__all__ = [
    "Between",
    "Claim",
    "Contrast",
    "Finding",
    "OneOf",
    "Selector",
    "Verdict",
    "claim_presets",
    "find_claims",
    "judge",
    "load_claims",
]
