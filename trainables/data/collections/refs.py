"""Ref: one split of one collection, written `NAME|PATH[/SPLIT][>=GRADE][:SOURCE[>=GRADE]]...`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from trainables.data.collections.registry import (
    is_collection,
    parts_of,
    short_name,
    splits_of,
    unknown_collection,
)
from trainables.errors import InvalidInput, Problem, unknown

MACHINE, UNION = "machine", "union"

_LABEL = re.compile(
    r"(?P<split>.+?)(:grade-[0-9]+)?"
    rf"(:({MACHINE}|{UNION}):[^:]+(:grade-[0-9]+)?|:[0-9]+-passages)?"
)


@dataclass(frozen=True)
class JudgeRef:
    """A further source of judgements; its positives are graded `min_grade` or better."""

    source: str
    min_grade: int = 1

    def __str__(self) -> str:
        return self.source if self.min_grade == 1 else f"{self.source}>={self.min_grade}"


@dataclass(frozen=True)
class Ref:
    """A split of a collection; passages graded `min_grade` or better are its positives.

    `judges` are the sources that judge the same run beside the split's own judgements.
    """

    collection: str
    split: str
    min_grade: int = 1
    judges: tuple[JudgeRef, ...] = ()

    def __str__(self) -> str:
        grade = "" if self.min_grade == 1 else f">={self.min_grade}"
        judges = "".join(f":{judge}" for judge in self.judges)
        return f"{self.collection}/{self.split}{grade}{judges}"

    @property
    def label(self) -> str:
        """The name in metrics: `<collection's short name>/<split>`, and the threshold unless 1."""
        return graded(f"{short_name(self.collection)}/{self.split}", self.min_grade)

    def shares_split(self, label: str) -> bool:
        """Whether `label` names this split by its own judgements, at any threshold."""
        plain = re.escape(replace(self, min_grade=1).label)
        return re.fullmatch(rf"{plain}(:grade-[0-9]+)?", label) is not None

    def part_label(self, passages: int) -> str:
        """The name in metrics of scores for which only this many passages were searched."""
        return f"{self.label}:{passages}-passages"

    def judged_label(self, judge: JudgeRef, kind: str) -> str:
        """The name in metrics of what a source says, alone (MACHINE) or with the split (UNION)."""
        return graded(f"{self.label}:{kind}:{judge.source}", judge.min_grade)

    def marks(self, fingerprint: str) -> dict[str, str]:
        """The collection's `fingerprint` under each label: the split's own, then its judges'."""
        pairs = [(judge, kind) for judge in self.judges for kind in (MACHINE, UNION)]
        judged = [self.judged_label(judge, kind) for judge, kind in pairs]
        return dict.fromkeys((self.label, *judged), fingerprint)


def graded(label: str, min_grade: int) -> str:
    """`label` where positives are graded `min_grade` or better; 1 goes without saying."""
    return label if min_grade == 1 else f"{label}:grade-{min_grade}"


def plain_label(label: str) -> str:
    """The split that a label scores, without its threshold, judge or part: `nq/test:grade-2` and
    `nq/test:union:weak` -> `nq/test`. Labels with the same split share their queries."""
    found = _LABEL.fullmatch(label)
    return label if found is None else found["split"]


def parse_refs(text: str, place: str | None = None, key: str = "collection") -> tuple[Ref, ...]:
    """The splits that `text` names, with their judges: one, or those of a set of collections.

    `beir/cqadupstack/test` is a split of each of its twelve parts. Raises InvalidInput as
    `parse_ref` does, and for a judge without a name or named twice.
    """
    head, slash, tail = text.rpartition("/")
    written, *sources = tail.split(":")
    judges = tuple(JudgeRef(*split_grade(source, key, place)) for source in sources)
    names = [judge.source for judge in judges]
    if "" in names or len(set(names)) < len(names):
        raise InvalidInput([Problem(key, "must name each judge once after ':'", text, None, place)])
    collections = parts_of(head) or (head,)
    refs = [parse_ref(f"{part}{slash}{written}", None, place, key) for part in collections]
    return tuple(replace(ref, judges=judges) for ref in refs)


def parse_ref(
    text: str,
    default_split: str | None = None,
    place: str | None = None,
    key: str = "collection",
    likely: tuple[str, ...] = ("test", "dev"),
) -> Ref:
    """The split that `text` names; `default_split` when it names a collection alone.

    Raises InvalidInput when there is no such collection or split, or the grade is no whole number
    of at least 1. `key` and `place` say where `text` was written; of the `likely` splits the first
    that there is gets suggested to who names none.
    """
    body, grade = split_grade(text, key, place)
    body = body.rstrip("/") or body
    if is_collection(body):
        if default_split is None:
            splits = splits_of(body)
            rule = f"names a collection without a split; its splits: {', '.join(splits) or 'none'}"
            best = next((split for split in (*likely, *splits) if split in splits), None)
            raise InvalidInput([Problem(key, rule, text, best and f"{body}/{best}", place)])
        return _checked(Ref(body, default_split, grade), key, place)
    head, _, split = body.rpartition("/")
    if head and is_collection(head):
        return _checked(Ref(head, split, grade), key, place)
    raise InvalidInput([unknown_collection(body, key, place)])


def split_grade(text: str, key: str, place: str | None = None, default: int = 1) -> tuple[str, int]:
    """`NAME>=GRADE` as (NAME, GRADE); `default` when no grade is given. Raises InvalidInput."""
    name, sign, grade = text.partition(">=")
    if not sign:
        return name.strip(), default
    if not grade.strip().isdecimal() or int(grade) < 1:
        rule = "the grade after '>=' must be a whole number of at least 1"
        raise InvalidInput([Problem(key, rule, text, None, place)])
    return name.strip(), int(grade)


def _checked(ref: Ref, key: str, place: str | None) -> Ref:
    known = splits_of(ref.collection)
    if ref.split not in known:
        where = f"{key}: split of {ref.collection}"
        raise InvalidInput([unknown(where, ref.split, known, place)])
    return ref
