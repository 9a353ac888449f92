"""The other forms in which the field ships its data, on small files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trainables.data.cache import Cache
from trainables.data.collections import Collection, UnusableCollection, open_collection, parse_ref
from trainables.errors import InvalidInput


def passage(number: int, key: str = "docid", **more: Any) -> dict[str, Any]:
    return {key: str(number), "title": f"T{number}", "text": f"text {number}", **more}


TEVATRON = [
    {
        "query_id": str(i),
        "query": f"query {i}",
        "answers": ["a"],
        "positive_passages": [passage(i), passage(100 + i)],
        "negative_passages": [passage(200), passage(i)],
    }
    for i in range(4)
]
DPR = [
    {
        "dataset": "nq",
        "question": f"question {i}",
        "answers": ["a"],
        "positive_ctxs": [passage(i, "passage_id", score=1.0)],
        "negative_ctxs": [passage(300 + i, "passage_id")],
        "hard_negative_ctxs": [passage(200, "psg_id")],
    }
    for i in range(4)
]


def write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def labelled(collection: Collection, split: str) -> dict[str, dict[str, int]]:
    return collection.judgements(split).by_query()


def test_tevatron_files_carry_their_passages(tmp_path: Path, cache: Cache) -> None:
    write_lines(tmp_path / "nq-train.jsonl", TEVATRON[:3])
    packed = gzip.compress(json.dumps(TEVATRON[3] | {"query_id": "0"}).encode())
    (tmp_path / "nq-dev.jsonl.gz").write_bytes(packed)
    collection = open_collection(str(tmp_path), cache)
    assert collection.splits == ("train", "dev") and collection.sources == ("negatives",)
    assert labelled(collection, "train")["train-1"] == {"1": 1, "101": 1}
    assert labelled(collection, "dev") == {"dev-0": {"3": 1, "103": 1}}
    assert collection.labels("negatives").by_query()["train-1"] == {"200": 0}
    rows = collection.passages.rows(["101"])
    assert collection.passages.text(rows) == ["T101 text 101"]
    assert len(collection.passages) == 9 and len(collection.queries) == 4
    assert collection.warnings == ()
    assert parse_ref(str(tmp_path), "train").split == "train"


def test_a_single_tevatron_file_is_a_collection(tmp_path: Path, cache: Cache) -> None:
    write_lines(tmp_path / "train.jsonl", TEVATRON)
    collection = open_collection(str(tmp_path / "train.jsonl"), cache)
    assert collection.splits == ("train",)
    assert len(labelled(collection, "train")) == 4


def test_a_corpus_file_holds_all_passages(tmp_path: Path, cache: Cache) -> None:
    write_lines(tmp_path / "train.jsonl", TEVATRON)
    write_lines(tmp_path / "corpus.jsonl", [passage(i) for i in range(50)])
    collection = open_collection(str(tmp_path), cache)
    assert len(collection.passages) == 50
    kinds = {fault.kind for fault in collection.warnings}
    assert kinds == {"dangling-passage", "dangling"}
    assert {fault.file for fault in collection.warnings} == {"train.jsonl"}


def test_a_docid_with_two_texts_is_a_warning(tmp_path: Path, cache: Cache) -> None:
    changed = json.loads(json.dumps(TEVATRON))
    changed[1]["negative_passages"][0]["text"] = "another text"
    write_lines(tmp_path / "train.jsonl", changed)
    collection = open_collection(str(tmp_path), cache)
    assert [fault.kind for fault in collection.warnings] == ["duplicate-id"]
    assert collection.passages.text(collection.passages.rows(["200"])) == ["T200 text 200"]


def test_a_split_without_positives_is_a_warning(tmp_path: Path, cache: Cache) -> None:
    write_lines(tmp_path / "train.jsonl", TEVATRON)
    write_lines(tmp_path / "test.jsonl", [TEVATRON[0] | {"positive_passages": []}])
    collection = open_collection(str(tmp_path), cache)
    assert collection.splits == ("train",)
    assert ("empty", "test.jsonl") in {(f.kind, f.file) for f in collection.warnings}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("query", None, "has no 'query'"),
        ("query_id", "a b", "white space"),
        ("positive_passages", "text", "must be a list"),
        ("positive_passages", ["text"], "must hold objects"),
        ("positive_passages", [{"docid": "1"}], "has no 'text'"),
        ("positive_passages", [{"docid": "", "text": "x"}], "non-empty"),
    ],
)
def test_malformed_records_are_refused(
    tmp_path: Path, cache: Cache, key: str, value: object, reason: str
) -> None:
    write_lines(tmp_path / "train.jsonl", [TEVATRON[0], TEVATRON[1] | {key: value}])
    with pytest.raises(UnusableCollection) as caught:
        open_collection(str(tmp_path), cache)
    (fault,) = (fault for fault in caught.value.faults if fault.fatal)
    assert (fault.file, fault.line) == ("train.jsonl", 2) and reason in fault.detail


@pytest.mark.parametrize("indent", [None, 1])
def test_dpr_files_are_one_array(tmp_path: Path, cache: Cache, indent: int | None) -> None:
    text = "\ufeff" + json.dumps(DPR, indent=indent)
    (tmp_path / "biencoder-nq-train.json").write_text(text, encoding="utf-8")
    (tmp_path / "biencoder-nq-dev.json.gz").write_bytes(gzip.compress(json.dumps(DPR[:1]).encode()))
    collection = open_collection(str(tmp_path), cache)
    assert collection.splits == ("train", "dev")
    assert labelled(collection, "train")["train-2"] == {"1": 1}
    assert collection.labels("negatives").by_query()["train-2"] == {"200": 0, "301": 0}
    assert collection.queries.text([0]) in (["question 0"], ["question 1"])


def test_dpr_passages_without_id_are_named_by_their_text(tmp_path: Path, cache: Cache) -> None:
    records = json.loads(json.dumps(DPR))
    for record in records:
        del record["positive_ctxs"][0]["passage_id"]
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    collection = open_collection(str(tmp_path), cache)
    (identifier,) = labelled(collection, "train")["train-1"]
    assert len(identifier) == 16
    assert collection.passages.text(collection.passages.rows([identifier])) == ["T0 text 0"]


def test_dpr_wikipedia_file(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "train.json").write_text(json.dumps(DPR), encoding="utf-8")
    rows = [f'{i}\t"text ""{i}"""\tTitle {i}' for i in range(400)]
    (tmp_path / "psgs_w100.tsv").write_text("\n".join(["id\ttext\ttitle", *rows]))
    collection = open_collection(str(tmp_path), cache)
    assert len(collection.passages) == 400
    assert collection.passages.text(collection.passages.rows(["7"])) == ['Title 7 text "7"']


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.999])
def test_a_dpr_file_cut_short_is_refused(tmp_path: Path, cache: Cache, cut: float) -> None:
    text = json.dumps(DPR)
    (tmp_path / "train.json").write_text(text[: int(cut * len(text))])
    with pytest.raises(UnusableCollection, match="cut short"):
        open_collection(str(tmp_path), cache)


