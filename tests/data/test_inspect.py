"""`ablate data inspect` as a user reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def inspect(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate.cli", "data", "inspect", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False
    )


def test_counts_lengths_histogram_overlap_and_agreement(tiny_collection: str) -> None:
    done = inspect(tiny_collection)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("60 passages, words: mean ")
    assert any(line.split()[:4] == ["split", "train", "18", "36"] for line in lines)
    assert any(line.startswith("source weak") for line in lines)
    assert any(line.startswith("weak against qrels: 30 pairs judged by both") for line in lines)
    assert any("tiny/train and tiny/test share: 0 of 7 test queries" in line for line in lines)


def test_the_strongest_conflicts_are_a_table(tmp_path: Path, tiny_collection: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("corpus.jsonl", "queries.jsonl", "qrels"):
        (folder / name).symlink_to(Path(tiny_collection) / name)
    (folder / "labels").mkdir()
    rows = ["query-id\tcorpus-id\tscore", "q1\tp2\t0", "q1\tp3\t0", "q2\tp4\t1"]
    (folder / "labels" / "odd.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = inspect(str(folder), "--conflicts", "odd", "--limit", "1")
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()[:2]
    assert head.split()[:4] == ["query", "passage", "human", "machine"]
    assert row.split()[:4] == ["q1", "p2", "2", "0"]
    assert "p3" not in done.stdout
    listed = json.loads(inspect(str(folder), "--conflicts", "odd", "--json").stdout)["conflicts"]
    assert [one["passage_id"] for one in listed] == ["p2", "p3"]
    wrong = inspect(str(folder), "--conflicts", "old")
    assert wrong.returncode == 2 and "did you mean 'odd'" in wrong.stderr
