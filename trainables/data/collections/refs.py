"""Ref: one split of one collection, written `NAME|PATH[/SPLIT][>=GRADE]`."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.data.collections.registry import (
    is_collection,
    short_name,
    splits_of,
    unknown_collection,
)
from trainables.errors import InvalidInput, Problem, unknown


@dataclass(frozen=True)
class Ref:
    """A split of a collection; passages graded `min_grade` or better are its positives."""

    collection: str
    split: str
    min_grade: int = 1

    def __str__(self) -> str:
        grade = "" if self.min_grade == 1 else f">={self.min_grade}"
        return f"{self.collection}/{self.split}{grade}"

    @property
    def label(self) -> str:
        """The name in metrics: `<collection's short name>/<split>`."""
        return f"{short_name(self.collection)}/{self.split}"


def parse_ref(
    text: str,
    default_split: str | None = None,
    place: str | None = None,
    key: str = "collection",
) -> Ref:
    """The split that `text` names; `default_split` when it names a collection alone.

    Raises InvalidInput when there is no such collection or split, or the grade is no whole number
    of at least 1. `key` and `place` say where `text` was written.
    """
    body, grade = split_grade(text, key, place)
    body = body.rstrip("/") or body
    if is_collection(body):
        if default_split is None:
            rule = f"names a collection without a split; its splits: {_listed(body)}"
            raise InvalidInput([Problem(key, rule, text, f"{body}/{splits_of(body)[-1]}", place)])
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


def _listed(name: str) -> str:
    return ", ".join(splits_of(name)) or "none"
