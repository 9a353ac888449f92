"""What can be known of a study's names before any data is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from ablate.plan.graded import MOST_READ, check_grade
from trainables.data.collections import Ref, anywhere, fingerprint, parse_ref, parse_refs
from trainables.data.collections.contexts import NEGATIVES as SUPPLIED
from trainables.data.collections.faults import Faults
from trainables.data.collections.reading import read_judged, read_lines, read_records
from trainables.data.collections.refs import split_grade
from trainables.data.sources import annotated_sources
from trainables.errors import InvalidInput, Problem, unknown
from trainables.model.backbones import PACKAGED, PREFIX
from trainables.spec import Scalar

ANNOTATORS: tuple[str, ...] = ("minilm-l6",)
"""Label sources that can be made for any collection: those of `trainables.prepare.annotate`."""

_DEV = re.compile(r"(dev|valid|validation|val|train)([-_.].*)?")


def is_dev(ref: Ref) -> bool:
    """Whether the split's name says that it may select: dev, validation, or held-out training."""
    return _DEV.fullmatch(ref.split) is not None


def check_ref(key: str, text: object, place: str) -> tuple[Ref | None, list[Problem]]:
    """The reference `NAME|PATH/SPLIT[>=GRADE]` of what selects, or why it cannot be one."""
    if not isinstance(text, str):
        return None, [Problem(key, "must be a split, such as nq/test", text, None, place)]
    try:
        ref = parse_ref(text, None, place, key, ("dev", "test"))
    except InvalidInput as error:
        return None, list(error.problems)
    return ref, check_grade(key, ref, place)


def check_refs(key: str, text: object, place: str) -> tuple[tuple[Ref, ...], list[Problem]]:
    """What `NAME|PATH/SPLIT[>=GRADE][:SOURCE[>=GRADE]]...` names, or why it cannot be anything."""
    if not isinstance(text, str):
        return (), [Problem(key, "must be a split, such as nq/test", text, None, place)]
    try:
        refs = parse_refs(text, place, key)
    except InvalidInput as error:
        return (), list(error.problems)
    judges = [(ref.collection, str(judge)) for ref in refs for judge in ref.judges]
    problems = [problem for ref in refs for problem in check_grade(key, ref, place)]
    sources = [p for name, judge in judges for p in check_source(key, judge, name, place)]
    return refs, problems + sources


def check_known(key: str, value: Scalar, place: str | None) -> list[Problem]:
    """Mistakes in a key's value that need a look at what is registered or on disk."""
    if not isinstance(value, str):
        return []
    if key == "encoder.backbone":
        return _check_backbone(value, place)
    try:
        if key == "data.train":
            return check_grade(key, parse_ref(value, "train", place, key), place)
        if key in {"data.machine_labels", "data.human_labels"}:
            split_grade(value, key, place)
    except InvalidInput as error:
        return list(error.problems)
    return []


def check_source(key: str, value: str, collection: str, place: str | None) -> list[Problem]:
    """Whether the collection can have the label source `value`, where that can be known."""
    folder = _folder(collection)
    if folder is None:
        return []
    files = (folder / "labels").glob("*.tsv*")
    own = {file.name.removesuffix(".gz").removesuffix(".tsv") for file in files}
    known = ("qrels", *sorted(own)) if key == "data.human_labels" else (*sorted(own), *ANNOTATORS)
    name, _ = split_grade(value, key, place)
    if name not in known and key != "data.human_labels":
        known += annotated_sources(fingerprint(collection))
    return [] if name in known else [unknown(key, name, known, place)]


def check_supplied(collection: str, place: str | None) -> list[Problem]:
    """Whether the collection brings negatives of its own, where that can be known."""
    folder = _folder(collection)
    if folder is None:
        return []
    if not (folder / "qrels").is_dir() or any((folder / "labels").glob(f"{SUPPLIED}.tsv*")):
        return []
    rule = f"'supplied' needs labels/{SUPPLIED}.tsv in {folder}, or files that bring negatives"
    return [Problem("data.negatives", rule, None, None, place)]


def check_part(key: str, size: int, ref: Ref, place: str | None) -> list[Problem]:
    """Whether `size` passages can be drawn for a split, where that can be known: not fewer than
    its judged ones, and not all of the collection."""
    files = _files(ref)
    if files is None:
        return []
    judgements, corpus = files
    judged = {pair[1] for _, pair in read_judged(judgements, "", Faults())}
    if size < len(judged):
        # Only passages that are there count: looked up when something seems to be wrong.
        records = read_records(corpus, "", Faults())
        judged &= {str(record.get("_id")) for _, record in records}
    count = sum(1 for _ in read_lines(corpus, "", Faults()))
    if len(judged) <= size < count:
        return []
    rule = f"must be {len(judged)} (the judged passages of {ref.label}) to {count - 1}"
    return [Problem(key, rule, size, None, place)]


def _files(ref: Ref) -> tuple[Path, Path] | None:
    """The judgements and the corpus of a split of a local folder, if they are soon read."""
    folder = _folder(ref.collection)
    if folder is None:
        return None
    names = (f"qrels/{ref.split}.tsv", "corpus.jsonl")
    found = [
        next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
        for name in names
    ]
    if any(file is None or file.stat().st_size > MOST_READ for file in found):
        return None
    return cast("tuple[Path, Path]", tuple(found))


def _check_backbone(value: str, place: str | None) -> list[Problem]:
    key = "encoder.backbone"
    if value.startswith(PREFIX) and value not in PACKAGED:
        return [unknown(key, value, list(PACKAGED), place)]
    path = Path(value).expanduser()
    if value.startswith((".", "/", "~")) and not (path / "config.json").is_file():
        return [Problem(key, "must be a folder with config.json", value, None, place)]
    return []


def _folder(collection: str) -> Path | None:
    """The folder of a local collection in BEIR's form."""
    folder = Path(anywhere(collection)).expanduser()
    there = any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
    return folder if there else None
