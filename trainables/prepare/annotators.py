"""Annotators: which model makes a label source, by which rule, and what its labels follow from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Union

from trainables.data.cache import JSON
from trainables.prepare.judges import load_prompt

_RULES = 1
"""Version of what annotators make of the same models and pairs."""


@dataclass(frozen=True)
class BiEncoder:
    """Grade 1 for a passage of the model's own top `depth` whose score is at least `least` and at
    least `share` of the query's best score, else 0. The first constant keeps queries without an
    answer free of labels, the second lets the number of positives follow the query."""

    model: str
    depth: int = 10
    least: float = 0.35
    share: float = 0.9
    query_length: int = 64
    passage_length: int = 64


@dataclass(frozen=True)
class CrossEncoder:
    """Grade 1 when a sequence classifier's probability of relevance is at least `threshold`."""

    model: str
    pool: str = "bm25"
    """Who finds the passages to judge: `bm25`, or a bi-encoder's name or folder."""
    depth: int = 10
    threshold: float = 0.5
    max_length: int = 512


@dataclass(frozen=True)
class CausalLM:
    """The grade that a causal language model answers to a prompt."""

    model: str
    prompt: str = "graded"
    """A name in `prompts/`, or a file of that form."""
    pool: str = "bm25"
    """Who finds the passages to judge: `bm25`, or a bi-encoder's name or folder."""
    depth: int = 10


PairAnnotator = Union[CrossEncoder, CausalLM]
Annotator = Union[BiEncoder, CrossEncoder, CausalLM]

KINDS: dict[str, type[Annotator]] = {
    "bi-encoder": BiEncoder,
    "cross-encoder": CrossEncoder,
    "causal-lm": CausalLM,
}
"""Kind of model, as `judges.kind_of` tells it, -> annotator."""

ANNOTATORS: dict[str, Annotator] = {"minilm-l6": BiEncoder("packaged/all-MiniLM-L6-v2")}
"""Label sources that are made on demand. The constants of `minilm-l6` were set on the training
split of pydocs/small, where it gives about as many positives per query as the human labels."""

_CHOOSE_PAIRS = frozenset({"pool", "depth", "threshold", "model", "prompt"})
"""Settings that a verdict on a given pair does not depend on, or that its content stands for."""


def settings_of(kind: type[Annotator]) -> tuple[str, ...]:
    """The names of an annotator's settings, its model left out."""
    return tuple(field.name for field in fields(kind) if field.name != "model")


def description(annotator: Annotator, split: str | None = None) -> dict[str, JSON]:
    """All that decides an annotator's labels: its settings, its prompt, its model's content, and
    the split whose queries it judges (None: all of them)."""
    described: dict[str, JSON] = {
        "kind": type(annotator).__name__,
        "rules": _RULES,
        **asdict(annotator),
        "content": content_of(annotator.model),
    }
    if isinstance(annotator, CausalLM):
        described |= _asked(annotator)
    return described if split is None else described | {"split": split}


def judge_key(annotator: PairAnnotator) -> dict[str, JSON]:
    """All that decides an annotator's verdict on a given pair, wherever its model lies."""
    kept = {key: value for key, value in asdict(annotator).items() if key not in _CHOOSE_PAIRS}
    asked = _asked(annotator) if isinstance(annotator, CausalLM) else {}
    kind = type(annotator).__name__
    return {"kind": kind, "rules": _RULES, **kept, **asked, "content": content_of(annotator.model)}


def encoder_key(annotator: BiEncoder) -> dict[str, JSON]:
    """All that decides a bi-encoder's vector of a given text, wherever its model lies."""
    lengths: dict[str, JSON] = {
        "query_length": annotator.query_length,
        "passage_length": annotator.passage_length,
    }
    return {"rules": _RULES, **lengths, "content": content_of(annotator.model)}


def content_of(model: str) -> str:
    """Hash of a folder's files; of a name nothing is known here, so it stands for itself."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                content.update(part)
    return content.hexdigest()[:20]


def _asked(annotator: CausalLM) -> dict[str, JSON]:
    prompt = load_prompt(annotator.prompt)
    return {"prompt": prompt.text, "answers": list(prompt.answers)}
