"""What the data of a study share or lack, as plain sentences that a plan and a report both show.

Nothing large is read for a plan: a collection counts as known when it has been read before, or
when its files are small and here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ablate.plan.confounds import Confound
from ablate.plan.planner import Plan
from trainables.data.cache import Cache
from trainables.data.collections import Ref, parse_ref
from trainables.data.collections.registry import entry_of, located
from trainables.data.overlap import audit_study

MOST_READ = 64 << 20
"""Bytes of a local collection's files up to which a plan reads them when nothing has before."""

LISTED = 4
"""Splits that a sentence names; of more it gives the number."""


def data_warnings(plan: Plan, caches: Sequence[Cache]) -> list[Confound]:
    """What the splits trained on and evaluated on share, and what is wrong with their judgements.

    Looks into the first of `caches` that has every collection, else into the last, where it may
    read what is small. Counts are made once per content. Raises InvalidInput when the files of a
    collection that is read cannot be used.
    """
    trained = [parse_ref(str(text), "train") for text in plan.study.listed("data.train")]
    tested = list(plan.study.references)
    names = dict.fromkeys(ref.collection for ref in (*trained, *tested))
    ready = {store.root: [n for n in names if _is_read(n, plan, store)] for store in caches}
    cache = next((store for store in caches if len(ready[store.root]) == len(names)), caches[-1])
    known = {name for name in names if name in ready[cache.root] or _is_small(name)}
    audit = audit_study(_within(trained, known), _within(tested, known), cache)
    found = data_confounds(audit.to_json())
    unread = [name for name in names if name not in known]
    if unread:
        text = (
            f"Not read yet on this machine: {_named(unread)}. What they share with the other "
            "splits is told by the report, or by `ablate data inspect`."
        )
        found.append(Confound("data-unread", text))
    return found


def data_confounds(audit: Mapping[str, Any]) -> list[Confound]:
    """The sentences of a StudyAudit in its JSON form; empty when the data are sound."""
    overlaps, flaws = audit["overlaps"], audit["flaws"]
    return [
        *_sentence(
            "shared-queries",
            _shared(overlaps, "test_queries"),
            "Test queries are trained on: {}. A method that memorises looks better than it is.",
        ),
        *_sentence(
            "shared-positives",
            _shared(overlaps, "test_passages"),
            "Positives of the test are positives of the training too, of any query: {}. Scores are "
            "in part of passages that were seen.",
        ),
        *_sentence(
            "conflicting-labels",
            _conflicting(overlaps, flaws),
            "Pairs are judged relevant and not relevant: {}.",
        ),
        *_sentence(
            "dangling-ids",
            [
                f"{_part(f['dangling'], f['judgements'])} of {f['ref']}"
                for f in flaws
                if f["dangling"]
            ],
            "Judgements name texts that the collection lacks: {}. They cannot be trained on, and a "
            "search can never find them.",
        ),
    ]


def _shared(overlaps: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    return [
        f"{_part(o[what], o[f'{what}_of'], o[f'{what}_exact'])} of {o['test']} in {o['train']}"
        for o in overlaps
        if o[what]
    ]


def _conflicting(
    overlaps: Sequence[Mapping[str, Any]], flaws: Sequence[Mapping[str, Any]]
) -> list[str]:
    between = [
        f"{o['conflicting']:,} between {o['train']} and {o['test']}"
        for o in overlaps
        if o["conflicting"]
    ]
    return between + list(dict.fromkeys(_twice(f) for f in flaws if f["conflicting"]))


def _sentence(code: str, parts: Sequence[str], text: str) -> Iterator[Confound]:
    if parts:
        yield Confound(code, text.format(_named(parts)))


def _named(parts: Sequence[str]) -> str:
    rest = len(parts) - LISTED
    return ", ".join(parts[:LISTED]) + (f" and {rest:,} more" if rest > 0 else "")


def _part(count: int, whole: int, exact: int | None = None) -> str:
    letters = "" if exact is None or exact == count else f" ({exact:,} letter by letter)"
    return f"{count:,} of {whole:,}{letters}"


def _twice(flaws: Mapping[str, Any]) -> str:
    collection = str(flaws["ref"]).rpartition("/")[0]
    return f"{flaws['conflicting']:,} within a file of {collection}, where the first grade counts"


def _within(refs: Sequence[Ref], names: Collection[str]) -> list[Ref]:
    return [ref for ref in refs if ref.collection in names]


def _is_read(name: str, plan: Plan, cache: Cache) -> bool:
    return cache.find("collections", {"collection": plan.fingerprints[name]}) is not None


def _is_small(name: str) -> bool:
    if entry_of(name) is not None:
        return False
    path, form = located(name)
    return sum(file.stat().st_size for file in form.files(path)) <= MOST_READ
