"""Label sources meet: mixing, nesting, caps, noise; laws that hold for any judgements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Judgements, write_judgements
from trainables.data.labels import (
    HUMAN,
    MACHINE,
    Stage,
    TrainingLabels,
    annotation_key,
    load_labels,
    training_stages,
)
from trainables.data.negatives import negatives_key
from trainables.data.sources import LABELS_FILE, LABELS_KIND, load_sources
from trainables.errors import InvalidInput
from trainables.spec import DataSpec

Make = Callable[..., Collection]
Positives = Callable[[Collection, TrainingLabels], dict[str, list[str]]]

HUMANS = [
    ("q0", "p0", 2),
    ("q0", "p1", 1),
    ("q0", "p9", 0),
    ("q1", "p2", 1),
    ("q2", "p3", 0),
    ("q3", "p4", 1),
    ("q3", "p5", 3),
]
MACHINES = [
    ("q0", "p0", 1),
    ("q0", "p7", 3),
    ("q1", "p8", 2),
    ("q1", "p9", 1),
    ("q2", "p3", 1),
    ("q3", "p6", 0),
    ("q9", "p1", 1),
]


@pytest.fixture(scope="module")
def mixed(make: Make) -> Collection:
    return make({"train": HUMANS, "test": [("q9", "p1", 1)]}, {"weak": MACHINES})


def stages(
    collection: Collection, seed: int = 0, train: str = "", **data: Any
) -> tuple[Stage, ...]:
    spec = DataSpec(train=train or collection.origin, **data)
    return training_stages(collection, spec, seed, Cache(collection.folder.parents[1]))


def test_humans_alone(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed)
    found = positives(mixed, stage.labels)
    assert found == {"q0": ["p0", "p1"], "q1": ["p2"], "q3": ["p5", "p4"]}
    assert stage.share == 1.0 and stage.without_positive == 1
    assert stage.labels.grade.tolist() == [2, 1, 1, 3, 1]
    assert set(stage.labels.source.tolist()) == {HUMAN}
    assert stage.labels.true.all()


def test_the_threshold_of_the_ref_holds(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed, train=f"{mixed.origin}/train>=2")
    assert positives(mixed, stage.labels) == {"q0": ["p0"], "q3": ["p5"]}
    assert stage.without_positive == 2


def test_machine_labels_alone_keep_to_the_split(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed, machine_labels="weak", human_fraction=0.0)
    assert positives(mixed, stage.labels) == {"q0": ["p7", "p0"], "q1": ["p8", "p9"], "q2": ["p3"]}
    assert set(stage.labels.source.tolist()) == {MACHINE}
    (stage,) = stages(mixed, machine_labels="weak>=2", human_fraction=0.0)
    assert positives(mixed, stage.labels) == {"q0": ["p7"], "q1": ["p8"]}
    (stage,) = stages(
        mixed, train=f"{mixed.origin}/train>=2", machine_labels="weak", human_fraction=0.0
    )
    assert positives(mixed, stage.labels) == {"q0": ["p7"], "q1": ["p8"]}


def test_union_puts_human_labels_first(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed, machine_labels="weak", mixing="union")
    assert positives(mixed, stage.labels) == {
        "q0": ["p0", "p1", "p7"],
        "q1": ["p2", "p8", "p9"],
        "q2": ["p3"],
        "q3": ["p5", "p4"],
    }
    assert stage.labels.source.tolist()[:3] == [HUMAN, HUMAN, MACHINE]


def test_replace_takes_one_source_per_query(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed, machine_labels="weak", human_fraction=0.5)
    human = {"q0": ["p0", "p1"], "q1": ["p2"], "q3": ["p5", "p4"]}
    machine = {"q0": ["p7", "p0"], "q1": ["p8", "p9"], "q2": ["p3"]}
    labels = stage.labels
    for i, (query, found) in enumerate(positives(mixed, labels).items()):
        (source,) = set(labels.source[labels.offsets[i] : labels.offsets[i + 1]].tolist())
        assert found == (human if source == HUMAN else machine)[query]


def test_curriculum_ends_with_the_drawn_human_queries(
    mixed: Collection, positives: Positives
) -> None:
    first, second = stages(
        mixed, machine_labels="weak", human_fraction=0.5, mixing="curriculum", curriculum_share=0.25
    )
    assert (first.share, second.share) == (0.75, 0.25)
    assert set(first.labels.source.tolist()) == {MACHINE}
    assert set(second.labels.source.tolist()) == {HUMAN}
    assert len(second.labels) + second.without_positive == 2
    (only,) = stages(mixed, machine_labels="weak", human_fraction=0.0, mixing="curriculum")
    assert only.share == 1.0 and set(only.labels.source.tolist()) == {MACHINE}
    (only,) = stages(mixed, machine_labels="weak", mixing="curriculum", curriculum_share=1.0)
    assert only.share == 1.0 and set(only.labels.source.tolist()) == {HUMAN}


def test_machine_labels_may_leave_out_the_human_positive(
    mixed: Collection, positives: Positives
) -> None:
    (stage,) = stages(
        mixed, machine_labels="weak", human_fraction=0.0, machine_human_positive=False
    )
    assert positives(mixed, stage.labels)["q0"] == ["p7"]


def test_another_source_may_stand_for_the_human(mixed: Collection, positives: Positives) -> None:
    (stage,) = stages(mixed, human_labels="weak")
    assert set(positives(mixed, stage.labels)) == {"q0", "q1", "q2"}


def test_known_positives_come_from_every_source(mixed: Collection) -> None:
    (stage,) = stages(mixed)
    labels = stage.labels
    known = {
        query: set(mixed.passages.ids(labels.known_rows[start:end]))
        for query, start, end in zip(
            mixed.queries.ids(labels.query_rows),
            labels.known_offsets[:-1],
            labels.known_offsets[1:],
            strict=True,
        )
    }
    assert known == {"q0": {"p0", "p1", "p7"}, "q1": {"p2", "p8", "p9"}, "q3": {"p4", "p5"}}


def test_an_annotators_labels_are_a_source_like_any_other(
    mixed: Collection, positives: Positives, tmp_path: Any
) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(InvalidInput, match=r"is no label source of made.*known: weak"):
        load_labels(mixed, "annotator", cache)
    made = Judgements(["q1", "q3"], ["p30", "p31"], np.array([1, 1], dtype=np.int16))
    cache.folder(
        LABELS_KIND,
        annotation_key(mixed.fingerprint, "annotator"),
        lambda folder: write_judgements(folder / LABELS_FILE, made),
    )
    data = DataSpec(train=mixed.origin, machine_labels="annotator", human_fraction=0.0)
    (stage,) = training_stages(mixed, data, 0, cache)
    assert positives(mixed, stage.labels) == {"q1": ["p30"], "q3": ["p31"]}


def test_no_positive_at_all_is_a_mistake(mixed: Collection) -> None:
    with pytest.raises(InvalidInput, match="has a positive"):
        stages(mixed, train=f"{mixed.origin}/train>=9")
    with pytest.raises(InvalidInput, match="did you mean 'weak'"):
        stages(mixed, machine_labels="waek")


def test_dangling_judgements_are_counted(make: Make) -> None:
    collection = make({"train": [*HUMANS, ("q0", "gone", 1), ("lost", "p0", 1)]})
    (stage,) = stages(collection)
    assert stage.dangling == 2


RANDOM = np.random.default_rng(7)


def random_rows(count: int, passages: int = 40) -> list[tuple[str, str, int]]:
    cells = RANDOM.choice(10 * passages, count, replace=False)
    return [(f"q{c // passages}", f"p{c % passages}", int(RANDOM.integers(0, 4))) for c in cells]


@pytest.fixture(scope="module")
def wide(make: Make) -> Collection:
    return make({"train": random_rows(150)}, {"weak": random_rows(150), "other": random_rows(60)})


fractions = st.floats(0, 1)
seeds = st.integers(0, 2**32)


def human_part(collection: Collection, stage: Stage) -> set[int]:
    labels = stage.labels
    owners = np.repeat(labels.query_rows, np.diff(labels.offsets))
    return set(owners[labels.source == HUMAN].tolist())


@settings(max_examples=40, deadline=None)
@given(fractions, fractions, seeds)
def test_human_subsets_are_nested(wide: Collection, one: float, two: float, seed: int) -> None:
    low, high = sorted((one, two))
    small, large = (
        stages(wide, seed, machine_labels="weak", human_fraction=share)[0] for share in (low, high)
    )
    assert human_part(wide, small) <= human_part(wide, large)
    assert len(human_part(wide, large)) <= int(high * 10 + 0.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(["grade", "random"]), seeds)
def test_caps_are_nested_and_keep_the_best(
    wide: Collection, positives: Positives, one: int, two: int, order: str, seed: int
) -> None:
    low, high = sorted((one, two))
    options = {"machine_labels": "weak", "mixing": "union", "positive_order": order}
    (all_kept,) = stages(wide, seed, **options)
    whole = positives(wide, all_kept.labels)
    small, large = (
        positives(wide, stages(wide, seed, max_positives=count, **options)[0].labels)
        for count in (low, high)
    )
    for query, found in whole.items():
        assert len(small[query]) == min(low, len(found))
        assert set(small[query]) <= set(large[query]) <= set(found)
        assert small[query] == [p for p in found if p in small[query]]
        if order == "grade":
            assert small[query] == found[:low]


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), seeds, st.sampled_from([None, 3]))
def test_noise_is_nested_and_known(
    wide: Collection, one: float, two: float, seed: int, cap: int | None
) -> None:
    low, high = sorted((one, two))
    clean, small, large = (
        stages(wide, seed, max_positives=cap, noise=share)[0] for share in (0.0, low, high)
    )
    changed = ~small.labels.true
    assert (
        changed.sum() == int(low * len(changed) + 0.5) == small.noise_judged + small.noise_unjudged
    )
    assert np.array_equal(small.labels.passage_rows != clean.labels.passage_rows, changed)
    assert not (changed & large.labels.true).any()
    same = small.labels.passage_rows[changed] == large.labels.passage_rows[changed]
    assert same.all()
    assert np.array_equal(small.labels.grade, clean.labels.grade)
    owners = np.repeat(small.labels.query_rows, np.diff(small.labels.offsets))
    pairs_in_order = list(zip(owners.tolist(), small.labels.passage_rows.tolist(), strict=True))
    assert len(set(pairs_in_order)) == len(owners)
    human = load_sources(wide, DataSpec(train=wide.origin), Cache(wide.folder.parents[1])).human
    truths = set(zip(human.query_rows.tolist(), human.passage_rows.tolist(), strict=True))
    assert not {pair for pair, new in zip(pairs_in_order, changed, strict=True) if new} & truths


def test_noise_prefers_passages_judged_wrong(make: Make, positives: Positives) -> None:
    collection = make(
        {"train": [("q0", "p0", 1), ("q0", "p1", 0), ("q1", "p2", 1), ("q2", "p3", 1)]},
        {"weak": [("q1", "p9", 0), ("q1", "p2", 1)]},
        passages=12,
    )
    (stage,) = stages(collection, noise=1.0)
    found = positives(collection, stage.labels)
    assert found["q0"] == ["p1"] and found["q1"] == ["p9"] and found["q2"] != ["p3"]
    assert (stage.noise_judged, stage.noise_unjudged) == (2, 1)
    assert not stage.labels.true.any()


def test_where_no_wrong_passage_is_left_the_positive_stays(make: Make) -> None:
    collection = make({"train": [("q0", "p0", 1), ("q0", "p1", 1)]}, passages=2)
    (stage,) = stages(collection, noise=1.0)
    assert stage.labels.true.all() and stage.noise_judged == stage.noise_unjudged == 0


@settings(max_examples=15, deadline=None)
@given(seeds, fractions, st.sampled_from(["replace", "union", "curriculum"]), st.floats(0, 1))
def test_labels_are_a_function_of_spec_and_seed(
    wide: Collection, seed: int, fraction: float, mixing: str, noise: float
) -> None:
    options: dict[str, Any] = {
        "machine_labels": "weak",
        "human_fraction": fraction,
        "mixing": mixing,
        "noise": noise,
        "max_positives": 4,
        "positive_order": "random",
    }
    first, second = stages(wide, seed, **options), stages(wide, seed, **options)
    assert len(first) == len(second)
    assert sum(stage.share for stage in first) == pytest.approx(1.0)
    for one, two in zip(first, second, strict=True):
        for name, value in vars(one.labels).items():
            assert np.array_equal(value, getattr(two.labels, name)), name
        lengths = np.diff(one.labels.offsets)
        assert lengths.min() >= 1 and lengths.max() <= 4
        assert len(one.labels) == len(np.unique(one.labels.query_rows))


def test_the_key_of_negatives_follows_what_mining_depends_on(mixed: Collection) -> None:
    base = DataSpec(train=mixed.origin, machine_labels="weak", hard_negatives=2)
    same = [
        base.model_copy(update=change)
        for change in ({"human_fraction": 0.2}, {"mixing": "union"}, {"hard_negatives": 7})
    ]
    other = [
        base.model_copy(update=change)
        for change in (
            {"train": f"{mixed.origin}/train>=2"},
            {"machine_labels": "weak>=2"},
            {"negative_depth": 10},
            {"negative_margin": None},
            {"negatives": "dense"},
        )
    ]
    key = negatives_key(mixed.fingerprint, base)
    assert all(negatives_key(mixed.fingerprint, data) == key for data in same)
    keys = [negatives_key(mixed.fingerprint, data) for data in other]
    keys += [negatives_key("another", base), negatives_key(mixed.fingerprint, base, "a model")]
    assert key not in keys and len({str(k) for k in keys}) == len(keys)
