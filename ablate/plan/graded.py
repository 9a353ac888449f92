"""How many queries of a split have a passage of which grade: read from a small file of judgements.

A query is scored at a threshold when the best of its passages is graded so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from trainables.data.collections import Ref, anywhere
from trainables.errors import Problem

MOST_READ = 64 << 20
"""Bytes of a file that is looked through while a study is planned."""


def best_grades(file: Path) -> Mapping[int, int]:
    """Best grade -> queries whose best passage has it, of BEIR's or TREC's judgements."""
    return _read(file, file.stat().st_mtime_ns)


def at_least(grades: Mapping[int, int], min_grade: int) -> int:
    """How many queries have a passage graded `min_grade` or better."""
    return sum(count for grade, count in grades.items() if grade >= min_grade)


def check_grade(key: str, ref: Ref, place: str | None) -> list[Problem]:
    """Whether the threshold of `ref` leaves a query, where that is soon known."""
    file = Path(anywhere(ref.collection)).expanduser() / "qrels" / f"{ref.split}.tsv"
    if ref.min_grade == 1 or not file.is_file() or file.stat().st_size > MOST_READ:
        return []
    grades = best_grades(file)
    if at_least(grades, ref.min_grade) or not grades:
        return []
    best = max(grades)
    rule = f"has no query with a passage graded {ref.min_grade} or more; the best grade is {best}"
    near = f"{ref.collection}/{ref.split}>={best}" if best > 1 else f"{ref.collection}/{ref.split}"
    return [Problem(key, rule, str(ref), near, place)]


@lru_cache(maxsize=256)
def _read(file: Path, written: int) -> Mapping[int, int]:
    best: dict[bytes, int] = {}
    with file.open("rb") as opened:
        for line in opened:
            fields = line.strip().split(b"\t" if b"\t" in line else None)
            if fields and fields[-1].strip().lstrip(b"-").isdigit():
                grade = int(fields[-1])
                best[fields[0]] = max(grade, best.get(fields[0], grade))
    return Counter(best.values())
