"""The size of a backbone, from its config.json or a table; no weights and no torch are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainables.errors import Problem
from trainables.model.backbones import PACKAGED


@dataclass(frozen=True)
class Shape:
    """What decides the arithmetic of a transformer: layers, widths, matrices per feed-forward."""

    layers: int
    width: int
    inner: int
    matrices: int = 2

    def flops_per_token(self, length: int) -> float:
        """Floating-point operations of one token's forward pass in texts of `length` tokens.

        A multiplication and an addition count as two. Per layer: four projections, two attention
        products, the feed-forward matrices; embeddings and normalisations are left out.
        """
        weights = 4 * self.width**2 + self.matrices * self.width * self.inner
        return self.layers * (2.0 * weights + 4.0 * length * self.width)


BASE = Shape(12, 768, 3072)
LARGE = Shape(24, 1024, 4096)
SMALL = Shape(12, 384, 1536)
KNOWN: Mapping[str, Shape] = {
    "bert-base-uncased": BASE,
    "bert-base-cased": BASE,
    "bert-large-uncased": LARGE,
    "roberta-base": BASE,
    "roberta-large": LARGE,
    "distilbert-base-uncased": Shape(6, 768, 3072),
    "distilroberta-base": Shape(6, 768, 3072),
    "mpnet-base": BASE,
    "contriever": BASE,
    "retromae": BASE,
    "co-condenser-marco": BASE,
    "all-mpnet-base-v2": BASE,
    "all-minilm-l6-v2": Shape(6, 384, 1536),
    "all-minilm-l12-v2": SMALL,
    "minilm-l12-h384-uncased": SMALL,
    "e5-small-v2": SMALL,
    "e5-base-v2": BASE,
    "e5-large-v2": LARGE,
    "bge-small-en-v1.5": SMALL,
    "bge-base-en-v1.5": BASE,
    "bge-large-en-v1.5": LARGE,
}
"""Sizes of usual backbones whose files need not be at hand, by the name's last part."""

_GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "modernbert")
"""Model types whose feed-forward part has a third matrix."""


@lru_cache(maxsize=64)
def backbone_shape(name: str) -> Shape | None:
    """The shape of a backbone by name or folder, or None when it is not known here."""
    for config in _configs(name):
        shape = _read(config)
        if shape is not None:
            return shape
    return KNOWN.get(name.rpartition("/")[2].lower())


@lru_cache(maxsize=64)
def layer_count(name: str) -> int | None:
    """The layers of a backbone whose config.json lies on this machine; else None."""
    shapes = (_read(config) for config in _configs(name))
    return next((shape.layers for shape in shapes if shape is not None), None)


def check_layers(flat: Mapping[str, object]) -> list[Problem]:
    """Whether the backbone of a trial has as many layers as it is to keep, where that is known."""
    backbone, kept = flat.get("encoder.backbone"), flat.get("encoder.layers")
    if not isinstance(backbone, str) or not isinstance(kept, int):
        return []
    known = layer_count(backbone)
    if known is None or kept <= known:
        return []
    rule = f"keeps more layers than {backbone} has, which is {known}"
    return [Problem("encoder.layers", rule, kept, str(known))]


def _configs(name: str) -> list[Path]:
    """Where the backbone's config.json may lie on this machine."""
    folder = Path(name).expanduser()
    if name in PACKAGED:
        spec = find_spec(PACKAGED[name].package)
        places = spec.submodule_search_locations if spec else None
        return [Path(place) / PACKAGED[name].folder / "config.json" for place in places or ()]
    if folder.is_dir():
        return [folder / "config.json", folder / "0_Transformer" / "config.json"]
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    return sorted(hub.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json"))


def _read(config: Path) -> Shape | None:
    try:
        content: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        width = int(content.get("hidden_size") or content["dim"])
        return Shape(
            layers=int(content.get("num_hidden_layers") or content["n_layers"]),
            width=width,
            inner=int(content.get("intermediate_size") or content.get("hidden_dim") or 4 * width),
            matrices=3 if content.get("model_type") in _GATED else 2,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
