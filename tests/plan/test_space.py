"""Spaces refuse bad bounds, stay inside them, and survive YAML and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ablate.plan.space import (
    KINDS,
    Choice,
    Fixed,
    Grid,
    Integer,
    LogUniform,
    Space,
    Uniform,
    is_random,
    parse_space,
)
from trainables.errors import InvalidInput

FORMS: list[tuple[Any, Space]] = [
    (0.5, Fixed(0.5)),
    ("cls", Fixed("cls")),
    (None, Fixed(None)),
    ([1, 2], Grid((1, 2))),
    ({"grid": ["mean", "cls"]}, Grid(("mean", "cls"))),
    ({"choice": [True, 1, "a", None]}, Choice((True, 1, "a", None))),
    ({"uniform": [0, 1]}, Uniform(0.0, 1.0)),
    ({"log_uniform": [1.0e-6, 1.0e-4]}, LogUniform(1e-6, 1e-4)),
    ({"integer": [1, 8]}, Integer(1, 8)),
]

REFUSED: list[tuple[Any, str]] = [
    ([], "grid: needs at least one value (got [])"),
    ([1, 1], "grid: its values must differ (got [1, 1])"),
    ([1, 1.0], "its values must differ"),
    ([[1]], "a value is text, a number, true, false or null (got [1])"),
    ([float("nan")], "a number must be finite"),
    ({}, "names exactly one of grid, choice"),
    ({"uniform": [0, 1], "choice": [1]}, "names exactly one of"),
    ({"log_unifrom": [1, 2]}, "did you mean 'log_uniform'?"),
    ({"LogUniform": [1, 2]}, "is no kind of space"),
    ({"uniform": 3}, "uniform: needs a list (got 3)"),
    ({"uniform": [1]}, "needs its two bounds, [low, high] (got [1])"),
    ({"uniform": [2, 1]}, "uniform: `low < high` must hold (got [2, 1])"),
    ({"uniform": [1, 1]}, "`low < high` must hold"),
    ({"uniform": ["1e-6", 1]}, "is a number that YAML read as text; write 1.0e-06 (got '1e-6')"),
    ({"uniform": [True, 2]}, "its bounds must be numbers"),
    ({"uniform": [0, float("inf")]}, "its bounds must be finite"),
    ({"uniform": [0, 10**400]}, "its bounds must be finite"),
    ({"log_uniform": [0, 1]}, "log_uniform: `0 < low` must hold (got [0.0, 1.0])"),
    ({"log_uniform": [-1, 1]}, "`0 < low` must hold"),
    ({"integer": [1.0, 2]}, "its bounds must be whole numbers"),
    ({"integer": [True, 2]}, "its bounds must be whole numbers"),
    ({"integer": [3, 3]}, "integer: `low < high` must hold"),
    ({"integer": [0, 2**60]}, "must lie within 2**53"),
]


@pytest.mark.parametrize(("written", "space"), FORMS)
def test_every_form_is_read_and_survives_yaml_and_json(written: Any, space: Space) -> None:
    assert parse_space(written) == space
    assert parse_space(yaml.safe_load(yaml.safe_dump(space.to_yaml()))) == space
    assert parse_space(json.loads(json.dumps(space.to_yaml()))) == space


def test_the_forms_cover_every_kind() -> None:
    tried = {kind for written, _ in FORMS if isinstance(written, dict) for kind in written}
    assert tried == set(KINDS)


@pytest.mark.parametrize(("written", "message"), REFUSED)
def test_bad_spaces_are_refused_with_rule_and_value(written: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_space(written)
    assert message in str(caught.value)


units = st.floats(0, 1, exclude_max=True)
bounds = st.floats(-1e12, 1e12)
scales = st.floats(1e-12, 1e12)


@given(bounds, bounds, units)
def test_uniform_stays_within_its_bounds(one: float, other: float, unit: float) -> None:
    if one != other:
        low, high = sorted((one, other))
        assert low <= Uniform(low, high).at(unit) <= high


@given(scales, scales, units)
def test_log_uniform_stays_within_its_bounds(one: float, other: float, unit: float) -> None:
    if one != other:
        low, high = sorted((one, other))
        assert low <= LogUniform(low, high).at(unit) <= high


@given(st.integers(-1000, 1000), st.integers(1, 1000), units)
def test_integer_and_choice_reach_members_alone(low: int, span: int, unit: float) -> None:
    drawn = Integer(low, low + span).at(unit)
    assert type(drawn) is int
    assert low <= drawn <= low + span
    values = tuple(range(span))
    assert Choice(values).at(unit) in values


def test_every_member_has_an_equal_share() -> None:
    units_spread = [i / 600 for i in range(600)]
    integers = [Integer(1, 3).at(unit) for unit in units_spread]
    choices = [Choice(("a", "b", "c")).at(unit) for unit in units_spread]
    assert [integers.count(value) for value in (1, 2, 3)] == [200, 200, 200]
    assert [choices.count(value) for value in "abc"] == [200, 200, 200]


def test_log_uniform_spreads_over_the_orders_of_magnitude() -> None:
    space = LogUniform(1e-6, 1e-2)
    assert [space.at(unit) for unit in (0.0, 0.25, 0.5, 0.75)] == [1e-6, 1e-5, 1e-4, 1e-3]


def test_drawn_numbers_are_short_so_that_every_machine_draws_the_same() -> None:
    assert Uniform(0, 1).at(1 / 3) == 0.333333
    assert LogUniform(1, 10).at(0.5) == 3.16228


def test_lists_are_not_drawn_from() -> None:
    assert [is_random(space) for _, space in FORMS] == [False] * 5 + [True] * 4