def test_ms_marco_files(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "collection.tsv").write_text("".join(f"{i}\tpassage\t{i}\n" for i in range(20)))
    (tmp_path / "queries.train.tsv").write_text("1\tquery one\n2\tquery two\n")
    (tmp_path / "queries.dev.small.tsv").write_text("3\tquery three\n")
    (tmp_path / "msmarco-test2019-queries.tsv").write_text("9\tquery nine\n3\tquery three\n")
    (tmp_path / "qrels.train.tsv").write_text("1\t0\t4\t1\n2\t0\t5\t1\n")
    (tmp_path / "qrels.dev.small.tsv").write_text("3\t0\t6\t1\n")
    (tmp_path / "2019qrels-pass.txt").write_text("9 Q0 7 3\n9 Q0 8 0\n9 Q0 9 1\n")
    collection = open_collection(str(tmp_path), cache)
    assert collection.splits == ("train", "dev-small", "dl19")
    assert labelled(collection, "train") == {"1": {"4": 1}, "2": {"5": 1}}
    assert labelled(collection, "dl19") == {"9": {"7": 3, "8": 0, "9": 1}}
    assert collection.passages.text([4]) == ["passage\t4"]
    assert collection.warnings == ()
    assert parse_ref(f"{tmp_path}/dl19>=2").min_grade == 2


