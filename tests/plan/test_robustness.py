"""Whatever a study holds, it is read or refused with a list of mistakes; nothing else is raised."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.plan.study import read_study
from tests.plan.conftest import STUDY, plan_of
from trainables.errors import InvalidInput
from trainables.spec import KEYS, LOSS_PARAMS

FULL = """\
exclude: [{when: {loss.name: joint_lh}, reason: none}]
resources: {workers: 1, cpus_per_worker: 1, gpus_per_worker: 0, max_concurrent_trials: null}
confirm: {workers: 2}
"""
WHOLE: dict[str, Any] = yaml.safe_load(STUDY + FULL)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1e-6", "nan", "tiny", "tiny/dev", "joint_lh", "lse_pair", 0, -1, 10**400]),
)
keys = st.one_of(
    st.sampled_from([*KEYS, *LOSS_PARAMS, "grid", "choice", "uniform", "log_uniform", "integer"]),
    st.sampled_from([*WHOLE, "when", "reason", "seed", "loss", "draws_per_cell", "maximize"]),
    st.text(max_size=4),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    steps = range(len(value)) if isinstance(value, list) else value
    if isinstance(value, (dict, list)):
        for step in steps:
            yield from paths(value[step], (*path, step))


def changed(path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    whole: Any = copy.deepcopy(WHOLE)
    inner = whole
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return whole


@pytest.fixture(scope="module", autouse=True)
def collection(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    root = tmp_path_factory.mktemp("robust")
    (root / "tiny" / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv"):
        (root / "tiny" / name).write_text("", encoding="utf-8")
    (root / "tiny" / "qrels" / "test.tsv").write_text("", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


def read_or_refuse(text: str, sets: dict[str, str] | None = None) -> None:
    try:
        study = read_study(text, "study", "study.yaml", sets)
    except InvalidInput as error:
        assert error.problems
        assert len(set(map(str, error.problems))) == len(error.problems)
        return
    plan = plan_of(study)
    assert plan.trial_count >= 1
    assert next(plan.trials()).trial_id


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(paths(WHOLE), key=str)), values)
def test_any_value_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    read_or_refuse(yaml.safe_dump(changed(path, value)))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values, max_size=3), st.sampled_from(sorted(WHOLE)))
def test_any_keys_in_any_block_are_read_or_refused(block: dict[str, Any], name: str) -> None:
    read_or_refuse(yaml.safe_dump({**WHOLE, name: block}))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values.map(lambda v: yaml.safe_dump(v)), min_size=1, max_size=2))
def test_any_option_is_read_or_refused(sets: dict[str, str]) -> None:
    read_or_refuse(STUDY, sets)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)
