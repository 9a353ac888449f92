"""docs/evaluation.md: the names that it lists are those that the code gives."""

from __future__ import annotations

import re
from pathlib import Path

from trainables.data.collections import parse_refs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def test_the_names_of_thresholds_and_judges() -> None:
    rows = re.findall(r"^\| `(nq/.*?)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for written, names in rows:
        (ref,) = parse_refs(written)
        labels = list(ref.marks(""))
        shown = labels if not ref.judges else labels[1:]
        assert re.findall("`(.*?)`", names) == [f"{label}/ndcg_at_10" for label in shown]
