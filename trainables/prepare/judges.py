"""Judges: models that grade (query, passage) pairs. Each takes a loaded model and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.errors import InvalidInput, Problem, unknown
from trainables.model.backbones import resolve_backbone
from trainables.prepare.pools import accelerator

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Tokens per forward pass, padding included."""

LONGEST_PROMPT = 2048
"""Tokens of a prompt; the passage is cut until it fits, or until the model's own limit is kept."""

PROMPTS = Path(__file__).with_name("prompts")

_HEADS = {
    "ForSequenceClassification": "cross-encoder",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}
_OTHER_HEADS = ("ForConditionalGeneration", "ForQuestionAnswering", "ForTokenClassification")


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Grades int16[M] of M pairs, and scores float32[M] that order pairs of one grade."""

    grades: NDArray[np.int16]
    scores: NDArray[np.float32]


class Judge(Protocol):
    """What grades pairs."""

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Verdicts:
        """The verdicts on the pairs (queries[i], passages[i]), in their order."""


@dataclass(frozen=True)
class Prompt:
    """The question put to a causal model, and its possible answers: answer i means grade i."""

    text: str
    answers: tuple[str, ...]

    def ask(self, query: str, passage: str) -> str:
        """The question about one pair."""
        before, after = self.text.split("{passage}")
        return before.replace("{query}", query) + passage + after.replace("{query}", query)


def load_prompt(name: str) -> Prompt:
    """The prompt of a name in `prompts/`, or of a text file.

    Its first line lists the answers, from grade 0 up; the rest holds `{query}` and `{passage}`.
    Raises InvalidInput when there is none or it lacks a part.
    """
    path = PROMPTS / f"{name}.txt" if "/" not in name and "." not in name else Path(name)
    if not path.is_file():
        raise InvalidInput([unknown("prompt", name, sorted(p.stem for p in PROMPTS.iterdir()))])
    first, _, text = path.read_text(encoding="utf-8").partition("\n")
    answers = tuple(first.removeprefix("answers:").split())
    problems = []
    if not first.startswith("answers:") or len(set(answers)) < 2:
        rule = "must begin with a line `answers:` that lists two or more of them"
        problems.append(Problem("prompt", rule, first, "answers: no yes", str(path)))
    for part in ("{query}", "{passage}"):
        if text.count(part) != 1:
            problems.append(Problem("prompt", f"must hold {part} once", None, None, str(path)))
    if problems:
        raise InvalidInput(problems)
    return Prompt(text.strip(), answers)


class CrossEncoderJudge:
    """A sequence classifier: grade 1 when the probability of relevance reaches `threshold`."""

    def __init__(self, model: Any, tokenizer: Any, threshold: float, max_length: int) -> None:
        """Raises InvalidInput unless the model gives one score or the two classes no and yes."""
        if model.config.num_labels not in (1, 2):
            rule = f"must have 1 or 2 labels, has {model.config.num_labels}"
            raise InvalidInput([Problem("annotator.model", rule, model.name_or_path)])
        self._model, self._tokenizer = model, tokenizer
        self._threshold, self._max_length = threshold, max_length

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Verdicts:
        """Scores are probabilities of relevance."""
        encoded = self._tokenizer(
            list(queries),
            list(passages),
            truncation="only_second",
            max_length=self._max_length,
            padding=False,
        )
        scores = np.empty(len(queries), dtype=np.float32)
        for rows in _batches([len(ids) for ids in encoded["input_ids"]], self._model.device):
            part = {name: [values[row] for row in rows] for name, values in encoded.items()}
            inputs = self._tokenizer.pad(part, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float()
            relevant = logits.softmax(-1)[:, 1] if logits.shape[1] == 2 else logits[:, 0].sigmoid()
            scores[rows] = relevant.cpu().numpy()
        return Verdicts((scores >= self._threshold).astype(np.int16), scores)


class CausalJudge:
    """A causal language model: the grade is the answer that it finds likeliest next."""

    def __init__(self, model: Any, tokenizer: Any, prompt: Prompt) -> None:
        """Raises InvalidInput when the answers cannot be told apart by one token."""
        self._model, self._tokenizer, self._prompt = model, tokenizer, prompt
        self._chat = getattr(tokenizer, "chat_template", None) is not None
        self._lead, self._answers = self._answer_ids()
        limit = getattr(model.config, "max_position_embeddings", None) or LONGEST_PROMPT
        self._limit = min(limit, LONGEST_PROMPT)
        self._options = inspect.signature(model.forward).parameters

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Verdicts:
        """Scores are expected grades under the model's probabilities of the answers."""
        prompts = [self._ids(*pair) for pair in zip(queries, passages, strict=True)]
        grades = np.empty(len(prompts), dtype=np.int16)
        scores = np.empty(len(prompts), dtype=np.float32)
        values = torch.arange(len(self._answers), dtype=torch.float32)
        for rows in _batches([len(ids) for ids in prompts], self._model.device):
            logits = self._next([prompts[row] for row in rows])[:, self._answers]
            grades[rows] = logits.argmax(-1).numpy()
            scores[rows] = (logits.softmax(-1) @ values).numpy()
        return Verdicts(grades, scores)

    def _next(self, prompts: list[list[int]]) -> Tensor:
        """Logits of the token after each prompt, float32[B, V] on the CPU."""
        width = max(map(len, prompts))
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        # Padding stands before the prompts, so that all of them end in the last column.
        ids = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts])
        device = self._model.device
        inputs = {
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0).to(device),
            "logits_to_keep": 1,
        }
        with torch.inference_mode():
            logits = self._model(**{k: v for k, v in inputs.items() if k in self._options}).logits
        last: Tensor = logits[:, -1].float().cpu()
        return last

    def _ids(self, query: str, passage: str) -> list[int]:
        """The tokens of a prompt and of what all answers share; the passage is cut to fit."""
        words = passage.split()
        while True:
            ids = self._encode(self._prompt.ask(query, " ".join(words))) + self._lead
            if len(ids) <= self._limit:
                return ids
            if not words:
                rule = f"leaves no room for a passage within {self._limit} tokens"
                raise InvalidInput([Problem("prompt", rule, query)])
            words = words[: len(words) * min(self._limit, len(ids) - 1) // len(ids)]

    def _encode(self, text: str) -> list[int]:
        if self._chat:
            text = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
            )
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self._chat)["input_ids"]
        return ids

    def _answer_ids(self) -> tuple[list[int], list[int]]:
        """The tokens that all answers begin with, and for each answer the token after them."""
        blank = "" if self._chat else " "
        spelled = [
            self._tokenizer(blank + answer, add_special_tokens=False)["input_ids"]
            for answer in self._prompt.answers
        ]
        shared = 0
        while all(len(ids) > shared + 1 for ids in spelled) and (
            len({ids[shared] for ids in spelled}) == 1
        ):
            shared += 1
        deciding = [ids[shared] for ids in spelled if len(ids) > shared]
        if len(set(deciding)) < len(self._prompt.answers):
            rule = "cannot be told apart by their first differing token; choose other words"
            raise InvalidInput([Problem("prompt.answers", rule, " ".join(self._prompt.answers))])
        return spelled[0][:shared], deciding


