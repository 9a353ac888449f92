"""Token ids to vectors: any Hugging Face encoder, pooled; loaded, saved and identified."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import cached_file, logging

from trainables.errors import InvalidInput, Problem
from trainables.model.backbones import resolve_backbone
from trainables.model.cpu import CpuKernels, InferenceKernels, one_dnn_available
from trainables.model.layout import (
    QUERY_FOLDER,
    SETTINGS,
    read_settings,
    write_layout,
    write_settings,
)
from trainables.model.losses import widen
from trainables.spec import EncoderSpec
from trainables.tokens import Tokens

__all__ = ["Encoder", "Precision", "Role", "resolve_backbone"]

Role = Literal["query", "passage"]
Precision = Literal["float32", "bfloat16"]

CPU_TOKENS = 2048
GPU_TOKENS = 32768
"""Tokens per forward pass, padding included: what stays in a processor's cache, or fills a GPU."""


class Encoder(nn.Module):
    """One tower for both roles (tied), or one for each; every text becomes one vector.

    Comes in evaluation mode. `tokenizer_path` is where its tokenizer is loaded from.
    """

    def __init__(
        self,
        settings: EncoderSpec,
        passage: nn.Module,
        query: nn.Module | None,
        tokenizer_path: str,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.tokenizer_path = tokenizer_path
        self.passage = passage
        self.query = query
        self._compiled: dict[int, Any] = {}
        self.eval()

    @classmethod
    def load(cls, settings: EncoderSpec, seed: int) -> Encoder:
        """The encoder that `settings` describe, with the weights of their backbone.

        Untied towers start alike. `seed` decides weights that the backbone lacks, which only a
        pooler that is not read may. Raises InvalidInput when the backbone is unknown, has no
        safetensors weights, lacks some, or cannot do what the settings ask.
        """
        source = resolve_backbone(settings.backbone)
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(seed)
            tower = _load_tower(source, settings)
        return cls(settings, tower, None if settings.tied else deepcopy(tower), source)

    @classmethod
    def from_folder(cls, source: str | Path, overrides: Mapping[str, Any] | None = None) -> Encoder:
        """The encoder of a folder or hub name: our checkpoint, sentence-transformers' or plain.

        `overrides` are fields of EncoderSpec. See `layout.read_settings` for what each form says
        and which errors there are.
        """
        name = str(source)
        folder = resolve_backbone(name)
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(0)
            settings = read_settings(name, lambda file: _read_json(folder, file), overrides or {})
            passage, query = _load_tower(folder, settings), None
            if not settings.tied:
                own = _read_json(folder, SETTINGS) is not None
                query = _load_tower(folder, settings, QUERY_FOLDER if own else "")
        return cls(settings, passage, query, folder)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and vectors come out."""
        return next(self.parameters()).device

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._config.hidden_size)

    def encode(self, tokens: Tokens, role: Role) -> Tensor:
        """Vectors [N, dimension] of N texts, in their order, in float32; unit length if normalised.

        Texts of like length share a forward pass, padded to the longest of them; a pass holds at
        most CPU_TOKENS or GPU_TOKENS tokens. The same tokens give the same bits, in evaluation
        mode or with the same random state. In training mode on a CPU the gradient of an embedding
        is sparse: see `trainables.model.cpu.densify`. Raises ValueError when a text has no tokens
        or more than the settings allow.
        """
        lengths = tokens.lengths
        longest = getattr(self.settings, f"{role}_length")
        if len(tokens) and (lengths.min() < 1 or lengths.max() > longest):
            raise ValueError(f"a {role} must have 1 to {longest} tokens")
        tower = self.passage if self.query is None or role == "passage" else self.query
        order = np.argsort(-lengths, kind="stable")
        budget = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        parts = [
            self._forward(tower, tokens.take(rows)) for rows in _groups(lengths, order, budget)
        ]
        if not parts:
            return widen(next(self.parameters()).new_zeros(0, self.dimension))
        places = torch.from_numpy(np.argsort(order)).to(self.device)
        return torch.cat(parts).index_select(0, places)

    @contextmanager
    def inference(self, precision: Precision = "float32") -> Iterator[None]:
        """Evaluation mode without gradients, as fast as the device can; the mode is restored.

        `precision` is that of the forward pass. Weights must not change meanwhile.
        """
        was_training, device = self.training, self.device.type
        reduced = precision == "bfloat16"
        self.eval()
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.inference_mode())
                stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=reduced))
                if device == "cpu" and one_dnn_available():
                    stack.enter_context(InferenceKernels(self))
                yield
        finally:
            self.train(was_training)

    def _forward(self, tower: Any, tokens: Tokens) -> Tensor:
        ids, mask = (torch.from_numpy(part).to(self.device) for part in tokens.padded(self._pad_id))
        compiled = self._compiled.get(id(tower)) if self.training else None
        with CpuKernels() if self.training and compiled is None else nullcontext():
            call = tower if compiled is None else compiled
            output = call(input_ids=ids, attention_mask=mask)
        hidden = widen(output.last_hidden_state)
        if self.settings.pooling == "cls":
            vectors = hidden[:, 0]
        elif self.settings.pooling == "last":
            vectors = hidden[torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1]
        else:
            kept = mask.unsqueeze(-1).to(hidden.dtype)
            vectors = (hidden * kept).sum(1) / kept.sum(1)
        return nn.functional.normalize(vectors, dim=-1) if self.settings.normalize else vectors

    def compile_training(self) -> None:
        """Let torch.compile make the forward pass of training mode, for any number of tokens.

        Parameters, checkpoints and evaluation mode stay as they are. Needs what torch.compile
        needs on the device: a C++ compiler on a CPU.
        """
        towers = [self.passage] if self.query is None else [self.passage, self.query]
        self._compiled = {id(tower): torch.compile(tower, dynamic=True) for tower in towers}

    @property
    def _pad_id(self) -> int:
        return int(getattr(self._config, "pad_token_id", None) or 0)

    @property
    def _config(self) -> Any:
        return self.passage.config

    def save(self, folder: Path | str) -> None:
        """Write a folder that AutoModel, SentenceTransformer and `from_folder` load.

        The first two read the passage tower; an untied query tower lies in the sub-folder `query`,
        in the same form. SentenceTransformer cuts texts at one length: a tied tower's is the larger
        of its roles', so queries near `query_length` may differ there. Weights are safetensors;
        `layout` lists the files.
        """
        folder = Path(folder)
        passage, query = self.settings.passage_length, self.settings.query_length
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_path, trust_remote_code=False)
            if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
                backend.no_padding()
                backend.no_truncation()
            if self.query is None:
                self._save_tower(self.passage, folder, tokenizer, max(passage, query))
            else:
                self._save_tower(self.passage, folder, tokenizer, passage)
                self._save_tower(self.query, folder / QUERY_FOLDER, tokenizer, query)
        write_settings(folder, self.settings)

    def _save_tower(self, tower: Any, folder: Path, tokenizer: Any, longest: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tower.save_pretrained(folder)
        tokenizer.model_max_length = longest
        tokenizer.save_pretrained(folder)
        write_layout(folder, self.settings, self.dimension, longest)

    def fingerprint(self) -> str:
        """Identity of what this encoder computes from tokens: 16 hex digits.

        Over the weights, the architecture and the settings; not over where the backbone came from,
        nor over dropout, which evaluation does not apply.
        """
        settings = self.settings.model_dump(exclude={"backbone", "dropout", "layers"})
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(json.dumps(_architecture(self._config), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(memoryview(content.numpy()))
        return digest.hexdigest()[:16]


def _groups(
    lengths: NDArray[np.int64], order: NDArray[np.int64], budget: int
) -> Iterator[NDArray[np.int64]]:
    """Rows in `order` (the longest first), cut so that each group fits the budget when padded."""
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _load_tower(source: str, settings: EncoderSpec, subfolder: str = "") -> nn.Module:
    where = {"subfolder": subfolder, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **where)
        problems = _configure(config, settings)
        if problems:
            raise InvalidInput(problems)
        kind = transformers.MODEL_MAPPING[type(config)]
        options = {}
        if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
            options["add_pooling_layer"] = False
        tower, report = AutoModel.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **where,
            **options,
        )
    except InvalidInput:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        rule = f"cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        raise InvalidInput([Problem("encoder.backbone", rule, settings.backbone)]) from error
    problems = _faults(tower, report["missing_keys"], settings)
    if problems:
        raise InvalidInput(problems)
    return tower  # type: ignore[no-any-return]


def _configure(config: Any, settings: EncoderSpec) -> list[Problem]:
    """Set layers and dropout in a backbone's configuration; what is impossible there."""
    problems = []
    if getattr(config, "is_encoder_decoder", False):
        problems.append(Problem("encoder.backbone", "has a decoder too", settings.backbone))
    if settings.layers is not None:
        if settings.layers > config.num_hidden_layers:
            rule = f"must be at most {config.num_hidden_layers}, the layers of the backbone"
            problems.append(Problem("encoder.layers", rule, settings.layers))
        config.num_hidden_layers = settings.layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: settings.layers]
    if settings.dropout is not None:
        rates = _dropouts(config)
        if not rates and settings.dropout:
            problems.append(Problem("encoder.dropout", "the backbone has none", settings.dropout))
        for name in rates:
            setattr(config, name, settings.dropout)
    config.use_cache = False
    return problems


