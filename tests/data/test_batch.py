"""Batches: a function of the step, masks from ids, the same number of negatives for every loss."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.arrays import offsets_of
from trainables.data.batch import Batches, GlobalBatch, Reads
from trainables.data.labels import Stage, TrainingLabels
from trainables.data.negatives import Negatives, load_negatives, negatives_key, write_negatives
from trainables.data.shards import shard
from trainables.errors import InvalidInput
from trainables.spec import DataSpec, TrialSpec

PASSAGES = 60
READS: tuple[Reads, ...] = ("best", "drawn", "all")


def spec(**keys: Any) -> TrialSpec:
    flat = {
        "data.train": "made",
        "encoder.backbone": "none",
        "loss.name": "joint_lh",
        "loss.temperature": 0.05,
        "optim.lr": 1e-4,
        "optim.batch_size": 4,
        "optim.steps": 50,
    }
    flat |= {key.replace("__", "."): value for key, value in keys.items()}
    return TrialSpec.from_flat({key: value for key, value in flat.items() if value is not None})


def stage(
    listed: Sequence[Sequence[int]],
    known: Sequence[Sequence[int]] | None = None,
    wrong: frozenset[tuple[int, int]] = frozenset(),
    share: float = 1.0,
) -> Stage:
    """A stage whose query i has the positives `listed[i]`, and `known[i]` as known ones."""
    known = known or [
        [row for row in rows if (i, row) not in wrong] for i, rows in enumerate(listed)
    ]
    pairs = [(i, row) for i, rows in enumerate(listed) for row in rows]
    labels = TrainingLabels(
        query_rows=np.arange(len(listed), dtype=np.int64) * 3,
        offsets=offsets_of(np.array([len(rows) for rows in listed], dtype=np.int64)),
        passage_rows=np.array([row for _, row in pairs], dtype=np.int64),
        source=np.array([row % 2 for _, row in pairs], dtype=np.int8),
        grade=np.ones(len(pairs), dtype=np.int16),
        true=np.array([pair not in wrong for pair in pairs], dtype=bool),
        known_offsets=offsets_of(np.array([len(rows) for rows in known], dtype=np.int64)),
        known_rows=np.array([row for rows in known for row in sorted(rows)], dtype=np.int64),
    )
    return Stage(labels, share, 0, 0, 0, 0, 0)


def mined(rows: Sequence[Sequence[int]]) -> Negatives:
    flat = np.array([row for part in rows for row in part], dtype=np.int64)
    return Negatives(
        query_rows=np.arange(len(rows), dtype=np.int64) * 3,
        offsets=offsets_of(np.array([len(part) for part in rows], dtype=np.int64)),
        rows=flat,
        scores=np.zeros(len(flat), dtype=np.float32),
    )


def same(one: GlobalBatch, two: GlobalBatch) -> bool:
    return all(np.array_equal(value, getattr(two, name)) for name, value in vars(one).items())


row_sets = st.lists(st.integers(0, PASSAGES - 1), min_size=1, max_size=6, unique=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Stage, Negatives, TrialSpec, str]:
    listed = draw(st.lists(row_sets, min_size=1, max_size=9))
    extra = draw(st.lists(st.lists(st.integers(0, PASSAGES - 1), max_size=5), min_size=9))
    wrong = frozenset(
        (i, row) for i, rows in enumerate(listed) for row in rows if draw(st.integers(0, 4)) == 0
    )
    known = [
        sorted({row for row in rows if (i, row) not in wrong} | set(extra[i]))
        for i, rows in enumerate(listed)
    ]
    negatives = [draw(st.permutations(range(PASSAGES)))[: draw(st.integers(0, 30))] for _ in listed]
    hard = draw(st.integers(0, 5))
    keys = {
        "seed": draw(st.integers(0, 99)),
        "optim__batch_size": draw(st.integers(1, 6)),
        "data__hard_negatives": hard,
        "data__group_size": draw(st.sampled_from([None, 4])) if not hard else None,
        "data__mask_known_positives": draw(st.booleans()),
    }
    reads = draw(st.sampled_from(READS))
    return stage(listed, known, wrong), mined(negatives), spec(**keys), reads


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 49))
def test_masks_follow_from_ids(case: tuple[Stage, Negatives, TrialSpec, Any], step: int) -> None:
    part, negatives, trial, reads = case
    data, labels = trial.data, part.labels
    batch = Batches([part], negatives, trial, reads).batch(step)
    rows = batch.passage_rows.tolist()
    assert rows == sorted(set(rows))
    assert len(set(batch.query_rows.tolist())) == len(batch.query_rows)
    used: set[int] = set()
    for i, query in enumerate((batch.query_rows // 3).tolist()):
        listed = labels.passage_rows[labels.offsets[query] : labels.offsets[query + 1]].tolist()
        start, end = labels.known_offsets[query : query + 2]
        known = set(labels.known_rows[start:end].tolist())
        read = {rows[j] for j in np.flatnonzero(batch.positive[i])}
        hard = {rows[j] for j in np.flatnonzero(batch.hard[i])}
        used |= read | hard
        whole = listed[: data.group_size]
        assert read == set(whole) if reads == "all" else len(read) == 1 and read <= set(listed)
        assert reads != "best" or read == {listed[0]}
        wanted = data.hard_negatives if data.group_size is None else data.group_size - len(read)
        free = set(negatives.rows[slice(*negatives.offsets[query : query + 2])].tolist())
        free -= known | set(listed)
        assert hard <= free and len(hard) == min(wanted, len(free))
        for j, row in enumerate(rows):
            own = row in known or row in listed
            negative = not own or not data.mask_known_positives
            assert batch.candidate[i, j] == (row in read or negative)
            assert batch.known[i, j] == (row in known)
            position = labels.offsets[query] + listed.index(row) if row in read else -1
            assert batch.rank[i, j] == (listed.index(row) if row in read else -1)
            assert batch.source[i, j] == (labels.source[position] if row in read else -1)
            assert batch.true[i, j] == (labels.true[position] if row in read else True)
    assert used == set(rows)


@settings(max_examples=30, deadline=None)
@given(cases(), st.data())
def test_a_batch_is_a_function_of_its_step(
    case: tuple[Stage, Negatives, TrialSpec, Any], data: st.DataObject
) -> None:
    part, negatives, trial, reads = case
    first = Batches([part], negatives, trial, reads)
    second = pickle.loads(pickle.dumps(first))
    steps = data.draw(st.lists(st.integers(0, 49), min_size=1, max_size=8))
    assert all(same(first.batch(step), second.batch(step)) for step in steps)
    assert same(first.batch(steps[0]), Batches([part], negatives, trial, reads).batch(steps[0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9))
def test_an_epoch_takes_each_query_at_most_once(queries: int, size: int, seed: int) -> None:
    trial = spec(optim__batch_size=size, seed=seed)
    batches = Batches([stage([[i] for i in range(queries)])], None, trial, "best")
    taken = min(size, queries)
    per_epoch = queries // taken
    for epoch in range(3):
        if (epoch + 1) * per_epoch > 50:
            break
        seen = Counter(
            row
            for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)
            for row in batches.batch(step).query_rows.tolist()
        )
        assert set(seen.values()) == {1}
        assert len(seen) == per_epoch * taken > queries - taken


def test_every_loss_meets_the_same_queries_and_as_many_negatives() -> None:
    part = stage([[i, i + 20, i + 40] for i in range(12)])
    negatives = mined([[(7 * i + j) % 60 for j in range(30)] for i in range(12)])
    trial = spec(data__hard_negatives=5)
    all_batches = [Batches([part], negatives, trial, reads) for reads in READS]
    for step in range(12):
        batches = [each.batch(step) for each in all_batches]
        assert len({tuple(batch.query_rows) for batch in batches}) == 1
        assert all((batch.hard.sum(1) == 5).all() for batch in batches)
        hard = [[set(batch.passage_rows[row].tolist()) for row in batch.hard] for batch in batches]
        assert hard[0] == hard[1] == hard[2]


def test_hard_negatives_change_with_the_epoch() -> None:
    negatives = mined([list(range(10, 60))])
    batches = Batches([stage([[0]])], negatives, spec(data__hard_negatives=5), "best")
    drawn = [frozenset(batches.batch(step).passage_rows.tolist()) for step in range(6)]
    assert len(set(drawn)) == 6


def test_the_drawn_positive_changes_and_is_uniform() -> None:
    part = stage([[i * 4, i * 4 + 1, i * 4 + 2, i * 4 + 3] for i in range(15)])
    trial = spec(optim__batch_size=15, optim__steps=400)
    batches = Batches([part], None, trial, "drawn")
    ranks = Counter(
        rank
        for step in range(400)
        for rank in batches.batch(step).rank[batches.batch(step).positive].tolist()
    )
    assert set(ranks) == {0, 1, 2, 3}
    assert all(abs(count - 1500) < 150 for count in ranks.values())


def test_in_the_papers_group_positives_displace_negatives() -> None:
    part = stage([[0, 1, 2], [3]])
    negatives = mined([list(range(10, 30)), list(range(30, 50))])
    for reads in READS:
        expected = {0: 5 if reads == "all" else 7, 3: 7}
        trial = spec(data__group_size=8, optim__batch_size=2)
        batch = Batches([part], negatives, trial, reads).batch(0)
        counts = dict(zip(batch.query_rows.tolist(), batch.hard.sum(1).tolist(), strict=True))
        assert counts == expected


def test_missing_negatives_are_counted_and_never_drawn_twice() -> None:
    part = stage([[0], [1], [2]])
    negatives = mined([[10, 11, 12], [13], []])
    batches = Batches([part], negatives, spec(data__hard_negatives=3), "all")
    assert batches.short_of_negatives == 2
    batch = batches.batch(0)
    hard = dict(zip(batch.query_rows.tolist(), batch.hard.sum(1).tolist(), strict=True))
    assert hard == {0: 3, 3: 1, 6: 0}
    assert Batches([part], None, spec(), "all").short_of_negatives == 0


def test_negatives_of_other_queries_only_are_none() -> None:
    part = stage([[0], [1]])
    elsewhere = Negatives(
        np.array([100]), np.array([0, 2]), np.array([5, 6]), np.zeros(2, dtype=np.float32)
    )
    for negatives in (elsewhere, mined([])):
        batches = Batches([part], negatives, spec(data__hard_negatives=1), "all")
        assert not batches.batch(0).hard.any() and batches.short_of_negatives == 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"optim__steps": 7}, 7),
        ({"optim__steps": None, "optim__epochs": 1.0}, 5),
        ({"optim__steps": None, "optim__epochs": 2.5}, 13),
        ({"optim__steps": None, "optim__epochs": 0.01}, 1),
        ({"optim__batch_size": 64, "optim__steps": None, "optim__epochs": 3.0}, 3),
    ],
)
def test_steps_and_epochs(keys: dict[str, Any], expected: int) -> None:
    batches = Batches([stage([[i] for i in range(22)])], None, spec(**keys), "all")
    assert batches.total_steps == expected
    with pytest.raises(IndexError):
        batches.batch(expected)
    with pytest.raises(IndexError):
        batches.stage_of(-1)


@pytest.mark.parametrize(("total", "share", "start"), [(10, 0.33, 7), (2, 0.01, 1), (3, 0.99, 1)])
def test_a_curriculum_shares_the_steps(total: int, share: float, start: int) -> None:
    first = stage([[i] for i in range(12)], share=1.0 - share)
    second = stage([[i + 20] for i in range(5)], share=share)
    batches = Batches([first, second], None, spec(optim__steps=total), "all")
    assert batches.total_steps == total and batches.stage_starts == (0, start)
    for step in range(total):
        late = step >= start
        assert batches.stage_of(step) == int(late)
        assert (batches.batch(step).passage_rows.min() >= 20) == late


def test_mistakes_are_listed_together() -> None:
    parts = [stage([[0]], share=0.5), stage([[1]], share=0.5)]
    trial = spec(data__group_size=4, optim__steps=1)
    with pytest.raises(InvalidInput) as caught:
        Batches(parts, None, trial, "all")
    assert [problem.key for problem in caught.value.problems] == [
        "data.group_size",
        "optim.steps",
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 200), max_size=40),
    st.lists(st.integers(1, 200), max_size=80),
    st.integers(1, 7),
)
def test_shards_hold_everything_once_and_are_balanced(
    queries: list[int], passages: list[int], workers: int
) -> None:
    lengths = np.array(queries, dtype=np.int64), np.array(passages, dtype=np.int64)
    shards = shard(*lengths, workers)
    assert len(shards.queries) == len(shards.passages) == workers
    assert sorted(np.concatenate(shards.queries).tolist()) == list(range(len(queries)))
    assert sorted(shards.columns.tolist()) == list(range(len(passages)))
    assert shards.query_counts == tuple(map(len, shards.queries))
    assert shards.passage_counts == tuple(map(len, shards.passages))
    loads = [
        int(lengths[0][mine].sum() + lengths[1][theirs].sum())
        for mine, theirs in zip(shards.queries, shards.passages, strict=True)
    ]
    assert max(loads) - min(loads) <= max([*queries, *passages], default=0)
    if workers == 1:
        assert shards.columns.tolist() == list(range(len(passages)))


def test_a_view_turns_rows_and_columns() -> None:
    batch = Batches([stage([[i, i + 20] for i in range(8)])], None, spec(), "all").batch(0)
    queries, columns = np.array([2, 0]), np.arange(len(batch.passage_rows))[::-1]
    view = batch.view(queries, columns)
    assert view.query_rows.tolist() == batch.query_rows[[2, 0]].tolist()
    assert view.passage_rows.tolist() == batch.passage_rows[::-1].tolist()
    for name in ("positive", "candidate", "rank", "source", "true", "known", "hard"):
        assert np.array_equal(getattr(view, name), getattr(batch, name)[[2, 0]][:, ::-1])


def test_negatives_come_from_the_cache(make: Callable[..., Any], tmp_path: Any) -> None:
    from trainables.data.cache import Cache

    collection = make({"train": [("q0", "p0", 1)]})
    cache, data = Cache(tmp_path), DataSpec(train=collection.origin, hard_negatives=2)
    with pytest.raises(InvalidInput, match="have been mined"):
        load_negatives(collection, data, cache)
    cache.folder(
        "negatives",
        negatives_key(collection.fingerprint, data),
        lambda folder: write_negatives(folder, mined([[1, 2], [], [3]])),
    )
    found = load_negatives(collection, data, cache)
    starts, ends = found.aligned(np.array([0, 1, 3, 6, 9]))
    assert [found.rows[a:b].tolist() for a, b in zip(starts, ends, strict=True)] == [
        [1, 2],
        [],
        [],
        [3],
        [],
    ]
