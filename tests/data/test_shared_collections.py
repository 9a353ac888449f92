"""The real collections, where they are at hand: the counts that their README states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables.data.audit import inspect
from trainables.data.cache import Cache
from trainables.data.collections import open_collection
from trainables.data.labels import training_stages
from trainables.spec import DataSpec


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return lambda name: str(shared_data / name)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("real"))


def test_nfcorpus_has_many_positives(real: Callable[[str], str], shared_cache: Cache) -> None:
    audit = inspect(real("nfcorpus"), shared_cache)
    assert audit.passages == 3633
    counts = [(s.name, s.queries_judged, s.judgements) for s in audit.splits]
    assert counts == [("train", 2590, 110_575), ("dev", 324, 11_385), ("test", 323, 12_334)]
    assert round(audit.splits[0].positives_per_query, 1) == 42.7
    assert audit.splits[0].most_positives == 1363


def test_ms_marco_has_human_and_machine_labels(
    real: Callable[[str], str], shared_cache: Cache
) -> None:
    audit = inspect(real("msmarco-dl19"), shared_cache, min_grade=2)
    assert (audit.passages, audit.splits[0].queries_judged) == (9139, 43)
    assert round(audit.splits[0].positives_per_query, 1) == 58.2
    found = {a.source: a for a in audit.agreements}
    assert round(found["llama3-8b-4prompts"].positives_per_query, 1) == 146.8
    kappas = {name: round(found[name].kappa or 0, 2) for name in found}
    assert kappas["llama3-8b-4prompts"] == 0.21
    assert kappas["flant5large-4prompts"] == 0.32
    assert kappas["flant5large-sunthendecomposed"] == 0.40


def test_training_on_ms_marcos_judged_queries(
    real: Callable[[str], str], shared_cache: Cache
) -> None:
    name = real("msmarco-dl19")
    collection = open_collection(name, shared_cache)
    data = DataSpec(
        train=f"{name}/test>=2", machine_labels="flant5large-4prompts", human_fraction=0.5
    )
    (stage,) = training_stages(collection, data, 0, shared_cache)
    assert len(stage.labels) + stage.without_positive == 43
    assert stage.labels.grade.min() >= 2
    owners = np.repeat(stage.labels.query_rows, np.diff(stage.labels.offsets))
    assert len(np.unique(owners[stage.labels.source == 0])) == 22


def test_trouble_in_dl23_is_a_warning(real: Callable[[str], str], shared_cache: Cache) -> None:
    collection = open_collection(real("msmarco-dl23-dev"), shared_cache)
    assert collection.passages.duplicates == 890
    assert len(collection.judgements("test")) == 7263
    assert len(collection.labels("llama3-8b-direct")) == 7263 - 54
    kinds = {fault.kind for fault in collection.warnings}
    assert kinds == {"encoding", "duplicate-text"}
