"""One worker of a gloo group that evaluates: `python worker.py RANK BACKBONE FOLDER REF...`.

Alone and in the group it leaves what `write_scores` writes in FOLDER/SIZE-RANK. Started once per
rank by test_evaluate.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from trainables.data.cache import Cache
from trainables.data.collections import parse_ref
from trainables.evaluation import evaluate as room
from trainables.evaluation.evaluate import evaluate, write_scores
from trainables.model.encoder import Encoder
from trainables.spec import EncoderSpec


def main(rank: int, backbone: str, folder: Path, refs: list[str]) -> None:
    """Evaluate alone (rank 0), then in a group of two."""
    torch.set_num_threads(1)
    room.SMALLEST_CHUNK = 7
    encoder = Encoder.load(EncoderSpec(backbone=backbone), seed=0)
    for world in (1, 2):
        if rank >= world:
            continue
        if world > 1:
            address = f"file://{folder / f'meet{world}'}"
            dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
        cache = Cache(folder / f"cache{world}")
        for scores in evaluate(encoder, [parse_ref(ref) for ref in refs], cache, depth=1000):
            write_scores(scores, folder / f"{world}-{rank}" / scores.slug)
        if world > 1:
            dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
