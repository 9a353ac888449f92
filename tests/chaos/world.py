"""What the sweeps under attack train: a tiny BERT on a tiny collection, a few seconds a trial."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
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
compare: {{loss.name: [joint_lh, lse_pair], loss.temperature: [{temperatures}]}}
repeat: {{seed: [{seeds}]}}
evaluate: [{folder}/tiny/test]
resources: {{workers: {workers}, max_concurrent_trials: 2}}
"""


@dataclass(frozen=True)
class Shape:
    """A kind of sweep: its trials have `workers` workers and `steps` steps each."""

    name: str
    workers: int
    temperatures: tuple[float, ...]
    seeds: int
    steps: int

    @property
    def cells(self) -> int:
        """Two losses at each temperature."""
        return 2 * len(self.temperatures)


SHAPES = (
    Shape("alone", workers=1, temperatures=(0.1, 0.2), seeds=3, steps=450),
    Shape("group", workers=2, temperatures=(0.1,), seeds=1, steps=1500),
)
"""Trials leave a training checkpoint every 200 steps."""


def make(folder: Path) -> None:
    """Write the collection and the backbone below `folder`, unless they are there."""
    if not (folder / "backbone").exists():
        _collection(folder / "tiny")
        (folder / "backbone").mkdir()
        write_backbone(folder / "backbone")


def write_study(folder: Path, name: str, shape: Shape) -> Path:
    """The file of a study of that shape; its trials are the same under every name."""
    path = folder / f"{name}.yaml"
    text = STUDY.format(
        folder=folder,
        steps=shape.steps,
        temperatures=", ".join(map(str, shape.temperatures)),
        seeds=", ".join(map(str, range(shape.seeds))),
        workers=shape.workers,
    )
    path.write_text(text, encoding="utf-8")
    return path


def _collection(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
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
