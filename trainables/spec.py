"""TrialSpec: the complete description of one trial, and its flat dotted form.

A key such as `loss.temperature` is the YAML key, the attribute path, the Ray key, the MLflow
parameter and the report's column. Defaults stand here and nowhere else.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainables.errors import InvalidInput, Problem, nearest, unknown
from trainables.model.losses import LOSSES

BEHAVIOUR = 2
"""Version of what training and evaluation compute. Raised when the same spec gives new numbers."""

MOST_SEED = 2**63 - 1
"""The largest seed: what PyTorch's generators take as a signed number."""

Scalar = Union[str, int, float, bool, None]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]


class Part(BaseModel):
    """A frozen group of keys that refuses unknown ones and converts nothing silently."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class DataSpec(Part):
    """Which queries, which of their labels, and which negatives a trial trains on."""

    train: str
    """Collection to train on: `NAME|PATH[/SPLIT][>=GRADE]`; the split is `train` when left out."""
    human_labels: str = "qrels"
    """Source of the human labels: `qrels` (the split's judgements) or a further source's name."""
    machine_labels: str | None = None
    """Source of the machine labels: `SOURCE[>=GRADE]`, or null when only human labels are used."""
    human_fraction: Share = 1.0
    """Share of the training queries whose human labels are used; nested over its values."""
    mixing: Literal["replace", "union", "curriculum"] = "replace"
    """How human and machine labels meet: see `trainables.data.labels`."""
    curriculum_share: Share = 0.33
    """Under `curriculum`: share of the steps, at the end, that train on human labels."""
    machine_human_positive: bool = True
    """Whether machine labels may contain the query's human positives."""
    max_positives: Count | None = None
    """Positives kept per query, the best first; null keeps all."""
    positive_order: Literal["grade", "random"] = "grade"
    """Which positives `max_positives` keeps: the best graded, or a seeded draw."""
    negatives: Literal["bm25", "dense", "supplied"] = "bm25"
    """Where hard negatives come from: a miner, or those that the collection's files bring."""
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    """Hard negatives per query, the same number for every loss."""
    negative_depth: Count = 100
    """Rank down to which hard negatives are taken."""
    negative_margin: Share | None = 0.95
    """Candidates that the miner scores above this share of the positive's score are dropped; null
    keeps all. Supplied negatives have no score, so all are kept."""
    group_size: Annotated[int, Field(ge=2)] | None = None
    """The paper's fixed group, in which positives displace hard negatives; null turns it off."""
    noise: Share = 0.0
    """Share of the positives that are replaced by passages known to be wrong; nested."""
    mask_known_positives: bool = True
    """Whether a known positive is kept from being an in-batch negative; false as in the paper."""

    @model_validator(mode="after")
    def _keys_agree(self) -> DataSpec:
        if self.machine_labels is None and self.human_fraction < 1.0:
            raise ValueError("human_fraction below 1 needs machine_labels")
        if self.group_size is not None and self.hard_negatives:
            raise ValueError("hard_negatives must be 0 under group_size, which sets the number")
        return self


class EncoderSpec(Part):
    """How text becomes vectors."""

    backbone: str
    """Hugging Face name, local folder, or `packaged/all-MiniLM-L6-v2`."""
    layers: Count | None = None
    """First layers kept; null keeps all."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    normalize: bool = True
    """Cosine (true) or raw dot product (false)."""
    tied: bool = True
    """One tower for queries and passages (true), or two."""
    query_length: Annotated[int, Field(ge=4)] = 32
    passage_length: Annotated[int, Field(ge=4)] = 128
    query_prefix: str = ""
    passage_prefix: str = ""
    dropout: Share | None = None
    """Dropout rate while training; null keeps the backbone's own."""


class LossSpec(Part):
    """The training objective. The temperature has no default: it depends on `normalize`."""

    name: str
    temperature: Positive
    params: dict[str, Scalar] = Field(default_factory=dict)


class OptimSpec(Part):
    """How long and how fast a trial trains."""

    lr: Positive
    batch_size: Count
    """Queries per optimiser step over all workers."""
    steps: Count | None = None
    epochs: Positive | None = None
    warmup: Share = 0.1
    """Share of the steps with rising learning rate; it falls linearly to 0 afterwards."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip_norm: Positive | None = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    chunk_size: Count | None = None
    """Texts per forward pass of the gradient cache; null keeps every activation."""
    compile: bool = False
    """Whether torch.compile makes the training's forward pass: a minute first, then faster steps
    where the device gains from it. Evaluation is never compiled."""

    @model_validator(mode="after")
    def _one_length(self) -> OptimSpec:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs must be given")
        return self


class TrialSpec(Part):
    """One trial, complete. Equal specs on equal data give equal numbers."""

    data: DataSpec
    encoder: EncoderSpec
    loss: LossSpec
    optim: OptimSpec
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any], place: str | None = None) -> TrialSpec:
        """The spec of a flat dotted dictionary.

        Raises InvalidInput with every mistake of `flat`; `place` says where it was written.
        """
        problems = [unknown_key(key, place) for key in flat if not is_key(key)]
        nested = _nest({key: value for key, value in flat.items() if is_key(key)})
        try:
            spec = cls.model_validate(nested)
        except ValidationError as error:
            problems += [_problem(detail, flat, place) for detail in error.errors()]
            problems += _loss_problems(nested["loss"], place)
            raise InvalidInput(problems) from None
        problems += _loss_problems(nested["loss"], place)
        if problems:
            raise InvalidInput(problems)
        return spec.model_copy(update={"loss": _with_default_params(spec.loss)})

    def to_flat(self) -> dict[str, Scalar]:
        """The flat dotted form, every key present; `from_flat` gives back an equal spec."""
        flat: dict[str, Scalar] = {}
        for part, value in self.model_dump().items():
            if not isinstance(value, dict):
                flat[part] = value
                continue
            params = value.pop("params", {})
            flat |= {f"{part}.{key}": inner for key, inner in value.items()}
            flat |= {f"{part}.params.{key}": params[key] for key in sorted(params)}
        return flat


_PARTS: dict[str, type[Part]] = {
    "data": DataSpec,
    "encoder": EncoderSpec,
    "loss": LossSpec,
    "optim": OptimSpec,
}
KEYS: tuple[str, ...] = (
    *(
        f"{part}.{name}"
        for part, model in _PARTS.items()
        for name in model.model_fields
        if name != "params"
    ),
    "seed",
)
"""Every flat key but the losses' own `loss.params.*`."""

LOSS_PARAMS: tuple[str, ...] = tuple(
    sorted({f"loss.params.{name}" for entry in LOSSES.values() for name in entry.params})
)


def is_key(key: str) -> bool:
    """Whether `key` is a key of TrialSpec's flat form."""
    return key in KEYS or key in LOSS_PARAMS


def unknown_key(key: str, place: str | None = None) -> Problem:
    """The problem of a key that TrialSpec does not have, with the nearest one it has."""
    rule = "is not a key of a trial"
    return Problem(key, rule, None, nearest(key, KEYS + LOSS_PARAMS), place)


def text_number(value: object) -> Problem | None:
    """The problem of a number that YAML read as text (`1e-6`), or None when `value` is none."""
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    written = repr(number) if "." in repr(number) else repr(number).replace("e", ".0e")
    return Problem("", "is a number that YAML read as text", value, written)


def trial_id(spec: TrialSpec, fingerprints: Mapping[str, str]) -> str:
    """Identity of a trial: 16 hex digits over the spec, its data's fingerprints and BEHAVIOUR."""
    content = {"spec": spec.to_flat(), "data": dict(fingerprints), "behaviour": BEHAVIOUR}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {part: {} for part in _PARTS}
    for key, value in flat.items():
        *path, last = key.split(".")
        inner = nested
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return nested


def _problem(detail: Any, flat: Mapping[str, Any], place: str | None) -> Problem:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return Problem(key, "is missing and has no default", None, None, place)
    value = flat.get(key)
    as_text = text_number(value)
    if as_text is not None and detail["type"] in {"float_type", "int_type"}:
        return Problem(key, f"{as_text.rule}; write {as_text.nearest}", value, None, place)
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    hint = None
    if detail["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, re.findall(r"'([^']+)'", detail["ctx"]["expected"]))
    return Problem(key, rule, value, hint, place)


def _loss_problems(loss: Mapping[str, Any], place: str | None) -> list[Problem]:
    """Mistakes that only the loss registry can see: unknown names, foreign or bad parameters."""
    name = loss.get("name")
    if not isinstance(name, str):
        return []
    if name not in LOSSES:
        return [unknown("loss.name", name, list(LOSSES), place)]
    problems = []
    allowed = LOSSES[name].params
    for key, value in loss.get("params", {}).items():
        dotted = f"loss.params.{key}"
        if key not in allowed:
            rule = f"is not a parameter of {name}, which has: {', '.join(allowed) or 'none'}"
            problems.append(Problem(dotted, rule, value, nearest(key, allowed), place))
        elif not any(value == choice and type(value) is type(choice) for choice in allowed[key]):
            choices = ", ".join(str(choice) for choice in allowed[key])
            problems.append(Problem(dotted, f"must be one of {choices}", value, None, place))
    return problems


def _with_default_params(loss: LossSpec) -> LossSpec:
    signature = inspect.signature(LOSSES[loss.name].fn)
    defaults = {name: signature.parameters[name].default for name in LOSSES[loss.name].params}
    return loss.model_copy(update={"params": defaults | loss.params})
