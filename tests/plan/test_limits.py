"""Numbers that one key may hold and a trial cannot use: more layers than there are, huge seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.plan.conftest import Read, problems_of
from trainables.spec import MOST_SEED

BACKBONE = "packaged/all-MiniLM-L6-v2"


def test_no_more_layers_are_kept_than_the_backbone_has(read: Read) -> None:
    assert read(sets={"encoder.layers": "6"}).fixed["encoder.layers"] == 6
    (said,) = problems_of(read, sets={"encoder.layers": "99"})
    assert said.startswith("--set encoder.layers=99")
    assert f"more layers than {BACKBONE} has, which is 6" in said
    assert said.endswith("(got 99); did you mean '6'?")


def test_layers_are_judged_by_each_cells_own_backbone(read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 12, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    both = f"[{BACKBONE}, {folder}]"
    (said,) = problems_of(read, sets={"encoder.backbone": both, "encoder.layers": "[2, 12]"})
    assert BACKBONE in said and "in cell" in said and "(got 12)" in said
    deep = {"encoder.backbone": str(folder), "encoder.layers": "12"}
    assert read(sets=deep).fixed["encoder.layers"] == 12
    unknown = {"encoder.backbone": "someone/unheard-of", "encoder.layers": "99"}
    assert read(sets=unknown).fixed["encoder.layers"] == 99


@pytest.mark.parametrize("seed", ["99999999999999999999999999", f"[0, {MOST_SEED + 1}]"])
def test_a_seed_is_one_that_torch_takes(read: Read, seed: str) -> None:
    (said,) = problems_of(read, sets={"seed": seed})
    assert "seed" in said and f"less than or equal to {MOST_SEED}" in said
    assert read(sets={"seed": str(MOST_SEED)}).seeds == (MOST_SEED,)
    assert torch.Generator().manual_seed(MOST_SEED).initial_seed() == MOST_SEED
