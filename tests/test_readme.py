"""The README says what is true: its tables are the registries', its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from ablate.cli.commands import app
from ablate.learn.claims.read import CONTRAST_KEYS, find_claims
from ablate.plan.parts import BLOCKS
from ablate.plan.settings import RULES
from ablate.plan.study import load_study

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_registries(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import readme_tables as r;"
        "text = r.README.read_text(encoding='utf-8'); sys.exit(r.with_tables(text) != text)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "tests")], check=False)
    assert done.returncode == 0, "stale: python tests/readme_tables.py"


def test_every_command_is_named_and_every_named_command_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^\| `ablate ([a-z]+)", TEXT, re.MULTILINE))
    assert named
    assert named == set(commands)


def test_every_command_has_help_with_an_example() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    simple = [name for name, command in commands.items() if not hasattr(command, "commands")]
    assert len(simple) > 8
    for name in simple:
        done = CliRunner().invoke(app, [name, "--help"])
        assert done.exit_code == 0 and f"ablate {name}" in done.output, name


def test_files_that_it_points_to_exist() -> None:
    paths = re.findall(r"\]\(([^)#:]+)\)", TEXT) + re.findall(r"`(docs/[\w./-]+)`", TEXT)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_examples_of_the_study_page_are_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    study, claims = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.yaml").write_text(study, encoding="utf-8")
    (tmp_path / "page.claims.yaml").write_text(claims, encoding="utf-8")
    read = load_study(str(tmp_path / "page.yaml"))
    assert len(read.cells()) == 6 and len(read.excluded()) == 2
    assert [claim.id for claim in find_claims(str(tmp_path / "page.yaml"))] == ["H1"]
    rows = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert {*BLOCKS, *RULES} - {"question"} <= rows
    assert {*CONTRAST_KEYS} - {"margin"} <= {*rows, "right"}
