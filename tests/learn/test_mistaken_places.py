"""Places that a user names and that cannot be: tables, claims, addresses of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.learn.claims import load_claims
from ablate.learn.export import export_trials
from ablate.learn.results import Results
from ablate.learn.tracking.door import check_uri
from trainables.errors import InvalidInput


def test_a_table_goes_into_a_file_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("kept")
    for name, rule in (
        ("folder.csv", "is a folder"),
        ("file/trials.csv", "is a file"),
        ("trials.txt", ".parquet"),
    ):
        with pytest.raises(InvalidInput) as caught:
            export_trials(cast("Results", None), tmp_path / name)
        (problem,) = caught.value.problems
        assert problem.key == "--out" and rule in problem.rule and problem.nearest
    assert (tmp_path / "file").read_text() == "kept"


def test_claims_not_to_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        load_claims(tmp_path)
    closed = tmp_path / "closed.yaml"
    closed.write_text("claims: []")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InvalidInput, match=r"cannot be read: Permission denied .*closed\.yaml"):
        load_claims(closed)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000", "https://host", "sqlite:///a.db", "mysql+pymysql://u:p@h/d",
        "postgresql://h/d", "mssql://h/d", "file:///a", "databricks", "databricks://profile",
        "./mlruns", "/a/b", "runs", None,
    ],
)  # fmt: skip
def test_addresses_that_mlflow_knows_pass(uri: str | None) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "near"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000/x", "http://localhost:5000/x"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("htp://user:word@host", "http://***@host"),
        ("foo://x", None),
    ],
)
def test_other_addresses_are_refused_before_any_work(uri: str, near: str | None) -> None:
    for words in (
        ["track", "quickstart", "--tracking-uri"],
        ["compare", "quickstart", "--tracking-uri"],
        ["run", "quickstart", "--tracking-uri"],
        ["evaluate", "model", "--on", "nq/test", "--out", "out", "--track"],
    ):
        error = CliRunner().invoke(app, [*words, uri]).exception
        assert isinstance(error, InvalidInput)
        (problem,) = error.problems
        assert (problem.key, problem.nearest) == (words[-1], near)
        assert "word" not in str(problem) and "http:" in problem.rule
