"""Fixtures that every room shares: a tiny backbone, a tiny collection, the shared real data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

# Its consoles keep the streams they find when it is first imported: inside a test those of the
# test, which are closed behind it.
import ablate.cli.show  # noqa: F401
from tests.tiny import WORDS, write_backbone

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a BERT with 2 layers of width 32, random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("backbone")
    write_backbone(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_collection(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder in BEIR layout: 60 passages, 30 queries over train/dev/test, one machine source.

    Every query has two human positives (grades 2 and 1); the machine source `weak` keeps the
    first, adds a wrong one, and grades 0 another.
    """
    folder = tmp_path_factory.mktemp("collections") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    (folder / "labels").mkdir()
    passages = [
        {
            "_id": f"p{i}",
            "title": f"{WORDS[i % len(WORDS)]} {i}",
            "text": " ".join(
                WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(6 + i % 20)
            ),
        }
        for i in range(60)
    ]
    queries = [
        {"_id": f"q{i}", "text": " ".join(passages[2 * i]["text"].split()[:4])} for i in range(30)
    ]
    for name, rows in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    header = "query-id\tcorpus-id\tscore"
    for split, members in (("train", range(18)), ("dev", range(18, 23)), ("test", range(23, 30))):
        lines = [header]
        for i in members:
            lines += [f"q{i}\tp{2 * i}\t2", f"q{i}\tp{2 * i + 1}\t1"]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [header]
    for i in range(30):
        lines += [
            f"q{i}\tp{2 * i}\t1",
            f"q{i}\tp{(2 * i + 9) % 60}\t1",
            f"q{i}\tp{(2 * i + 5) % 60}\t0",
        ]
    (folder / "labels" / "weak.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real collections; the test is skipped where they are absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ABLATE_SHARED_DATA", default))
    if not (folder / "nfcorpus" / "corpus.jsonl").exists():
        pytest.skip(f"the real collections are not at {folder}; set ABLATE_SHARED_DATA")
    return folder
