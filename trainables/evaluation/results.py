"""What an evaluation leaves: the run, its values per query, and their files. No torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from trainables.data.collections import Judgements, Texts
from trainables.evaluation.metrics import Metric, parse_metrics
from trainables.evaluation.reference import verify
from trainables.evaluation.scoring import Floats, Ints, Judged, judged, score_rows

RUN_TAG = "ablate"
RUN_FILE = "run.trec"
QUERIES_FILE = "per_query.parquet"
QUERIES_PER_WRITE = 256


@dataclass(frozen=True, eq=False)
class Run:
    """The best k passages of Q queries, best first.

    `rows` int64[Q, k] are rows of the corpus, -1 after a query's last passage; `scores`
    float32[Q, k], -inf there. Ids are looked up on demand: for millions of entries they would
    weigh more than everything else.
    """

    query_ids: tuple[str, ...]
    rows: Ints
    scores: NDArray[np.float32]
    passages: Texts

    def passage_ids(self, query: int) -> list[str]:
        """Ids of the passages of the query at that index, best first."""
        line = self.rows[query]
        return self.passages.ids(line[line >= 0])

    def of(self, query_ids: Sequence[str]) -> Run:
        """The run of these queries in this order; one that is missing here has no passages."""
        place = {name: i for i, name in enumerate(self.query_ids)}
        lines = np.fromiter((place.get(q, -1) for q in query_ids), np.int64, len(query_ids))
        if not len(self.rows):
            return _nothing(query_ids, self.rows.shape[1], self.passages)
        rows = np.where(lines[:, None] >= 0, self.rows[lines], -1)
        scores = np.where(rows >= 0, self.scores[lines], np.float32("-inf"))
        return Run(tuple(query_ids), rows, scores, self.passages)


@dataclass(frozen=True, eq=False)
class Scores:
    """One evaluated split: the values of every scored query, and the run that earned them."""

    ref: str
    """Label of what was evaluated, such as `nq/test`."""
    query_ids: tuple[str, ...]
    """The Q queries that have a positive, in the order of the judgements."""
    per_query: dict[str, Floats]
    """Values float64[Q] by metric name."""
    run: Run
    left_out: int = 0
    """Judged queries that are in no metric because they have no positive."""

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the queries by key, such as `nq/test/mrr_at_10`; empty without queries."""
        if not self.query_ids:
            return {}
        return {f"{self.ref}/{name}": float(v.mean()) for name, v in self.per_query.items()}

    @property
    def slug(self) -> str:
        """The label as a folder's name: `nq__test`."""
        return self.ref.replace("/", "__")


def score(run: Run, truth: Judged, metrics: Sequence[Metric], ref: str) -> Scores:
    """Score a run against judgements.

    Queries of `truth` that the run lacks score 0. Raises MetricMismatch when a value differs from
    pytrec_eval's on a sample of the queries.
    """
    part = run.of(truth.query_ids)
    per_query = score_rows(part.rows, truth, metrics)
    verify(per_query, part.rows, truth, metrics)
    return Scores(ref, truth.query_ids, per_query, part, truth.left_out)


def rejudge(
    scores: Scores, judgements: Judgements, metrics: Sequence[str], min_grade: int, ref: str
) -> Scores:
    """The same run scored against another label source, under the label `ref`.

    The run's queries alone are scored: what the source says of other queries does not count.
    Raises InvalidInput for an unknown metric or one that reads below the end of the run.
    """
    chosen = parse_metrics(metrics, scores.run.rows.shape[1])
    known = set(scores.run.query_ids)
    lines = [i for i, query in enumerate(judgements.query_ids) if query in known]
    mine = Judgements(
        [judgements.query_ids[i] for i in lines],
        [judgements.passage_ids[i] for i in lines],
        judgements.grades[lines],
    )
    truth = judged(mine, scores.run.passages.rows, min_grade)
    return score(scores.run, truth, chosen, ref)


