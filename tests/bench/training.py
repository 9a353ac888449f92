"""Training against its peers: queries and tokens per second, memory, share of the GEMM peak.

    python tests/bench/training.py ../shared/data/nq-oracle ../shared/data/nfcorpus --positives 1 4

Three sides train the same encoder on the same queries, positives and hard negatives, cut at the
same length, with the same optimiser and dropout:

- `ours`: the project's own training step with all it does at each step.
- `peer`: sentence-transformers' trainer with MultipleNegativesRankingLoss. A query with several
  positives becomes as many rows, each with the query's hard negatives, as it asks for.
- `bare`: forward, backward and step on this project's batches, padded beforehand: the ceiling.

Each measurement is a process of its own, and the sides take turns, so that all meet the same
machine. Rates are medians over the steps after the first two. The GEMM peak is measured in the
same process before and after, in float32. `--peer-python` is an interpreter that has
`sentence-transformers` and `accelerate` beside this project's packages.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tests/bench"]

SIDES = ("bare", "ours", "peer")
SKIPPED = 2
"""First steps, in which memory is first touched and peers warm up."""


def main() -> None:
    arguments = parser().parse_args()
    if arguments.child:
        print(json.dumps(measure(json.loads(arguments.child))))
        return
    cells = [(folder, count) for folder in arguments.collections for count in arguments.positives]
    with tempfile.TemporaryDirectory() as temporary:
        for folder, positives in cells:
            task = settings(arguments, folder, positives) | {"cache": f"{temporary}/cache"}
            compare(task, arguments)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("collections", nargs="*", type=Path)
    top.add_argument("--positives", nargs="+", type=int, default=[1])
    top.add_argument("--negatives", type=int, default=3)
    top.add_argument("--queries", type=int, default=16, help="per step")
    top.add_argument("--length", type=int, default=128)
    top.add_argument("--layers", type=int, default=6)
    top.add_argument("--steps", type=int, default=6, help="that are timed")
    top.add_argument("--threads", type=int, default=2)
    top.add_argument("--repeats", type=int, default=3)
    top.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    top.add_argument("--compile", action="store_true", help="our side with torch.compile")
    top.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    top.add_argument("--peer-python", default=sys.executable)
    top.add_argument("--child", help=argparse.SUPPRESS)
    return top


def settings(arguments: argparse.Namespace, folder: Path, positives: int) -> dict[str, Any]:
    """What a child process is told."""
    flat = {
        "data.train": f"{folder.resolve()}/train",
        "data.max_positives": positives,
        "data.hard_negatives": arguments.negatives,
        "encoder.backbone": "packaged/all-MiniLM-L6-v2",
        "encoder.layers": arguments.layers,
        "encoder.query_length": min(32, arguments.length),
        "encoder.passage_length": arguments.length,
        "loss.name": "single_lh" if positives == 1 else "joint_lh",
        "loss.temperature": 0.05,
        "optim.lr": 2e-5,
        "optim.batch_size": arguments.queries,
        "optim.steps": SKIPPED + arguments.steps,
        "optim.precision": arguments.precision,
        "optim.compile": arguments.compile,
    }
    return {"flat": flat, "threads": arguments.threads}


def compare(task: dict[str, Any], arguments: argparse.Namespace) -> None:
    flat = task["flat"]
    print(
        f"\n{Path(flat['data.train']).parent.name}: {flat['optim.batch_size']} queries x "
        f"(up to {flat['data.max_positives']} positives + {flat['data.hard_negatives']} negatives)"
        f" a step, {flat['encoder.layers']} layers, {flat['encoder.passage_length']} tokens, "
        f"{task['threads']} threads, medians of {arguments.repeats} turns",
        flush=True,
    )
    found: dict[str, list[dict[str, float]]] = {side: [] for side in arguments.sides}
    for _ in range(arguments.repeats):
        for side in arguments.sides:
            python = arguments.peer_python if side == "peer" else sys.executable
            found[side].append(child(python, task | {"side": side}))
    print(f"{'':6} {'queries/s':>9} {'tokens/s':>9} {'GEMM %':>7} {'MiB':>6}   ratio to ours")
    ours = found.get("ours")
    for side, rows in found.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        line = f"{side:6} {middle['queries']:9.2f} {middle['tokens']:9.0f} "
        line += f"{100 * middle['gemm']:7.0f} {middle['memory']:6.0f}   "
        if ours is not None and side != "ours":
            ratios = [
                mine["queries"] / row["queries"] for mine, row in zip(ours, rows, strict=True)
            ]
            line += f"ours is {statistics.median(ratios):.2f}x "
            line += f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
        print(line, flush=True)


def child(python: str, task: dict[str, Any]) -> dict[str, float]:
    command = [python, str(Path(__file__).resolve()), "--child", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{task['side']} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(task: dict[str, Any]) -> dict[str, float]:
    """One side's figures: queries and tokens (padding excluded) a second, share of the GEMM peak
    that the useful arithmetic reached, peak resident memory in MiB."""
    import torch

    from trainables.data.cache import Cache
    from trainables.prepare.prepare import prepare
    from trainables.spec import TrialSpec

    torch.set_num_threads(task["threads"])
    spec = TrialSpec.from_flat(task["flat"])
    cache = Cache(Path(task["cache"]))
    prepare(spec, cache)
    run = {"ours": run_ours, "bare": run_bare, "peer": run_peer}[task["side"]]
    before = gemm_peak()
    seconds, work = run(spec, cache)
    peak = statistics.mean([before, gemm_peak()])
    kept = list(zip(seconds, work, strict=True))[SKIPPED:]
    rate = {key: statistics.median(done[key] / spent for spent, done in kept) for key in kept[0][1]}
    return {
        "queries": rate["queries"],
        "tokens": rate["tokens"],
        "gemm": rate["operations"] / peak,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def gemm_peak(size: int = 2048, repeats: int = 4) -> float:
    """Floating-point operations a second of a large matrix product."""
    import torch

    left = torch.randn(size, size)
    torch.mm(left, left)
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, left)
    return 2 * repeats * size**3 / (time.perf_counter() - started)


def useful(lengths: Any, layers: int, width: int, inner: int) -> float:
    """Floating-point operations of forward and backward over texts of `lengths`, unpadded."""
    lengths = lengths.astype(float)
    linear = 2 * lengths * (4 * width * width + 2 * width * inner)
    return float(3 * layers * (linear + 4 * lengths**2 * width).sum())


def work_of(spec: Any, inputs: Any) -> dict[str, float]:
    """Queries, tokens and operations of one of this project's steps."""
    lengths = [part.lengths for part in (inputs.queries, inputs.passages)]
    return {
        "queries": float(len(inputs.queries)),
        "tokens": float(sum(part.sum() for part in lengths)),
        "operations": sum(useful(part, spec.encoder.layers, 384, 1536) for part in lengths),
    }


