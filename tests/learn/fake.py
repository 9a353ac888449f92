"""A run folder as a study leaves it, with simulated scores: quick, and the truth is known."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.study import read_study
from ablate.run.ledger import Ledger, Record, slug

FINGERPRINT = "ab" * 32
REVISION = "cd" * 20
STUDY = """
question: Which loss ranks best at which temperature?
fixed:
  data.train: pydocs
  data.machine_labels: minilm-l6
  data.human_fraction: 0.5
  encoder.backbone: packaged/all-MiniLM-L6-v2
  encoder.layers: 2
  optim.lr: 1.0e-4
  optim.batch_size: 32
  optim.steps: 60
compare:
  loss.name: [single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]
  loss.temperature: [0.02, 0.1]
repeat: {seed: [0, 1, 2]}
select: {maximize: pydocs/dev/ndcg_at_10}
evaluate: [pydocs/test]
"""
TUNED = STUDY.replace("  optim.lr: 1.0e-4\n", "").replace(
    "repeat:",
    "tune: {optim.lr: {log_uniform: [1.0e-5, 1.0e-3]}}\nbudget: {draws_per_cell: 3}\nrepeat:",
)
DATA_LINE = "labels of minilm-l6 against the human ones: precision 0.71, recall 0.64"
METRICS = ("mrr_at_10", "ndcg_at_10", "recall_at_10", "recall_at_100", "unjudged_at_10")
QUERIES = {"pydocs/dev": 80, "pydocs/test": 300}
LOSS_EFFECT = {
    "single_lh": 0.0, "rand1_lh": 0.015, "joint_lh": -0.03, "sum_marg_lh": 0.04, "lse_pair": 0.05,
}  # fmt: skip


def plan_of(text: str = STUDY, name: str = "losses") -> Plan:
    return make_plan(read_study(text, name), fingerprint=lambda collection: FINGERPRINT)


def quality(trial: PlannedTrial) -> float:
    """True mean of a trial's scores: loss, temperature, learning rate and seed."""
    flat = trial.flat
    value = 0.6 + LOSS_EFFECT[str(flat["loss.name"])]
    value += 0.03 if flat["loss.temperature"] == 0.1 else 0.0
    value -= 0.05 * abs(np.log10(float(flat["optim.lr"])) + 4)  # type: ignore[arg-type]
    return value + 0.008 * float(_generator(trial.trial_id).standard_normal())


def fill(
    plan: Plan,
    ledger: Ledger,
    only: Callable[[PlannedTrial], bool] = lambda trial: True,
    failed: Mapping[str, str] | None = None,
) -> None:
    """Write the trials of the plan that `only` names; `failed` maps a name to the reason."""
    folder = ledger.study(plan.study.name)
    folder.write("plan.json", plan.to_json())
    dev = [ref.label for ref in plan.dev_refs]
    refs = [*dev, *(ref.label for ref in plan.test_refs)]
    choices = {cell.name: 0 for cell in plan.cells}
    if not plan.frozen_by_design:
        for trial in filter(only, plan.choose()):
            write_trial(ledger, trial, dev, failed or {})
    trials = [trial for trial in plan.repeat(choices) if only(trial)]
    folder.write("choices.json", choices)
    if not folder.openings():
        opening = {"time": 1.79e9, "references": ["pydocs/test"], "trials": ["x"] * len(trials)}
        folder.open_test(opening, "0000")
    for trial in trials:
        write_trial(ledger, trial, refs, failed or {})
    for name, level in (("bm25", 0.55), ("untrained", 0.42)):
        write_evaluations(folder.local / "baselines" / name, level, name, list(QUERIES))
        folder.write(f"baselines/{name}/fingerprints.json", dict.fromkeys(QUERIES, FINGERPRINT))
    folder.write("data.json", [{"collection": "pydocs", "passages": 9214, "lines": [DATA_LINE]}])
    folder.write("executions/1790000000000.json", execution(len(trials)))


def execution(trained: int) -> dict[str, Any]:
    return {
        "started": 1.79e9, "finished": 1.79e9 + 431, "host": "laptop", "cpus": 2,
        "python": "3.11.7", "revision": REVISION,
        "versions": {"torch": "2.13.0", "ray": "2.60.0", "faiss": None},
        "trained": trained, "failed": 1, "already": 0,
    }  # fmt: skip


