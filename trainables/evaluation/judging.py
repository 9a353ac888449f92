"""The same run under several judges: the split's own judgements, a further source, and both.

The union ("hybrid" test set) holds every pair that either has judged. A passage is a positive of it
when either says so by its own threshold, with the gain 1: grades of two scales cannot be mixed.
Alone, a source's grades are read raw, as the split's own are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Judgements, Ref, open_collection
from trainables.data.collections.refs import MACHINE, UNION
from trainables.data.sources import load_labels
from trainables.evaluation.metrics import DEFAULT_METRICS, DEPTH, parse_metrics
from trainables.evaluation.results import (
    QUERIES_FILE,
    RUN_FILE,
    Scores,
    read_run,
    rejudge,
    score,
    write_scores,
)
from trainables.evaluation.scoring import judged


def side_by_side(scores: Scores, ref: Ref, collection: Collection, cache: Cache) -> list[Scores]:
    """The scores of the same run by each judge of `ref`, alone and in union with the split's own.

    The queries are those that the split's own judgements score; of them, a source scores those for
    which it knows a positive. Raises InvalidInput for a source that the collection lacks.
    """
    human, found = collection.judgements(ref.split), []
    for judge in ref.judges:
        machine = load_labels(collection, judge.source, cache)
        tables = {
            MACHINE: (machine, judge.min_grade),
            UNION: (union(human, ref.min_grade, machine, judge.min_grade), 1),
        }
        for kind, (table, least) in tables.items():
            label = ref.judged_label(judge, kind)
            found.append(rejudge(scores, table, list(scores.per_query), least, label))
    return found


def write_side_by_side(scores: Scores, ref: Ref, cache: Cache, folder: Path) -> dict[str, float]:
    """Metrics by every judge of `ref`, whose files are left in folders of their own below `folder`.

    Scores of a run that was read back leave the bytes that the search left.
    """
    collection = open_collection(ref.collection, cache)
    write_scores(scores, folder / scores.slug)
    metrics = dict(scores.metrics)
    for other in side_by_side(scores, ref, collection, cache):
        write_scores(other, folder / other.slug, with_run=False)
        metrics |= other.metrics
    return metrics


def union(human: Judgements, least: int, machine: Judgements, machine_least: int) -> Judgements:
    """Every judged pair once: grade 1 where either source calls it a positive, else 0."""
    grades: dict[tuple[str, str], int] = {}
    for table, threshold in ((human, least), (machine, machine_least)):
        pairs = zip(table.query_ids, table.passage_ids, table.grades.tolist(), strict=True)
        for query, passage, grade in pairs:
            if grade >= 0:  # A negative grade is read as unjudged.
                positive = int(grade >= threshold)
                grades[query, passage] = max(positive, grades.get((query, passage), 0))
    return Judgements(
        [query for query, _ in grades],
        [passage for _, passage in grades],
        np.fromiter(grades.values(), np.int16, len(grades)),
    )


def holds(folder: Path, ref: Ref, cache: Cache) -> bool:
    """Whether `folder` has the run of every query that `ref` scores: it may be of another
    threshold, and then of fewer queries."""
    import pyarrow.parquet as pq

    if not (folder / RUN_FILE).is_file():
        return False
    known = pq.read_table(folder / QUERIES_FILE, columns=["query_id"])["query_id"].to_pylist()
    collection = open_collection(ref.collection, cache)
    truth = judged(collection.judgements(ref.split), collection.passages.rows, ref.min_grade)
    return set(truth.query_ids) <= set(known)


def from_folder(
    folder: Path,
    ref: Ref,
    cache: Cache,
    depth: int = DEPTH,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Scores:
    """The scores of a run that `write_scores` left of a search to `depth`, without a search.

    Raises ValueError when the file is of another collection.
    """
    collection = open_collection(ref.collection, cache)
    truth = judged(collection.judgements(ref.split), collection.passages.rows, ref.min_grade)
    run = read_run(folder / RUN_FILE, truth.query_ids, collection.passages, depth)
    return score(run, truth, parse_metrics(metrics, depth), ref.label)
