"""`NAME|PATH[/SPLIT][>=GRADE]`: what it means and how mistakes are named."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.data.collections import (
    COLLECTIONS,
    Ref,
    anywhere,
    parse_ref,
    short_name,
    splits_of,
)
from trainables.data.collections.refs import JudgeRef, plain_label, split_grade
from trainables.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("pydocs/test", None, Ref("pydocs", "test")),
        ("pydocs", "train", Ref("pydocs", "train")),
        ("pydocs/small", "train", Ref("pydocs/small", "train")),
        ("pydocs/small/dev", "train", Ref("pydocs/small", "dev")),
        ("beir/scifact/test>=2", None, Ref("beir/scifact", "test", 2)),
        ("beir/cqadupstack/android/test", None, Ref("beir/cqadupstack/android", "test")),
        ("pydocs >= 2", "train", Ref("pydocs", "train", 2)),
        ("hf:someone/a-set@v1/test", None, Ref("hf:someone/a-set@v1", "test")),
        ("nq/dpr", "train", Ref("nq/dpr", "train")),
    ],
)
def test_refs_are_parsed(text: str, default: str | None, expected: Ref) -> None:
    parsed = parse_ref(text, default)
    assert parsed == expected
    assert parse_ref(str(parsed), default) == parsed


def test_paths_are_named_by_their_folder(tiny_collection: str) -> None:
    assert parse_ref(tiny_collection, "train") == Ref(tiny_collection, "train")
    parsed = parse_ref(f"{tiny_collection}/test>=2")
    assert (parsed.split, parsed.min_grade, parsed.label) == (
        "test",
        2,
        "tiny/test:grade-2",
    )
    assert splits_of(tiny_collection) == ("dev", "test", "train")
    assert short_name("beir/scifact") == "beir/scifact"
    assert short_name("hf:someone/a-set@v1") == "a-set"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pydocs", r"without a split; its splits: train, dev, test.*did you mean 'pydocs/test'"),
        ("pydocs/tset", r"split of pydocs: is unknown; known: dev, test, train.*mean 'test'"),
        ("pydoc/test", r"neither an existing path nor a built-in collection.*mean 'pydocs"),
        ("beir/scfact/test", r"did you mean 'beir/scifact'"),
        ("beir/cqadupstack/test", r"is twelve collections: beir/cqadupstack/android, "),
        ("pydocs/test>=high", "whole number of at least 1"),
        ("pydocs/test>=0", "whole number of at least 1"),
        ("", "holds no collection"),
        ("~nobody-of-that-name/set/test", "neither an existing path"),
        ("x" * 5000, "neither an existing path"),
        ("nul\0byte", "neither an existing path"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_ref(text, place="study.yaml", key="evaluate")
    (problem,) = caught.value.problems
    assert problem.place == "study.yaml" and problem.key.startswith("evaluate")


def test_a_folder_without_a_collection_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a folder needs corpus\.jsonl"):
        parse_ref(str(tmp_path), "train")


def test_a_split_that_the_folder_lacks(tiny_collection: str) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'test'"):
        parse_ref(f"{tiny_collection}/tst")


def test_thresholds_of_sources() -> None:
    assert split_grade("umbrela>=2", "labels") == ("umbrela", 2)
    assert split_grade("umbrela", "labels", default=3) == ("umbrela", 3)


def test_every_built_in_collection_says_where_it_comes_from() -> None:
    assert len(COLLECTIONS) > 30
    for name, entry in COLLECTIONS.items():
        assert entry.name == name and entry.summary and entry.origin and entry.licence
        assert entry.splits and entry.revision() and entry.fingerprint()
    beir = {name.split("/")[1] for name in COLLECTIONS if name.startswith("beir/")}
    assert len(beir - {"msmarco"}) == 18
    assert sum(name.startswith("beir/cqadupstack/") for name in COLLECTIONS) == 12


def test_a_collection_is_looked_for(
    tiny_collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without a path is found in the folders of ABLATE_COLLECTIONS, in their order; a path
    that exists goes first."""
    home = Path(tiny_collection).parent
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="ABLATE_COLLECTIONS"):
        parse_ref("tiny/dev")
    monkeypatch.setenv("ABLATE_COLLECTIONS", f"{tmp_path / 'none'}{os.pathsep}{home}")
    assert parse_ref("tiny/dev").label == "tiny/dev"
    assert anywhere("tiny") == tiny_collection
    shutil.copytree(tiny_collection, tmp_path / "tiny")
    assert anywhere("tiny") == str(tmp_path / "tiny")
    assert anywhere("pydocs/small") == "pydocs/small"
    assert anywhere("no-such-folder") == "no-such-folder"


def test_every_label_of_a_split_names_it() -> None:
    ref = Ref("tiny", "test", 2, (JudgeRef("weak", 3), JudgeRef("human")))
    labels = [*ref.marks("f"), ref.part_label(500), replace(ref, min_grade=1).label]
    assert len(labels) == 7
    assert {plain_label(label) for label in labels} == {"tiny/test"}
    for label in ("beir/mean:nq:scifact", "odd:name/test", "nq/test"):
        assert plain_label(label) == label


def test_the_nearest_name_may_lie_in_a_searched_folder(
    tmp_path: Path, tiny_collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny_collection, home / "nfcorpus")
    (home / "no-collection").mkdir()
    monkeypatch.setenv("ABLATE_COLLECTIONS", f"{tmp_path / 'none'}{os.pathsep}{home}")
    with pytest.raises(InvalidInput) as caught:
        parse_ref("nfcorpsu", "train")
    (problem,) = caught.value.problems
    assert problem.nearest == "nfcorpus"
    assert problem.rule.endswith("of which there are nfcorpus")
    monkeypatch.delenv("ABLATE_COLLECTIONS")
    with pytest.raises(InvalidInput, match="did you mean 'beir/nfcorpus'"):
        parse_ref("nfcorpsu", "train")


def test_who_names_no_split_is_offered_the_one_that_is_judged_on(
    tmp_path: Path, tiny_collection: str
) -> None:
    folder = str(shutil.copytree(tiny_collection, tmp_path / "own"))

    def offered(*likely: str) -> str | None:
        with pytest.raises(InvalidInput) as caught:
            parse_ref(folder, likely=likely)
        return caught.value.problems[0].nearest

    assert offered("test", "dev") == f"{folder}/test"
    assert offered("dev", "test") == f"{folder}/dev"
    with pytest.raises(InvalidInput, match=r"did you mean '.*/test'"):
        parse_ref(folder)
    for split, left in (("test", "dev"), ("dev", "train")):
        Path(folder, "qrels", f"{split}.tsv").unlink()
        assert offered("test", "dev") == f"{folder}/{left}"