def write_trial(
    ledger: Ledger, trial: PlannedTrial, refs: list[str], failed: Mapping[str, str]
) -> None:
    """One trial's record and files; `failed` maps `<cell> <seed>` to a reason."""
    reason = failed.get(f"{trial.cell} {trial.seed}")
    record = Record(
        trial_id=trial.trial_id, spec=dict(trial.flat), fingerprints={"data.train": FINGERPRINT},
        state="failed" if reason else "finished", reason=reason, started=1.79e9 + trial.seed,
        finished=1.79e9 + 40 + trial.seed, seconds={"train": 31.0, "evaluate": 6.5}, attempts=1,
        host="laptop",
    )  # fmt: skip
    if reason:
        ledger.write(record)
        return
    output = ledger.store.scratch()
    level = quality(trial)
    metrics = write_evaluations(output / "evaluations", level, trial.trial_id, refs)
    rows = history(trial, level)
    (output / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (output / "checkpoint").mkdir()
    (output / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    ledger.publish(trial.trial_id, output)
    late = [row["train/loss"] for row in rows[-len(rows) // 4 :]]
    final = {"train/loss": sum(late) / len(late), **shares(trial)}
    evaluated = dict.fromkeys(refs, FINGERPRINT)
    ledger.write(
        Record(**{**vars(record), "metrics": {**metrics, **final}, "evaluated": evaluated})
    )


def history(trial: PlannedTrial, level: float) -> list[dict[str, float]]:
    noise = _generator(trial.trial_id)
    return [
        {
            "step": step,
            "train/loss": 2.5 * float(np.exp(-step / 18)) + 1.2 - level + 0.05 * noise.random(),
            "train/lr": 1e-4 * (1 - step / 61),
        }
        for step in range(1, 61)
    ]


def shares(trial: PlannedTrial) -> dict[str, float]:
    """Where the gradient went, as a trial logs it, from four simulated scores of one query."""
    flat, noise = trial.flat, _generator(trial.trial_id)
    scores = np.sort(noise.normal(0.5, 0.05, 4))[::-1] / float(flat["loss.temperature"])  # type: ignore[arg-type]
    strong, weak = np.exp(scores - scores.max()), np.exp(scores.min() - scores)
    pull = {
        "sum_marg_lh": strong,
        "lse_pair": weak,
        "joint_lh": np.maximum(0.25 - 0.5 * strong / strong.sum(), 0.0),
    }.get(str(flat["loss.name"]))
    found = {"grad/pull_machine": 0.3 + 0.1 * noise.random(), "grad/positives_machine": 0.5}
    found |= {"grad/push_hard": 0.2, "grad/push_known": 0.01, "grad/negatives_known": 0.002}
    if pull is not None:
        pull /= pull.sum()
        for name in ("pull", "predicted"):
            found |= {f"grad/{name}_rank_{rank}": float(part) for rank, part in enumerate(pull, 1)}
            found[f"grad/{name}_rank_last"] = float(pull[-1])
        found |= {"grad/prediction_gap": 1e-7, "grad/effective_positives": 2.5}
    return found


def write_evaluations(folder: Path, level: float, name: str, refs: list[str]) -> dict[str, float]:
    """per_query.parquet, metrics.json and run.trec per reference; returns the means."""
    means: dict[str, float] = {}
    for ref in refs:
        home = folder / slug(ref)
        home.mkdir(parents=True, exist_ok=True)
        columns = scores(level, name, ref)
        ids = [f"q{i}" for i in range(QUERIES[ref])]
        pq.write_table(pa.table({"query_id": ids, **columns}), home / "per_query.parquet")
        own = {f"{ref}/{metric}": float(column.mean()) for metric, column in columns.items()}
        (home / "metrics.json").write_text(json.dumps(own))
        (home / "run.trec").write_text("".join(f"{i} Q0 p 1 0.5 ablate\n" for i in ids))
        means |= own
    return means


def scores(level: float, name: str, ref: str) -> dict[str, np.ndarray]:
    """Queries differ in difficulty, the same for every trial; trials add noise of their own."""
    hard = _generator(ref).normal(0, 0.22, QUERIES[ref])
    own = _generator(name + ref).normal(0, 0.1, QUERIES[ref])
    raw = np.clip(level + hard + own, 0, 1)
    shifts = dict(zip(METRICS, (-0.06, 0.0, 0.08, 0.2, -0.45), strict=True))
    return {metric: np.clip(raw + shift, 0, 1) for metric, shift in shifts.items()}


def _generator(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))