def kind_of(model: str) -> str:
    """What a model can judge as, by the head that its settings state: `bi-encoder` (none, or one
    that is not read), `cross-encoder` or `causal-lm`.

    `model` is a folder or a Hugging Face name. Raises InvalidInput when it cannot be read or has
    a head for another task.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            resolve_backbone(model), trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(model, error) from error
    stated = (getattr(config, "architectures", None) or [""])[0]
    if stated.endswith(_OTHER_HEADS):
        rule = f"is a {stated}; must be a bi-encoder, a cross-encoder or a causal language model"
        raise InvalidInput([Problem("annotator.model", rule, model)])
    return next((kind for head, kind in _HEADS.items() if stated.endswith(head)), "bi-encoder")


def load_model(source: str, head: str) -> tuple[Any, Any]:
    """A model with safetensors weights and its tokenizer, from a folder or a Hugging Face name.

    `head` is the class of transformers that reads it. Raises InvalidInput when it cannot.
    """
    import transformers

    # Half precision is slow on most CPUs, and on many it is not there at all.
    dtype = "auto" if accelerator().type == "cuda" else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = getattr(transformers, head).from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(source, error) from error
    return model.to(accelerator()).eval(), tokenizer


def _unusable(model: str, error: Exception) -> InvalidInput:
    rule = f"cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
    return InvalidInput([Problem("annotator.model", rule, model)])


def _batches(lengths: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    """Rows of one forward pass each, the longest first."""
    budget = BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