def _dropouts(config: Any) -> list[str]:
    """Names of a configuration's dropout rates, however the architecture calls them."""
    return [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    ]


def _faults(tower: nn.Module, missing: Any, settings: EncoderSpec) -> list[Problem]:
    """Weights that the backbone lacks, and lengths that it cannot read."""
    problems = []
    lacking = sorted(key for key in missing if "pooler" not in key)
    if lacking:
        rule = f"lacks {len(lacking)} weights, the first is {lacking[0]}"
        problems.append(Problem("encoder.backbone", rule, settings.backbone))
    limit = _longest_text(tower)
    for key in ("query_length", "passage_length"):
        length = getattr(settings, key)
        if limit is not None and length > limit:
            rule = f"must be at most {limit}, the longest text of the backbone"
            problems.append(Problem(f"encoder.{key}", rule, length))
    return problems


def _longest_text(tower: nn.Module) -> int | None:
    """Tokens that a backbone with learned positions can read; None when it has no such limit."""
    for name, module in tower.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - reserved
    return None


def _architecture(config: Any) -> dict[str, Any]:
    """A configuration without what leaves the vectors as they are."""
    ignored = {"_name_or_path", "transformers_version", "dtype", "architectures", "use_cache"}
    ignored |= set(_dropouts(config))
    return {key: value for key, value in config.to_diff_dict().items() if key not in ignored}


def _read_json(source: str, name: str) -> Any:
    """JSON content of a file of a folder or hub repository, or None when there is no such file."""
    try:
        path = cached_file(
            source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError) as error:
        raise InvalidInput(
            [Problem("encoder.backbone", "is not a folder or a name", source)]
        ) from error
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput([Problem(name, f"is not JSON: {error}", place=source)]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and loading reports; what they say is checked here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
