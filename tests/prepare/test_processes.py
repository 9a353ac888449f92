"""Eight processes that want the same negatives and labels: each thing is made once, seen whole."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

EIGHT = """
import hashlib, os, sys
from pathlib import Path
from trainables.data.cache import Cache
from trainables.data.collections import open_collection
from trainables.data.sources import load_labels
from trainables.prepare import judging, negatives
from trainables.prepare.annotate import annotate
from trainables.prepare.annotators import CrossEncoder
from trainables.spec import DataSpec

folder, model, root, log = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
judging.BLOCK = 32

def noted(name, real):
    def call(*given, **named):
        with log.open("a") as file:
            file.write(f"{name(*given)}\\n")
        return real(*given, **named)
    return call

negatives.lexical_pool = noted(lambda *given: "mined", negatives.lexical_pool)
judging.Worker.work = noted(lambda self, block: f"block {block.number}", judging.Worker.work)

def work():
    cache = Cache(root)
    data = DataSpec(train=folder, hard_negatives=2, negative_depth=12)
    found = negatives.ensure_negatives(open_collection(folder, cache), data, cache)
    annotate(folder, CrossEncoder(model, depth=4), "cross", cache)
    labels = load_labels(open_collection(folder, cache), "cross", cache)
    said = repr((found.rows.tolist(), list(labels.query_ids), list(labels.passage_ids),
                 labels.grades.tolist()))
    return hashlib.sha256(said.encode()).hexdigest()

children = []
for _ in range(8):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, work().encode())
        os._exit(0)
    os.close(writing)
    children.append(reading)
print(*{os.read(child, 64).decode() for child in children})
print(*{os.wait()[1] for _ in children})
"""


def test_eight_processes_mine_and_annotate_once(
    tiny_collection: str, cross_encoder: Callable[[int], str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = [tiny_collection, cross_encoder(1), str(tmp_path / "cache"), str(log)]
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    digests, codes = done.stdout.splitlines()
    assert len(digests) == len(hashlib.sha256(b"").hexdigest()), done.stderr
    assert codes == "0"
    lines = log.read_text().splitlines()
    assert lines.count("mined") == 1
    blocks = [line for line in lines if line.startswith("block ")]
    assert len(blocks) > 3
    assert len(blocks) == len(set(blocks))