class Silent:
    """A reporter of a trial that runs alone and keeps nothing."""

    rank, world_size = 0, 1

    def progress(self, metrics: Any) -> None:
        """Nothing."""

    def save(self, folder: Path, step: int) -> None:
        """Nothing."""

    def restore(self) -> Path | None:
        """Nothing was kept."""


def run_ours(spec: Any, cache: Any) -> tuple[list[float], list[dict[str, float]]]:
    from trainables.train import Training, TrialTask

    training = Training(spec, cache, Silent(), TrialTask({}, (), "", ""))
    training.encoder.train()
    seconds, work = [], []
    for step in range(spec.optim.steps):
        started = time.perf_counter()
        training._one_step()
        seconds.append(time.perf_counter() - started)
        work.append(work_of(spec, training.feed.inputs(step, 0, 1)))
        training.step += 1
    return seconds, work


def run_bare(spec: Any, cache: Any) -> tuple[list[float], list[dict[str, float]]]:
    import torch
    from torch.nn import functional

    from trainables.feed import Feed
    from trainables.model.encoder import Encoder

    encoder = Encoder.load(spec.encoder, spec.seed)
    feed = Feed(spec, cache, encoder.tokenizer_path)
    tower = encoder.passage.train()
    optimizer = torch.optim.AdamW(tower.parameters(), lr=spec.optim.lr, fused=True)
    seconds, work = [], []
    for step in range(spec.optim.steps):
        inputs = feed.inputs(step, 0, 1)
        ready = [list(padded(part)) for part in (inputs.queries, inputs.passages)]
        weights = inputs.positive.float() / inputs.positive.sum(-1, keepdim=True)
        started = time.perf_counter()
        sides = []
        for groups in ready:
            vectors = [
                (tower(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None])
                .sum(1)
                .div(mask.sum(-1, keepdim=True))
                for ids, mask, _ in groups
            ]
            places = torch.cat([rows for _, _, rows in groups]).argsort()
            sides.append(functional.normalize(torch.cat(vectors), dim=-1)[places])
        logits = (sides[0] @ sides[1].T / spec.loss.temperature).masked_fill(
            ~inputs.candidate, -1e30
        )
        loss = -(logits.log_softmax(-1) * weights).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        work.append(work_of(spec, inputs))
    return seconds, work


