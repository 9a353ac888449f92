"""The README's tables, made from the registries: `python tests/readme_tables.py` rewrites them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from studies import findings

from ablate.plan.presets import presets
from trainables.data.collections import COLLECTIONS
from trainables.model.losses import LOSSES

README = Path(__file__).resolve().parents[1] / "README.md"
READS = {"best": "the best-ranked", "drawn": "one, drawn each epoch", "all": "all"}


def _losses() -> Iterator[str]:
    yield "| loss | per query | positives read | what it does |"
    yield "|---|---|---|---|"
    for name, loss in LOSSES.items():
        equation = loss.equation.replace("|", "\\|").replace("`", "")
        yield f"| `{name}` | {equation} | {READS[loss.reads]} | {loss.summary} |"


def _presets() -> Iterator[str]:
    yield "| preset | question |"
    yield "|---|---|"
    for preset in presets():
        yield f"| `{preset.name}` | {preset.question} |"


def _collections() -> Iterator[str]:
    yield "| name | what it is | licence |"
    yield "|---|---|---|"
    for name, entry in COLLECTIONS.items():
        if "/" not in name or not name.startswith("beir/cqadupstack/"):
            yield f"| `{name}` | {entry.summary} | {entry.licence} |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "losses": _losses,
    "presets": _presets,
    "collections": _collections,
    "findings": findings,
}


def with_tables(text: str) -> str:
    """`text` with what stands between `<!-- table: NAME -->` and `<!-- end -->` made afresh."""
    for name, rows in TABLES.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        table = "\n".join(rows()) + "\n"
        text, count = pattern.subn(lambda found, t=table: found[1] + t + found[2], text)
        if count != 1:
            raise ValueError(f"README.md must hold the table {name} once, not {count} times")
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
