"""The commands as a user meets them: mistakes end in a message and a code, a wheel has it all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def ablate(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ablate.cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def test_every_mistake_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    study = tmp_path / "wrong.yaml"
    study.write_text(
        "question: What is wrong here?\n"
        "fixed:\n"
        "  data.train: pydocs/smal\n"
        "  encoder.backbone: packaged/all-MiniLM-L6-v2\n"
        "  optim.lr: 1e-5\n"
        "  optim.batch_size: 0\n"
        "  optim.steps: 5\n"
        "  loss.tempratur: 0.1\n"
        "compare: {loss.name: [jointlh, lse_pair]}\n"
        "select: {maximize: pydocs/small/test/ndcg_at_10}\n"
        "evaluate: [pydocs/small/test]\n",
        encoding="utf-8",
    )
    done = ablate("run", "wrong.yaml", "--runs", "runs", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for place, said in (
        ("wrong.yaml:3", "split of pydocs"),
        ("wrong.yaml:5", "write 1.0e-05"),
        ("wrong.yaml:6", "greater than or equal to 1"),
        ("wrong.yaml:8", "did you mean 'loss.temperature'"),
        ("wrong.yaml:9", "did you mean 'joint_lh'"),
        ("wrong.yaml:10", "test"),
    ):
        lines = [line for line in done.stderr.splitlines() if f"{place}:" in line]
        assert any(said in line for line in lines), (place, said, done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.yaml"]


def test_words_that_are_no_command_or_option_end_in_code_2(tmp_path: Path) -> None:
    for words in (["rnu"], ["plan"], ["plan", "quickstart", "--set", "x"], ["plan", "quickstrat"]):
        done = ablate(*words, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, words


def test_a_plan_for_programs_is_json(tmp_path: Path) -> None:
    done = ablate("plan", "quickstart", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["cells"]) == 10 and len(plan["trials"]) == plan["trial_count"] == 20
    assert plan["estimate"]["trials"] == 20
    assert {"code", "text"} == set(plan["warnings"][0])


def test_reports_of_what_was_never_run_say_so(tmp_path: Path) -> None:
    for command in ("report", "track"):
        done = ablate(command, "quickstart", "--runs", str(tmp_path / "runs"), cwd=tmp_path)
        assert done.returncode == 2 and "has not been run" in done.stderr


def test_a_wheel_holds_the_presets(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("ablate", "trainables", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    there = ablate("presets", cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed"))
    here = ablate("presets", cwd=ROOT)
    assert "quickstart" in there.stdout and there.stdout == here.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import search_spaces as s; print(s.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path / "installed"))
    page = tmp_path / "installed" / "ablate" / "learn" / "templates" / "report.html.j2"
    assert page.exists()