def padded(tokens: Any) -> Iterator[Any]:
    """Padded ids, mask and rows of texts of like length, 16 at a time."""
    import numpy as np
    import torch

    order = np.argsort(-tokens.lengths, kind="stable")
    for start in range(0, len(order), 16):
        rows = order[start : start + 16]
        ids, mask = (torch.from_numpy(part) for part in tokens.take(rows).padded(0))
        yield ids, mask, torch.from_numpy(rows)


def run_peer(spec: Any, cache: Any) -> tuple[list[float], list[dict[str, float]]]:
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from trainables.model.encoder import Encoder

    with tempfile.TemporaryDirectory() as temporary:
        Encoder.load(spec.encoder, spec.seed).save(f"{temporary}/model")
        model = SentenceTransformer(f"{temporary}/model", device="cpu")
        model.max_seq_length = spec.encoder.passage_length
        rows, share = exploded(spec, cache)
        seconds: list[float] = []
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=f"{temporary}/out",
                per_device_train_batch_size=spec.optim.batch_size,
                max_steps=spec.optim.steps,
                learning_rate=spec.optim.lr,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=rows,
            loss=MultipleNegativesRankingLoss(model, scale=1 / spec.loss.temperature),
            callbacks=[clock(TrainerCallback, seconds)],
        )
        trainer.train()
    work = peer_work(spec, rows, model, share)
    return seconds, [work] * len(seconds)


def clock(base: Any, seconds: list[float]) -> Any:
    """A trainer's callback that notes the seconds from the end of one step to that of the next, so
    that the batch's making is part of it, as it is on our side."""

    class Clock(base):  # type: ignore[misc]
        last = time.perf_counter()

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            seconds.append(now - self.last)
            self.last = now

    return Clock()


def exploded(spec: Any, cache: Any) -> tuple[Any, float]:
    """The rows (query, positive, negatives) of the steps' batches as a data set, and the share of
    a query that a row stands for."""
    from datasets import Dataset

    from trainables.data.collections import open_collection
    from trainables.data.sources import training_ref
    from trainables.feed import Feed
    from trainables.model.backbones import resolve_backbone

    feed = Feed(spec, cache, resolve_backbone(spec.encoder.backbone))
    collection = open_collection(training_ref(spec.data).collection, cache)
    rows, queries = [], 0
    for step in range(spec.optim.steps):
        batch = feed.batches.batch(step)
        for query in range(len(batch.query_rows)):
            negatives = batch.passage_rows[batch.hard[query]][: spec.data.hard_negatives]
            if len(negatives) < spec.data.hard_negatives:
                continue
            queries += 1
            anchor = collection.queries.text(batch.query_rows[query : query + 1])[0]
            hard = collection.passages.text(negatives)
            for positive in collection.passages.text(batch.passage_rows[batch.positive[query]]):
                rows.append([anchor, positive, *hard])
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(spec.data.hard_negatives))]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    return Dataset.from_dict(columns), queries / len(rows)


def peer_work(spec: Any, rows: Any, model: Any, share: float) -> dict[str, float]:
    """Queries, tokens and operations of the peer's average step."""
    import numpy as np

    lengths = [
        np.array([min(len(ids), spec.encoder.passage_length) for ids in encoded["input_ids"]])
        for encoded in (model.tokenizer(list(rows[name])) for name in rows.column_names)
    ]
    batch = spec.optim.batch_size
    operations = sum(useful(part, spec.encoder.layers, 384, 1536) for part in lengths)
    return {
        "queries": batch * share,
        "tokens": float(sum(part.sum() for part in lengths)) / len(rows) * batch,
        "operations": operations / len(rows) * batch,
    }


if __name__ == "__main__":
    main()
