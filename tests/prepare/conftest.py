"""Tiny judges, made on the spot: a causal language model and cross-encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SAID = [*"0123:.", "sum", "mean", "query", "passage", "score", "rank", "yes", "no", "very"]


@pytest.fixture(scope="session")
def causal_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a GPT-2 with 2 layers of width 16 over a vocabulary of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("causal")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<eos>", *SAID])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=160,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def cross_encoder(
    tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], str]:
    """Makes the folder of a random cross-encoder with so many labels."""

    def made(labels: int) -> str:
        return _cross_encoder(tiny_backbone, tmp_path_factory.mktemp("cross"), labels)

    return made


def _cross_encoder(tiny_backbone: str, folder: Path, labels: int) -> str:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(labels)
    config = BertConfig.from_pretrained(tiny_backbone)
    config.num_labels = labels
    config.initializer_range = 0.5
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(folder)
    return str(folder)
