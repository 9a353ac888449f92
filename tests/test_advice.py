"""A message names options that the command has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.run import annotation, single
from trainables.errors import InvalidInput


def options_of(command: str) -> set[str]:
    commands: Any = typer.main.get_command(app)
    return {word for each in commands.commands[command].params for word in each.opts}


def mistakes(*words: str) -> list[str]:
    error = CliRunner().invoke(app, list(words)).exception
    assert isinstance(error, InvalidInput), error
    return [str(problem) for problem in error.problems]


def test_train_takes_what_it_advises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[dict[str, Any]] = []

    def train_one(flat: dict[str, Any], *_: object) -> dict[str, Any]:
        trained.append(flat)
        return {"metrics": {}}

    monkeypatch.setattr(single, "train_one", train_one)
    words = ["train", "quickstart", "--out", str(tmp_path / "out")]
    said = mistakes(*words)
    assert any("--set or --only" in each for each in said)
    chosen = ["--only", "loss.name=lse_pair", "--only", "loss.temperature=0.02"]
    assert CliRunner().invoke(app, [*words, *chosen]).exception is None
    assert [flat["loss.name"] for flat in trained] == ["lse_pair"]
    (refused,) = mistakes(*words, "--only", "loss.name=lse_pari")
    assert "did you mean 'lse_pair'" in refused


@pytest.mark.parametrize("command", [["plan"], ["run"], ["train", "--out", "out"]])
def test_a_word_without_a_value_is_said_of_its_own_option(command: list[str]) -> None:
    name, *rest = command
    found = mistakes(name, "quickstart", "--only", "loss.name", "--set", "optim.lr", *rest)
    assert len(found) == 2
    assert found[0].startswith("--set: must be KEY=VALUE (got 'optim.lr')")
    assert found[1].startswith("--only: must be KEY=VALUE (got 'loss.name')")


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder", "causal-lm"])
def test_the_options_of_an_annotator_are_options_of_the_command(kind: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        annotation._annotator("model", kind, {"nothing": 1})
    (problem,) = caught.value.problems
    listed = problem.rule.rpartition(": ")[2].split(", ")
    assert "--depth" in listed or "--least" in listed
    assert set(listed) <= options_of("annotate")
    assert set(annotation.GIVEN) <= {name.removeprefix("--") for name in options_of("annotate")}
