"""Collections of the Hugging Face Hub: what is asked for, and what real files of its layout give.

`datasets` itself reads local repositories here, with the files and the README of those on the Hub.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.cli import WRONG_INPUT
from trainables.data.cache import Cache
from trainables.data.collections import COLLECTIONS, Collection, open_collection
from trainables.data.collections.beir import CQADUPSTACK, SETS
from trainables.errors import InvalidInput

CORPUS = [
    {"_id": f"d{i}" if i % 2 else str(i), "title": f"T{i}" if i else "", "text": f"text {i}"}
    for i in range(6)
]
QUERIES = [{"_id": str(i), "title": "", "text": f"a claim {i}"} for i in range(3)]
QRELS = [("0", "d1", 1), ("1", "2", 2), ("2", "d3", 0), ("2", "4", 1)]
CLOSED = ("bioasq", "signal1m", "trec-news", "robust04")

Asked = list[tuple[str, str | None, str]]
Loader = Callable[..., Any]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of repositories, `<owner>/<name>`, that stands for the Hub."""
    real: Loader = datasets.load_dataset

    def local(path: str, name: str | None, **named: Any) -> Any:
        return real(str(tmp_path / path), name, **named, cache_dir=str(tmp_path / "hf"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    return tmp_path


def readme(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A set", ""]), encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def labelled(collection: Collection, split: str) -> dict[str, dict[str, int]]:
    return collection.judgements(split).by_query()


def check(collection: Collection) -> None:
    assert collection.passages.ids(range(6)) == [row["_id"] for row in CORPUS]
    assert collection.passages.text([0, 1]) == ["text 0", "T1 text 1"]
    assert collection.queries.text(range(3)) == [row["text"] for row in QUERIES]
    assert labelled(collection, "test") == {
        "0": {"d1": 1}, "1": {"2": 2}, "2": {"d3": 0, "4": 1}
    }  # fmt: skip
    assert not [fault for fault in collection.warnings if fault.kind.startswith("dangling")]


@pytest.mark.parametrize("form", ["parquet", "jsonl.gz"])
def test_a_set_with_judgements_in_a_repository_of_their_own(
    repositories: Path, cache: Cache, form: str
) -> None:
    """`BeIR/<set>` and `BeIR/<set>-qrels`, whose tables have no types but what they look like."""
    texts, judged = repositories / "BeIR" / "scifact", repositories / "BeIR" / "scifact-qrels"
    for config, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        path = texts / config / f"{config}-00000-of-00001.{form}"
        write_jsonl(path, rows)
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    readme(texts, {c: {c: f"{c}/*.{form}"} for c in ("corpus", "queries")})
    judged.mkdir(parents=True)
    table = "query-id\tcorpus-id\tscore\n" + "".join("{}\t{}\t{}\n".format(*row) for row in QRELS)
    for split in ("train", "validation", "test"):
        (judged / f"{split}.tsv").write_text(table, encoding="utf-8")
    collection = open_collection("beir/scifact", cache)
    check(collection)
    assert collection.splits == ("train", "dev", "test")


@pytest.mark.parametrize("ids", ["digits", "both"])
def test_ids_of_digits_keep_their_zeros(repositories: Path, cache: Cache, ids: str) -> None:
    """A table without types is read by what it looks like, and 007 looks like 7."""
    texts, judged = repositories / "BeIR" / "scifact", repositories / "BeIR" / "scifact-qrels"
    passages = ["001", "002", "1"] if ids == "digits" else ["001", "d2", "1"]
    for config, names in (("corpus", passages), ("queries", ["007", "7"])):
        rows = [{"_id": name, "title": "", "text": f"text {name}"} for name in names]
        (texts / config).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), texts / config / f"{config}.parquet")
    readme(texts, {c: {c: f"{c}/*.parquet"} for c in ("corpus", "queries")})
    judged.mkdir(parents=True)
    table = "query-id\tcorpus-id\tscore\n" + "".join(f"007\t{p}\t1\n" for p in passages[:2])
    for split in ("train", "validation", "test"):
        (judged / f"{split}.tsv").write_text(table, encoding="utf-8")
    collection = open_collection("beir/scifact", cache)
    assert labelled(collection, "test") == {"007": dict.fromkeys(passages[:2], 1)}
    assert not [fault for fault in collection.warnings if fault.kind.startswith("dangling")]


def test_a_set_in_one_repository(repositories: Path, cache: Cache) -> None:
    """`mteb/cqadupstack-<part>`, with the judgements as the configuration `default`."""
    folder = repositories / "mteb" / "cqadupstack-android"
    write_jsonl(folder / "corpus.jsonl", CORPUS)
    write_jsonl(folder / "queries.jsonl", QUERIES)
    rows = [{"query-id": q, "corpus-id": p, "score": float(grade)} for q, p, grade in QRELS]
    write_jsonl(folder / "qrels" / "test.jsonl", rows)
    readme(
        folder,
        {
            "default": {"test": "qrels/test.jsonl"},
            "corpus": {"corpus": "corpus.jsonl"},
            "queries": {"queries": "queries.jsonl"},
        },
    )
    check(open_collection("beir/cqadupstack/android", cache))


def test_a_repository_without_the_corpus_says_what_it_has(repositories: Path, cache: Cache) -> None:
    folder = repositories / "me" / "odd"
    write_jsonl(folder / "texts.jsonl", CORPUS)
    readme(folder, {"texts": {"corpus": "texts.jsonl"}})
    with pytest.raises(InvalidInput, match=r"me/odd@v1: .*'corpus' not found.*\['texts'\]"):
        open_collection("hf:me/odd@v1", cache)


def test_damaged_files_are_told_with_their_reason(repositories: Path, cache: Cache) -> None:
    folder = repositories / "me" / "broken"
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": \n', encoding="utf-8")
    readme(folder, {"corpus": {"corpus": "corpus.jsonl"}})
    with pytest.raises(InvalidInput, match=r"cannot be fetched from me/broken@main: .*JSON"):
        open_collection("hf:me/broken", cache)


def test_tevatrons_files(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str, str]] = []
    passages = [{"docid": str(i), "title": f"T{i}", "text": f"text {i}"} for i in range(4)]
    lines: dict[str, Any] = {
        "query_id": "7", "query": "what", "answers": ["x"],
        "positive_passages": passages[:1], "negative_passages": passages[1:3],
    }  # fmt: skip
    files: dict[str, list[dict[str, Any]]] = {
        "corpus.jsonl.gz": passages,
        "nq-train.jsonl.gz": [lines],
        "nq-dev.jsonl.gz": [lines],
    }

    def fetch(repository: str, name: str, *, repo_type: str, revision: str) -> str:
        asked.append((repository, name, repo_type, revision))
        write_jsonl(tmp_path / repository / name, files[name])
        return str(tmp_path / repository / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    collection = open_collection("nq/dpr", cache)
    assert asked == [
        ("Tevatron/wikipedia-nq-corpus", "corpus.jsonl.gz", "dataset", "main"),
        ("Tevatron/wikipedia-nq", "nq-train.jsonl.gz", "dataset", "main"),
        ("Tevatron/wikipedia-nq", "nq-dev.jsonl.gz", "dataset", "main"),
    ]
    assert collection.splits == ("train", "dev") and len(collection.passages) == 4
    assert labelled(collection, "train") == {"train-7": {"0": 1}}
    assert list(collection.labels("negatives").passage_ids[:2]) == ["1", "2"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every request to the Hub, each answered with a table of the right form."""
    found: Asked = []

    def stand_in(path: str, name: str | None, *, revision: str) -> Any:
        found.append((path, name, revision))
        rows: list[dict[str, Any]] = {"corpus": CORPUS, "queries": QUERIES}.get(name or "", [])
        if name is None:
            rows = [
                dict(zip(("query-id", "corpus-id", "score"), row, strict=True)) for row in QRELS
            ]
        return {name or "test": datasets.Dataset.from_list(rows)}

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    return found


@pytest.mark.parametrize("name", [name for name in COLLECTIONS if name.startswith("beir/")])
def test_every_beir_name_asks_for_the_right_repository(
    asked: Asked, cache: Cache, name: str
) -> None:
    short = name.removeprefix("beir/")
    if short in CLOSED:
        with pytest.raises(InvalidInput, match="may not be passed on: ask for it at"):
            open_collection(name, cache)
        assert asked == []
        return
    check(open_collection(name, cache))
    revisions = [revision for _, _, revision in asked]
    if short in SETS:
        texts, judged = f"BeIR/{short}", f"BeIR/{short}-qrels"
        pinned = "not pinned" not in COLLECTIONS[name].revision()
    else:
        part = short.removeprefix("cqadupstack/")
        texts = judged = f"mteb/cqadupstack-{part}"
        pinned = True
        assert set(revisions) == {CQADUPSTACK[part][2]}
    assert [(path, config) for path, config, _ in asked] == [
        (texts, "corpus"), (texts, "queries"), (judged, None)
    ]  # fmt: skip
    assert pinned == all(len(revision) == 40 for revision in revisions)
    assert pinned or set(revisions) == {"main"}


def test_the_registry_has_every_set_of_beir() -> None:
    """The 18 of Thakur et al. beside MS MARCO, of which CQADupStack is twelve."""
    names = {name.split("/")[1] for name in COLLECTIONS if name.startswith("beir/")}
    assert names == {*SETS, "cqadupstack", *CLOSED}
    assert len(names - {"msmarco"}) == 18 and len(CQADUPSTACK) == 12


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("name", ["beir/fiqa", "nq/dpr", "hf:me/mine@v1"])
def test_no_network_is_told_with_the_reason_and_the_way_on(
    name: str, offline: bool, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    broken = HfHubHTTPError.__bases__[0]

    def fail(*given: Any, **named: Any) -> Any:
        if offline:
            raise ConnectionError("Couldn't reach it on the Hub (OfflineModeIsEnabled)")
        raise broken("[Errno -2] Name or service not known.")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(InvalidInput) as caught:
        open_collection(name, cache)
    reason = "(OfflineModeIsEnabled). HF_HUB_OFFLINE forbids" if offline else "not known. Try again"
    said = str(caught.value)
    assert reason in said and name in said and "corpus.jsonl, queries.jsonl, qrels/" in said
    assert not list(cache.root.glob("collections/[!.]*"))


def test_no_network_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "COLUMNS": "500"}
    env["ABLATE_CACHE"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "ablate.cli", "data", "inspect", "beir/scifact"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == WRONG_INPUT
    assert "cannot be fetched from BeIR/scifact@" in done.stderr and "unset it" in done.stderr
    assert "Traceback" not in done.stderr
