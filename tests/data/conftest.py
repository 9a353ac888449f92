"""Small collections, written by the tests; helpers come as fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from trainables.data.cache import Cache
from trainables.data.collections import Collection, open_collection
from trainables.data.labels import TrainingLabels

Rows = Iterable[tuple[str, str, int]]
Make = Callable[..., Collection]
HEADER = "query-id\tcorpus-id\tscore"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "default-cache"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _judged(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *(f"{query}\t{passage}\t{grade}" for query, passage, grade in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _folder(
    folder: Path,
    passages: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Rows],
    labels: Mapping[str, Rows] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for part, tables in (("qrels", qrels), ("labels", labels or {})):
        for name, rows in tables.items():
            _judged(folder / part / f"{name}.tsv", rows)
    return folder


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., Path]:
    """Writes a folder in BEIR's layout."""
    return _folder


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Opens a collection made from judgements alone: texts are made up, ids are p0…, q0…."""

    def made(
        qrels: Mapping[str, Rows],
        labels: Mapping[str, Rows] | None = None,
        passages: int = 40,
        queries: int = 10,
    ) -> Collection:
        root = tmp_path_factory.mktemp("made")
        folder = _folder(
            root / "made",
            {f"p{i}": f"passage number {i}" for i in range(passages)},
            {f"q{i}": f"query number {i}" for i in range(queries)},
            qrels,
            labels,
        )
        return open_collection(str(folder), Cache(root / "cache"))

    return made


@pytest.fixture(scope="session")
def positives() -> Callable[[Collection, TrainingLabels], dict[str, list[str]]]:
    """Query id -> the ids of its positives, in their order."""

    def found(collection: Collection, labels: TrainingLabels) -> dict[str, list[str]]:
        rows = [
            labels.passage_rows[start:end]
            for start, end in zip(labels.offsets[:-1], labels.offsets[1:], strict=True)
        ]
        queries = collection.queries.ids(labels.query_rows)
        return {q: collection.passages.ids(part) for q, part in zip(queries, rows, strict=True)}

    return found
