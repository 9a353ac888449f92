"""The loop: same spec, same bits; killed and resumed, same bits; k workers, same encoder."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from trainables.model.encoder import Encoder
from trainables.model.losses import LOSSES
from trainables.spec import OptimSpec, TrialSpec
from trainables.train import Outcome, TrainingFailed, TrialTask, learning_rate, train_trial

STEPS = 9
RUNNER = Path(__file__).with_name("trial_runs.py")


@dataclasses.dataclass
class Quiet:
    """One worker that reports to nobody."""

    rank: int = 0
    world_size: int = 1

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Nothing to say."""

    def dev(self, metrics: Mapping[str, float]) -> None:
        """Nothing to say."""

    def save(self, folder: Path, step: int) -> None:
        """Nothing to keep."""

    def restore(self) -> Path | None:
        return None


@dataclasses.dataclass
class Loud(Quiet):
    """Remembers the rows of watched scores."""

    heard: list[Mapping[str, float]] = dataclasses.field(default_factory=list)

    def dev(self, metrics: Mapping[str, float]) -> None:
        self.heard.append(metrics)


@pytest.fixture
def flat(tiny_backbone: str, tiny_collection: str) -> dict[str, Any]:
    return {
        "data.train": tiny_collection, "data.machine_labels": "weak", "data.human_fraction": 0.5,
        "encoder.backbone": tiny_backbone, "encoder.query_length": 8, "encoder.passage_length": 16,
        "encoder.dropout": 0.0, "loss.name": "sum_marg_lh", "loss.temperature": 0.1,
        "optim.lr": 1e-3, "optim.batch_size": 7, "optim.steps": STEPS,
    }  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def a_task(flat: Mapping[str, Any], cache: str, output: Path, refs: tuple[str, ...]) -> TrialTask:
    return TrialTask(
        TrialSpec.from_flat(flat).to_flat(), refs, cache, str(output), checkpoint_steps=2
    )


def run_apart(world_size: int, task: TrialTask, keep: Path, kill_at: int | None = None) -> int:
    arguments = [str(world_size), json.dumps(dataclasses.asdict(task)), str(keep)]
    arguments += [] if kill_at is None else [str(kill_at)]
    return subprocess.run([sys.executable, str(RUNNER), *arguments], timeout=240).returncode


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoint" / "model.safetensors")


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and first
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert Outcome.read(one).metrics == Outcome.read(other).metrics
    assert (one / "history.jsonl").read_bytes() == (other / "history.jsonl").read_bytes()


