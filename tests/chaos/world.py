"""What the sweeps under attack train: a tiny BERT on a tiny collection, about a second a trial."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tests.tiny import write_backbone

STUDY = """
question: Does it end the same, whatever is killed?
fixed:
  data.train: {folder}/tiny
  encoder.backbone: {folder}/backbone
  encoder.query_length: 8
  encoder.passage_length: 16
  encoder.dropout: 0.0
  optim.lr: 1.0e-3
  optim.batch_size: 6
  optim.steps: {steps}
compare: {{loss.name: [joint_lh, lse_pair], loss.temperature: [0.1, 0.2]}}
repeat: {{seed: [{seeds}]}}
evaluate: [{folder}/tiny/test]
resources: {{workers: {workers}, max_concurrent_trials: 2}}
"""


def make(folder: Path) -> None:
    """Write the collection and the backbone below `folder`."""
    _collection(folder / "tiny")
    (folder / "backbone").mkdir()
    write_backbone(folder / "backbone")


def write_study(folder: Path, name: str, steps: int, seeds: int, workers: int) -> Path:
    """A study of 4 x `seeds` trials."""
    numbers = ", ".join(map(str, range(seeds)))
    text = STUDY.format(folder=folder, steps=steps, seeds=numbers, workers=workers)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _collection(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    words = [f"{a}{b}" for a in string.ascii_lowercase[:12] for b in string.ascii_lowercase[:5]]
    texts = [" ".join(words[(i * 7 + j * 3) % len(words)] for j in range(8)) for i in range(60)]
    passages = [{"_id": f"p{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    queries = [{"_id": f"q{i}", "text": texts[2 * i][:11]} for i in range(30)]
    for name, rows in (("corpus", passages), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for split, members in (("train", range(20)), ("test", range(20, 30))):
        lines = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{2 * i}\t1\n" for i in members)
        (folder / "qrels" / f"{split}.tsv").write_text(lines, encoding="utf-8")