def write_scores(scores: Scores, folder: Path, with_run: bool = True) -> None:
    """Leave metrics.json, per_query.parquet and run.trec in `folder`; equal scores, equal bytes.

    `with_run` is False for the scores of a run that stands in another folder already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(scores.metrics, sort_keys=True, indent=1) + "\n"
    _whole(folder / "metrics.json", lambda path: path.write_text(text, encoding="utf-8"))
    _whole(folder / QUERIES_FILE, lambda path: _write_table(scores, path))
    if with_run:
        _whole(folder / RUN_FILE, lambda path: _write_trec(scores.run, path))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """The file appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_table(scores: Scores, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"query_id": pa.array(scores.query_ids, pa.string())}
    columns |= {name: pa.array(values, pa.float64()) for name, values in scores.per_query.items()}
    pq.write_table(pa.table(columns), path)


def _write_trec(run: Run, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for lines in _trec_lines(run):
            file.write("".join(lines))


def _trec_lines(run: Run) -> Iterator[list[str]]:
    """The lines `query Q0 passage rank score tag` of each query."""
    for start in range(0, len(run.query_ids), QUERIES_PER_WRITE):
        block = run.rows[start : start + QUERIES_PER_WRITE]
        known = np.unique(block[block >= 0])
        names = dict(zip(known.tolist(), map(_word, run.passages.ids(known)), strict=True))
        scores = falling(run.scores[start : start + QUERIES_PER_WRITE]).tolist()
        for i, rows in enumerate(block.tolist()):
            query = _word(run.query_ids[start + i])
            yield [
                f"{query} Q0 {names[row]} {rank} {score:.9g} {RUN_TAG}\n"
                for rank, (row, score) in enumerate(zip(rows, scores[i], strict=True), 1)
                if row >= 0
            ]


def _word(identifier: str) -> str:
    """The id without white space, which separates the columns: it is percent-encoded."""
    return re.sub(r"\s", lambda found: quote(found.group()), identifier)


def read_run(path: Path, query_ids: Sequence[str], passages: Texts, depth: int) -> Run:
    """The run of `query_ids` in a file that `write_scores` left of a search to `depth`.

    A query that the file lacks found nothing. Ranks are the file's; its scores are the run's own
    but for ties, which `falling` has spread. Raises ValueError when the file names a passage that
    is not among `passages`.
    """
    line_of = {_word(query): line for line, query in enumerate(query_ids)}
    found: list[tuple[list[str], list[str]]] = [([], []) for _ in query_ids]
    with path.open(encoding="utf-8", newline="\n") as file:
        for text in file:
            query, _, passage, _, value, _ = text.rstrip("\n").split(" ")
            if query in line_of:
                names, values = found[line_of[query]]
                names.append(passage)
                values.append(value)
    run = _nothing(query_ids, depth, passages)
    for line, (names, values) in enumerate(found):
        run.rows[line, : len(names)] = _rows(names, passages)
        run.scores[line, : len(names)] = np.array(values, dtype=np.float32)
    if (run.rows[run.scores > -np.inf] < 0).any():
        raise ValueError(f"{path} names passages that the collection lacks")
    return run


def _rows(words: list[str], passages: Texts) -> Ints:
    """The rows of passages as `_word` wrote their ids."""
    rows = passages.rows(words)
    for place in np.flatnonzero(rows < 0).tolist():
        rows[place] = passages.rows([unquote(words[place])])[0]
    return rows


def falling(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[Q, k] that fall strictly along each line: ties are spread by the smallest step.

    trec_eval sorts a run by its scores and breaks ties by id. With strictly falling scores it
    finds the ranking that was scored here, and so the same values. Next to 0 the step is 2**-100,
    since many programs read smaller numbers as 0.
    """
    spread = scores.copy()
    for rank in range(1, scores.shape[1]):
        above = spread[:, rank - 1]
        below = np.minimum(np.nextafter(above, np.float32(-np.inf)), above - np.float32(2.0**-100))
        spread[:, rank] = np.minimum(spread[:, rank], below)
    return spread


def _nothing(query_ids: Sequence[str], depth: int, passages: Texts) -> Run:
    shape = (len(query_ids), depth)
    rows = np.full(shape, -1, dtype=np.int64)
    return Run(tuple(query_ids), rows, np.full(shape, -np.inf, dtype=np.float32), passages)
