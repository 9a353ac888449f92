"""The house of the design: who may import whom, and one door to each heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ablate", "trainables", "search_spaces")

BASE = ("trainables.errors", "trainables.spec", "trainables.tokens")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "search_spaces": (),
    "trainables.errors": (),
    "trainables.tokens": (),
    "trainables.spec": ("trainables.errors", "trainables.model.losses"),
    "trainables.faults": ("trainables.errors",),
    "trainables.whole": (),
    "trainables.places": (),
    "trainables.scratch": (),
    "trainables.cpus": (),
    "trainables.looks": ("trainables.patience",),
    "trainables.patience": (),
    "trainables.memory": (),
    "trainables.data": (*BASE, "trainables.data"),
    "trainables.model.losses": (),
    "trainables.model": (*BASE, "trainables.model"),
    "trainables.evaluation": (
        *BASE,
        "trainables.data",
        "trainables.model",
        "trainables.evaluation",
    ),
    "trainables.prepare": (
        *BASE,
        "trainables.data",
        "trainables.model",
        "trainables.evaluation",
        "trainables.prepare",
    ),
    "trainables.feed": (
        *BASE,
        "trainables.data",
        "trainables.model",
        "trainables.prepare",
    ),
    "trainables.train": (
        "trainables.feed",
        "trainables.looks",
        "trainables.memory",
        "trainables.whole",
        *BASE,
        "trainables.data",
        "trainables.model",
        "trainables.evaluation",
        "trainables.prepare",
    ),
    "trainables.worker": ("trainables",),
    "trainables.probe": (
        "trainables.faults",
        "trainables.train",
        *BASE,
        "trainables.data",
        "trainables.model",
        "trainables.evaluation",
    ),
    "ablate.plan": (
        "trainables.model.backbones",
        "trainables.cpus",
        "trainables.errors",
        "trainables.spec",
        "trainables.data.cache",
        "trainables.data.collections",
        "trainables.data.overlap",
        "trainables.data.sources",
        "trainables.evaluation.metrics",
        "trainables.model.losses",
        "ablate.plan",
        "search_spaces",
    ),
    "ablate.run": (
        "trainables.errors",
        "trainables.spec",
        "trainables.worker",
        "trainables.train",
        "ablate.plan",
        "ablate.run",
        "ablate",
        "trainables",
        "search_spaces",
    ),
    "ablate.learn": (
        "trainables.errors",
        "trainables.spec",
        "trainables.data.cache",
        "trainables.data.collections",
        "trainables.evaluation.means",
        "trainables.evaluation.metrics",
        "trainables.model.losses",
        "ablate.plan",
        "ablate.run.ledger",
        "ablate.run.store",
        "ablate.learn",
    ),
    "ablate.cli": ("ablate", "trainables"),
}
"""Module or package -> prefixes it may import; the longest matching entry holds."""

DOORS: dict[str, tuple[str, ...]] = {
    "ray.train": ("trainables/worker.py",),
    "ray.tune": ("ablate/run/sweep.py",),
    "optuna": ("ablate/run/adaptive.py",),
    "mlflow": ("ablate/learn/tracking/door.py",),
    "faiss": ("trainables/evaluation/search.py",),
    "transformers": (
        "trainables/model/encoder.py",
        "trainables/data/tokenize.py",
        "trainables/prepare/judges.py",
    ),
}
LIGHT = (
    "ablate.cli",
    "ablate.plan.study",
    "ablate.plan.planner",
    "ablate.plan.presets",
    "ablate.plan.estimate",
    "ablate.plan.overlaps",
    "ablate.run.ledger",
    "ablate.run.probe",
    "ablate.learn.report",
    "trainables.spec",
    "trainables.data.collections",
    "trainables.data.cache",
    "trainables.evaluation.metrics",
    "trainables.model.losses",
)
HEAVY = ("torch", "ray", "transformers", "datasets", "faiss", "mlflow", "optuna")


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) > 20
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def allowed(module: str) -> tuple[str, ...]:
    entries = [entry for entry in MAY_IMPORT if below(module, entry)]
    if module in PACKAGES or not entries:
        return ()
    return MAY_IMPORT[max(entries, key=len)]


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_arrows_point_one_way(path: Path) -> None:
    module = module_of(path)
    own = {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}
    wrong = {name for name in own if not any(below(name, may) for may in allowed(module))}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("library", DOORS)
def test_each_heavy_library_has_one_door(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(below(name, library) for name in imports_of(path))
    }
    assert users
    assert users <= set(DOORS[library])


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_functions_and_modules_fit_in_a_head() -> None:
    long = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > 40:
                    long.append(f"{path.name}:{node.name}: {size} lines")
    assert long == []
