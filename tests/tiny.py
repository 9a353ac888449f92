"""A backbone that trains in a moment, and a study: for fixtures, and commands that are no tests."""

from __future__ import annotations

from pathlib import Path

WORDS = (  # noqa: SIM905
    "array matrix vector sort sum mean filter index shape axis value data frame column row join "
    "merge group plot curve fit root solve linear signal wave noise random sample test score rank "
    "query passage search text token model train loss batch step graph tree node edge path short"
).split()

TWO_LOSSES = """
question: How does it stand?
fixed:
  data.train: {train}
  encoder.backbone: {backbone}
  loss.temperature: 0.1
  optim.lr: 1.0e-3
  optim.batch_size: 6
  optim.steps: 6
compare: {{loss.name: [joint_lh, lse_pair]}}
repeat: {{seed: [0, 1]}}
evaluate: ["{test}/test"]
"""


def write_backbone(folder: Path) -> None:
    """Leave a BERT with 2 layers of width 32, random weights, and its tokenizer in `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    vocabulary += [f"##{letter}" for letter in letters] + list("0123456789.,:;-_()")
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
