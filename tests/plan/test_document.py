"""YAML with its lines, and the traps that YAML sets."""

from __future__ import annotations

import pytest

from ablate.plan.document import read_document, read_value
from trainables.errors import InvalidInput


def test_every_key_and_item_has_its_line() -> None:
    text = "a: 1\nb:\n  c: [1,\n    2]\n  d: {e: 3}\n"
    document, problems = read_document(text, "f.yaml")
    assert problems == []
    assert document.value == {"a": 1, "b": {"c": [1, 2], "d": {"e": 3}}}
    assert document.place("a") == "f.yaml:1"
    assert document.place("b", "c", 1) == "f.yaml:4"
    assert document.place("b", "d", "e") == "f.yaml:5"
    assert document.place("b", "missing", 3) == "f.yaml:2"
    assert document.place() == "f.yaml"


def test_keys_written_twice_are_reported_with_both_lines() -> None:
    document, problems = read_document("a: 1\nb: {c: 1, c: 2}\na: 2\n", "f.yaml")
    assert [str(problem) for problem in problems] == [
        "f.yaml:2: c: is written twice, first on line 2",
        "f.yaml:3: a: is written twice, first on line 1",
    ]
    assert document.value == {"a": 1, "b": {"c": 1}}


def test_keys_that_are_no_text_are_reported() -> None:
    _, problems = read_document("1: a\non: b\n? [x]\n: c\n", "f.yaml")
    assert [problem.key for problem in problems] == ["1", "on", "a list or mapping"]


def test_aliases_are_refused_before_they_can_grow() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    document, problems = read_document(bomb, "f.yaml")
    assert [problem.place for problem in problems] == ["f.yaml:2"] * 2 + ["f.yaml:3"] * 2
    assert document.value == {"a": ["x", "x"], "b": [None, None], "c": [None, None]}


@pytest.mark.parametrize(
    ("text", "place", "rule"),
    [
        ("a: [1, 2\nb: 3\n", "f.yaml:2", "expected ',' or ']'"),
        ("a:\n\t- 1\n", "f.yaml:2", "cannot start any token"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2", "expected a single document"),
        ("a: !!python/object/apply:os.system [ls]\n", "f.yaml:1", "carries a tag"),
        ("a: !!python/name:os.system x\n", "f.yaml:1", "carries a tag"),
        ("a: 2024-13-45\n", "f.yaml:1", "month"),
        ("a: 1\nb: !!bool foo\n", "f.yaml:2", "true or false"),
        ('a: !!int ""\n', "f.yaml:1", "a whole number"),
        ('a: !!float ""\n', "f.yaml:1", "a number"),
        ("a: !!timestamp foo\n", "f.yaml:1", "a date"),
        ("a: 1\n2024-13-45: 1\n", "f.yaml:2", "a key is text"),
        ("!!bool foo: 1\n", "f.yaml:1", "a key is text"),
        ("a: \x01\n", "f.yaml", "special characters are not allowed"),
        ("[" * 5000, "f.yaml", "nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_reported_with_its_line(text: str, place: str, rule: str) -> None:
    try:
        _, problems = read_document(text, "f.yaml")
    except InvalidInput as error:
        problems = list(error.problems)
    assert [problem.place for problem in problems] == [place]
    assert rule in problems[0].rule


def test_values_on_the_command_line_are_yaml() -> None:
    assert read_value("[0.02, 1.0e-1]", "--set x") == [0.02, 0.1]
    assert read_value("1e-6", "--set x") == "1e-6"
    assert read_value("", "--set x") is None
    with pytest.raises(InvalidInput, match="--set x:1"):
        read_value("{a: 1, a: 2}", "--set x")


def test_a_damaged_scalar_hides_no_other_mistake() -> None:
    document, problems = read_document("a: !!bool foo\nb: 2\nc: !!int ''\nb: 3\n", "f.yaml")
    assert [problem.key for problem in problems] == ["a", "c", "b"]
    assert [problem.value for problem in problems[:2]] == ["foo", ""]
    assert document.value == {"a": None, "b": 2, "c": None}
