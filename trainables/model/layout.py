"""The folder of an encoder: sentence-transformers' layout, written and read, and our own settings.

config.json, model.safetensors, tokenizer files   the passage tower, as AutoModel reads it
modules.json, 1_Pooling/, 2_Normalize/, sentence_bert_config.json,
config_sentence_transformers.json                 the same for SentenceTransformer, with the
                                                  prefixes as its prompts
query/                                            an untied encoder's query tower: a folder
                                                  like this one
encoder.json                                      the EncoderSpec
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables.errors import InvalidInput, Problem, unknown
from trainables.spec import EncoderSpec

SETTINGS = "encoder.json"
QUERY_FOLDER = "query"
POOLINGS = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
"""Our names of poolings to sentence-transformers'."""

_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}
"""sentence-transformers' names of poolings to the flags of its older folders."""

_FIXED = frozenset({"backbone", "layers", "tied"})
"""Settings that a checkpoint's weights decide."""

_UNLIMITED = 10**6
"""A tokenizer without a longest text states a length far above this."""

Reader = Callable[[str], Any]
"""File name inside a folder or hub repository -> its JSON content, or None when it is absent."""


def write_layout(folder: Path, settings: EncoderSpec, dimension: int, longest: int) -> None:
    """Write what SentenceTransformer needs beside the weights and the tokenizer of `folder`.

    It knows one longest text, in tokens, for both roles.
    """
    parts = ["Transformer", "Pooling", *(["Normalize"] if settings.normalize else [])]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{part}" if index else "",
            "type": f"sentence_transformers.models.{part}",
        }
        for index, part in enumerate(parts)
    ]
    for module in modules[1:]:
        (folder / str(module["path"])).mkdir(parents=True, exist_ok=True)
    mode = POOLINGS[settings.pooling]
    flags = {flag: name == mode for name, flag in _FLAGS.items()}
    prompts = {"query": settings.query_prefix, "document": settings.passage_prefix}
    similarity = "cosine" if settings.normalize else "dot"
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dimension, **flags})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": longest})
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": similarity},
    )


def write_settings(folder: Path, settings: EncoderSpec) -> None:
    """Write our own settings, which mark `folder` as one of our checkpoints."""
    _write(folder / SETTINGS, settings.model_dump())


def read_settings(source: str, read: Reader, overrides: Mapping[str, Any]) -> EncoderSpec:
    """Settings of our checkpoint, a sentence-transformers or a plain Hugging Face folder.

    `source` names it and `read` reads its files; `overrides` are fields of EncoderSpec. A plain
    folder says nothing, so EncoderSpec's defaults hold. A sentence-transformers folder gives the
    pooling, the normalisation, its longest text for both roles, and its prompts as prefixes.
    Raises InvalidInput for overrides that are unknown, invalid or decided by the weights, and for
    a folder that computes what this encoder does not.
    """
    known = tuple(EncoderSpec.model_fields)
    problems = [unknown(f"encoder.{key}", key, known) for key in overrides if key not in known]
    own = read(SETTINGS)
    values: dict[str, Any] = {"backbone": source}
    fixed = {"backbone"}
    if own is not None:
        values, fixed = dict(own), set(_FIXED)
    elif (modules := read("modules.json")) is not None:
        values |= _sentence_transformers(modules, read, source)
    rule = "is decided by the folder and cannot be overridden"
    problems += [
        Problem(f"encoder.{key}", rule, overrides[key]) for key in overrides if key in fixed
    ]
    if problems:
        raise InvalidInput(problems)
    try:
        return EncoderSpec.model_validate(values | dict(overrides))
    except ValidationError as error:
        raise InvalidInput(
            Problem(f"encoder.{detail['loc'][0]}", detail["msg"], detail["input"], place=source)
            for detail in error.errors()
        ) from None


def _sentence_transformers(modules: Any, read: Reader, source: str) -> dict[str, Any]:
    """Settings that a sentence-transformers folder states; refuses what we would not compute."""
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    problems = [
        unknown("modules.json", module["type"], ["Transformer", "Pooling", "Normalize"], source)
        for kind, module in zip(kinds, modules, strict=True)
        if kind not in {"Transformer", "Pooling", "Normalize"}
    ]
    if problems:
        raise InvalidInput(problems)
    if kinds[:2] != ["Transformer", "Pooling"] or "Pooling" in kinds[2:] or modules[0]["path"]:
        rule = "must be a Transformer in the folder itself, a Pooling, and perhaps Normalize"
        raise InvalidInput([Problem("modules.json", rule, ", ".join(kinds), place=source)])
    texts = read("sentence_bert_config.json") or {}
    if texts.get("do_lower_case"):
        rule = "do_lower_case is not supported: the tokenizer must lower-case"
        raise InvalidInput([Problem("sentence_bert_config.json", rule, True, place=source)])
    pooling = _pooling(read(f"{modules[1]['path']}/config.json") or {}, source)
    values: dict[str, Any] = {"pooling": pooling, "normalize": "Normalize" in kinds}
    tokenizer = read("tokenizer_config.json") or {}
    longest = texts.get("max_seq_length") or tokenizer.get("model_max_length")
    if longest is not None and longest < _UNLIMITED:
        values |= {"query_length": int(longest), "passage_length": int(longest)}
    return values | _prefixes(read("config_sentence_transformers.json") or {})


def _pooling(config: Mapping[str, Any], source: str) -> str:
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for name, flag in _FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else list(mode)
    ours = {theirs: name for name, theirs in POOLINGS.items()}
    if len(modes) == 1 and modes[0] in ours and config.get("include_prompt", True):
        return ours[modes[0]]
    rule = f"must be one of {', '.join(ours)}, over the prompt too"
    raise InvalidInput([Problem("1_Pooling/config.json", rule, ", ".join(modes), place=source)])


def _prefixes(config: Mapping[str, Any]) -> dict[str, str]:
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"), "")
    names = [name for name in ("document", "passage", "corpus") if name in prompts]
    passage = prompts[names[0]] if names else default
    return {"query_prefix": prompts.get("query", default), "passage_prefix": passage}


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