@pytest.mark.parametrize(("world_size", "kills"), [(1, (1, 8)), (2, (5,))])
def test_killed_and_resumed_is_the_undisturbed_training(
    flat: dict[str, Any],
    cache: str,
    tmp_path: Path,
    tiny_collection: str,
    world_size: int,
    kills: tuple[int, ...],
) -> None:
    """With dropout, so that random numbers have to come back too."""
    flat["encoder.dropout"] = 0.2
    refs = (f"{tiny_collection}/dev",)
    assert run_apart(world_size, a_task(flat, cache, tmp_path / "a", refs), tmp_path / "ka") == 0
    task = a_task(flat, cache, tmp_path / "b", refs)
    for step in kills:
        assert run_apart(world_size, task, tmp_path / "kb", kill_at=step) != 0
    assert run_apart(world_size, task, tmp_path / "kb") == 0
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def test_two_workers_make_the_encoder_of_one(
    flat: dict[str, Any], cache: str, tmp_path: Path, tiny_collection: str
) -> None:
    """Not to the bit: two workers add the same numbers in another order."""
    flat["loss.name"] = "rand1_lh"
    refs = (f"{tiny_collection}/dev",)
    train_trial(a_task(flat, cache, tmp_path / "1", refs), Quiet())
    assert run_apart(2, a_task(flat, cache, tmp_path / "2", refs), tmp_path / "k") == 0
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    apart = sum(float((one[key] - two[key]).square().sum()) for key in one) ** 0.5
    size = sum(float(value.square().sum()) for value in one.values()) ** 0.5
    assert 0.0 <= apart / size < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_leaves_a_whole_outcome(
    flat: dict[str, Any], cache: str, tmp_path: Path, tiny_collection: str, loss: str
) -> None:
    flat |= {"loss.name": loss, "optim.steps": 12}
    refs = (f"{tiny_collection}/dev", f"{tiny_collection}/test")
    outcome = train_trial(a_task(flat, cache, tmp_path, refs), Quiet())
    rows = [json.loads(row) for row in (tmp_path / "history.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows]
    assert len(rows) == 12
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert set(outcome.evaluated) == {"tiny/dev", "tiny/test"}
    assert all(0.0 <= outcome.metrics[f"tiny/{split}/ndcg_at_10"] <= 1 for split in ("dev", "test"))
    assert Outcome.read(tmp_path) == outcome


def test_a_trained_encoder_is_scored_again_to_the_same_numbers(
    flat: dict[str, Any], cache: str, tmp_path: Path, tiny_collection: str
) -> None:
    refs = (f"{tiny_collection}/test",)
    trained = train_trial(a_task(flat, cache, tmp_path / "a", refs), Quiet())
    task = dataclasses.replace(
        a_task(flat, cache, tmp_path / "b", refs), trained=str(tmp_path / "a" / "checkpoint")
    )
    assert train_trial(task, Quiet()).metrics == trained.metrics


@pytest.mark.parametrize("passages", [None, 40])
def test_watching_changes_no_weight_and_is_in_the_history(
    flat: dict[str, Any], cache: str, tmp_path: Path, tiny_collection: str, passages: int | None
) -> None:
    """With dropout, whose random numbers must not be used up by the evaluation."""
    flat["encoder.dropout"] = 0.2
    refs = (f"{tiny_collection}/dev",)
    plain, reporter = a_task(flat, cache, tmp_path / "plain", refs), Loud()
    watch = {"split": refs[0], "every": 2, "passages": passages, "metrics": ["mrr_at_10"]}
    task = dataclasses.replace(plain, watch=watch, output=str(tmp_path / "watched"))
    expected, found = train_trial(plain, Quiet()), train_trial(task, reporter)
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "watched")
    assert first.keys() == second.keys() and first
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    key = "tiny/dev/mrr_at_10" if passages is None else "tiny/dev:40-passages/mrr_at_10"
    rows = [
        json.loads(row) for row in (tmp_path / "watched" / "history.jsonl").read_text().splitlines()
    ]
    curve = {row["step"]: row[key] for row in rows if key in row}
    assert list(curve) == [2, 4, 6, 8, 9]
    assert [row["step"] for row in reporter.heard if key in row] == list(curve)
    assert found.metrics == {**expected.metrics, key: curve[9]}
    if passages is None:
        assert curve[9] == expected.metrics[key]


def test_killed_in_a_watched_training(
    flat: dict[str, Any], cache: str, tmp_path: Path, tiny_collection: str
) -> None:
    refs = (f"{tiny_collection}/dev",)
    watch = {"split": refs[0], "every": 2, "passages": 40, "metrics": ["mrr_at_10"]}
    tasks = [
        dataclasses.replace(a_task(flat, cache, tmp_path / name, refs), watch=watch)
        for name in ("a", "b")
    ]
    assert run_apart(1, tasks[0], tmp_path / "whole") == 0
    assert run_apart(1, tasks[1], tmp_path / "keep", kill_at=5) != 0
    assert run_apart(1, tasks[1], tmp_path / "keep") == 0
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def test_a_kept_run_is_judged_without_the_encoder(
    flat: dict[str, Any],
    cache: str,
    tmp_path: Path,
    tiny_collection: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refs = (f"{tiny_collection}/test",)
    trained = train_trial(a_task(flat, cache, tmp_path / "a", refs), Quiet())
    judged = a_task(flat, cache, tmp_path / "b", (f"{refs[0]}:weak",))
    checkpoint = str(tmp_path / "a" / "checkpoint")
    fresh = train_trial(dataclasses.replace(judged, trained=checkpoint), Quiet())
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("it encodes"))
    kept = {"tiny/test": str(tmp_path / "a" / "evaluations" / "tiny__test")}
    task = dataclasses.replace(judged, trained=checkpoint, kept=kept, output=str(tmp_path / "c"))
    again = train_trial(task, Quiet())
    assert again.metrics == fresh.metrics and again.evaluated == fresh.evaluated
    assert set(again.evaluated) == {
        "tiny/test", "tiny/test:machine:weak", "tiny/test:union:weak"
    }  # fmt: skip
    assert again.metrics.items() >= trained.metrics.items()
    runs = [tmp_path / name / "evaluations" / "tiny__test" / "run.trec" for name in "ac"]
    assert runs[0].read_bytes() == runs[1].read_bytes()


def test_a_training_that_explodes_says_so_and_what_to_change(
    flat: dict[str, Any], cache: str, tmp_path: Path
) -> None:
    flat |= {"optim.lr": 1e30, "encoder.normalize": False, "optim.clip_norm": None}
    with pytest.raises(TrainingFailed, match=r"not finite at step \d+ .* lower optim.lr"):
        train_trial(a_task(flat, cache, tmp_path, ()), Quiet())


@given(
    st.integers(1, 300), st.integers(0, 1000), st.floats(0, 1), st.floats(1e-6, 1.0)
)  # fmt: skip
def test_the_learning_rate_rises_then_falls_and_stays_positive(
    length: int, first: int, warmup: float, lr: float
) -> None:
    optim = OptimSpec(lr=lr, batch_size=1, steps=length, warmup=warmup)
    rates = [
        learning_rate(optim, first, first + length, step) for step in range(first, first + length)
    ]
    top = int(np.argmax(rates))
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top + 1 :]))
