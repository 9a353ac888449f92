"""Everything a trial reads is there after `prepare`, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.data.cache import Cache
from trainables.data.collections import open_collection
from trainables.data.labels import training_stages
from trainables.data.negatives import load_negatives
from trainables.data.tokenize import tokens_key
from trainables.errors import InvalidInput
from trainables.prepare.prepare import prepare
from trainables.spec import TrialSpec


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def spec(tiny_collection: str, tiny_backbone: str, **changes: Any) -> TrialSpec:
    flat = {
        "data.train": tiny_collection,
        "data.machine_labels": "weak",
        "data.human_fraction": 0.5,
        "data.hard_negatives": 3,
        "encoder.backbone": tiny_backbone,
        "encoder.query_prefix": "query: ",
        "loss.name": "joint_lh",
        "loss.temperature": 0.05,
        "optim.lr": 1e-4,
        "optim.batch_size": 4,
        "optim.steps": 3,
    }
    return TrialSpec.from_flat(flat | changes)


def test_what_a_trial_reads_is_there(
    tiny_collection: str, tiny_backbone: str, cache: Cache
) -> None:
    trial = spec(tiny_collection, tiny_backbone)
    prepared = prepare(trial, cache)
    collection = open_collection(tiny_collection, cache)
    assert (prepared.collection, prepared.passages, prepared.queries) == ("tiny", 60, 30)
    assert prepared.fingerprint == collection.fingerprint
    assert [agreement.source for agreement in prepared.agreements] == ["weak"]
    assert prepared.negatives is not None
    assert prepared.negatives.queries == 18
    assert training_stages(collection, trial.data, 0, cache)
    negatives = load_negatives(collection, trial.data, cache)
    assert len(negatives.rows) == round(prepared.negatives.per_query * 18)
    for texts, prefix, length in (
        (collection.queries, "query: ", 32),
        (collection.passages, "", 128),
    ):
        key = tokens_key(texts.fingerprint, tiny_backbone, prefix, length)
        assert cache.find("tokens", key) is not None
    assert prepared.passage_tokens > 60
    assert 30 < prepared.query_tokens < prepared.passage_tokens


def test_a_second_call_makes_nothing(
    tiny_collection: str, tiny_backbone: str, cache: Cache
) -> None:
    trial = spec(tiny_collection, tiny_backbone)
    told: list[tuple[str, int, int]] = []
    first = prepare(trial, cache, lambda *said: told.append(said))
    assert {stage for stage, _, _ in told} == {"negatives"}
    before = {path: path.stat().st_mtime_ns for path in cache.root.rglob("*") if path.is_file()}
    told.clear()
    assert prepare(trial, cache, lambda *said: told.append(said)) == first
    after = {path: path.stat().st_mtime_ns for path in cache.root.rglob("*") if path.is_file()}
    assert told == []
    assert after == before


def test_human_labels_alone_need_neither_annotator_nor_miner(
    tiny_collection: str, tiny_backbone: str, cache: Cache
) -> None:
    changes = {"data.machine_labels": None, "data.human_fraction": 1.0, "data.hard_negatives": 0}
    prepared = prepare(spec(tiny_collection, tiny_backbone, **changes), cache)
    assert prepared.agreements == ()
    assert prepared.negatives is None


def test_what_cannot_be_had_is_told(tiny_collection: str, tiny_backbone: str, cache: Cache) -> None:
    with pytest.raises(InvalidInput, match="nobody"):
        prepare(spec(tiny_collection, tiny_backbone, **{"data.machine_labels": "nobody"}), cache)