def test_ms_marco_lines_without_a_tab_are_refused(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "collection.tsv").write_text("1\tpassage\nbroken\n")
    (tmp_path / "queries.tsv").write_text("1\tquery\n")
    (tmp_path / "qrels.tsv").write_text("1\t0\t1\t1\n")
    with pytest.raises(UnusableCollection) as caught:
        open_collection(str(tmp_path), cache)
    message = f"{tmp_path}/collection.tsv:2: columns: must be an id, a tab and a text"
    assert str(caught.value) == message


class Hub:
    """Stands in for `datasets.load_dataset`."""

    def __init__(
        self, tables: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]]
    ) -> None:
        self.tables = tables
        self.revisions: dict[str, str] = {}

    def __call__(
        self, path: str, name: str | None, *, revision: str, features: Any = None
    ) -> dict[str, Any]:
        from datasets import Dataset

        self.revisions[path] = revision
        if (path, name) not in self.tables:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub (offline)")
        tables = self.tables[path, name]
        found = {split: Dataset.from_list(rows) for split, rows in tables.items()}
        return {split: t.cast(features) if features else t for split, t in found.items()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    qrels = [{"query-id": 1, "corpus-id": 4, "score": 1}]
    stand_in = Hub(
        {
            ("BeIR/scifact", "corpus"): {"corpus": [passage(i, "_id") for i in range(6)]},
            ("BeIR/scifact", "queries"): {
                "queries": [{"_id": "1", "title": "", "text": "a claim"}]
            },
            ("BeIR/scifact-qrels", None): {"train": qrels, "validation": qrels, "test": qrels},
        }
    )
    monkeypatch.setattr("datasets.load_dataset", stand_in)
    return stand_in


def test_beir_sets_come_from_the_hub_at_their_pinned_commit(hub: Hub, cache: Cache) -> None:
    collection = open_collection("beir/scifact", cache)
    assert collection.name == "beir/scifact"
    assert labelled(collection, "test") == {"1": {"4": 1}}
    assert collection.splits == ("train", "dev", "test")
    assert collection.passages.text([4]) == ["T4 text 4"]
    assert len(hub.revisions["BeIR/scifact"]) == 40 == len(hub.revisions["BeIR/scifact-qrels"])
    details = [fault.detail for fault in collection.warnings if fault.kind == "count"]
    assert details[0] == "6 passages where the origin states 5,183"
    assert "not pinned" in open_revision("beir/quora")


def open_revision(name: str) -> str:
    from trainables.data.collections import COLLECTIONS

    return COLLECTIONS[name].revision()


def test_what_cannot_be_fetched_says_how_to_go_on(hub: Hub, cache: Cache) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be fetched from BeIR/fiqa.*name a folder"):
        open_collection("beir/fiqa", cache)
    with pytest.raises(InvalidInput, match="ask for it at"):
        open_collection("beir/robust04", cache)
    assert not list(cache.root.glob("collections/.making/*"))


def test_any_repository_in_beir_form_can_be_named(hub: Hub, cache: Cache) -> None:
    hub.tables["me/mine", "corpus"] = hub.tables["BeIR/scifact", "corpus"]
    hub.tables["me/mine", "queries"] = hub.tables["BeIR/scifact", "queries"]
    hub.tables["me/mine", None] = {"test": [{"query-id": "1", "corpus-id": "4", "score": 1.0}]}
    collection = open_collection("hf:me/mine@v2", cache)
    assert hub.revisions["me/mine"] == "v2"
    assert collection.name == "mine" and labelled(collection, "test") == {"1": {"4": 1}}
    hub.tables["me/mine", None]["test"][0]["score"] = 0.5
    with pytest.raises(UnusableCollection, match="whole number"):
        open_collection("hf:me/mine@v3", cache)
