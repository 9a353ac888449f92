"""Cluster files and orders that the tests of launches share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ablate.run.cluster import launch as steps
from ablate.run.cluster.shapes import Layout
from ablate.run.cluster.templates import template

ROOT = Path(__file__).resolve().parents[2]


def written(tmp_path: Path, provider: str, layout: Layout | None = None) -> Path:
    path = tmp_path / f"{provider}.yaml"
    path.write_text(template(provider, layout or Layout()), encoding="utf-8")
    return path


def changed(tmp_path: Path, provider: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = yaml.safe_load(template(provider, Layout()))
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def an_order(**changes: Any) -> steps.Order:
    settings: dict[str, Any] = {
        "study": "losses", "source": "losses", "arguments": ("--set", "a=1 2"),
        "report_arguments": ("--set", "a=1 2"), "runs": "s3://bucket/ablate", "into": Path("runs"),
        "job_id": "ablate-losses-1", "nodes": ("8xCPU=8,GPU=1",), "down": True,
    }  # fmt: skip
    return steps.Order(**{**settings, **changes})


def ablate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
