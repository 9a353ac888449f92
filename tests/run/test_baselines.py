"""What is prepared beside the trials: the summary that the report reads."""

from __future__ import annotations

import json
from pathlib import Path

from ablate.run.baselines import prepare


def test_the_summary_audits_what_is_evaluated_on(
    tiny_collection: str, tiny_backbone: str, tmp_path: Path
) -> None:
    spec = {
        "data.train": tiny_collection,
        "encoder.backbone": tiny_backbone,
        "loss.name": "lse_pair",
        "loss.temperature": 0.1,
        "optim.lr": 1e-3,
        "optim.batch_size": 4,
        "optim.steps": 2,
    }
    refs = [f"{tiny_collection}/dev", f"{tiny_collection}/test:weak>=2", f"{tiny_collection}/test"]
    summary = json.loads(json.dumps(prepare(spec, refs, str(tmp_path))))
    overlaps = summary["audit"]["overlaps"]
    assert [(o["train"], o["test"]) for o in overlaps] == [
        ("tiny/train", "tiny/dev"),
        ("tiny/train", "tiny/test"),
    ]
    assert [o["test_queries_of"] for o in overlaps] == [5, 7]
    assert {f["ref"]: f["judgements"] for f in summary["audit"]["flaws"]} == {
        "tiny/train": 36,
        "tiny/dev": 10,
        "tiny/test": 14,
    }
    assert summary["lines"]
