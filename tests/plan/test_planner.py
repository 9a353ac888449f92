"""Plans: paired draws, exact identities, and nothing kept that an iterator can make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.plan.draws import count_draws, make_draws
from ablate.plan.parts import Axis, Budget, Study
from ablate.plan.planner import make_plan
from ablate.plan.space import Choice, Grid, Integer, LogUniform, Space, Uniform
from tests.plan.conftest import Read, plan_of
from trainables.data.collections import Ref
from trainables.errors import InvalidInput
from trainables.spec import TrialSpec, trial_id


def test_golden_plan(read: Read) -> None:
    plan = plan_of(read())
    assert [cell.name for cell in plan.cells] == [
        "01 joint_lh 0.02",
        "02 joint_lh 0.1",
        "03 sum_marg_lh 0.02",
        "04 sum_marg_lh 0.1",
    ]
    assert [dict(draw.values) for draw in plan.draws] == [
        {"optim.lr": 2.32638e-05},
        {"optim.lr": 7.35665e-06},
        {"optim.lr": 7.35665e-05},
        {"optim.lr": 4.13695e-06},
    ]
    assert plan.seeds == (0, 1, 2)
    assert plan.dev_refs == (Ref("tiny", "dev"),)
    assert plan.test_refs == (Ref("tiny", "test"),)
    assert plan.fingerprints == {"tiny": "content of tiny"}
    assert not plan.frozen_by_design
    assert plan.trial_count == 4 * 4 + 4 * 2
    chosen = list(plan.choose())
    assert [(t.cell[:2], t.draw, t.seed) for t in chosen] == [
        (cell, draw, 0) for cell in ("01", "02", "03", "04") for draw in range(4)
    ]


def test_every_cell_gets_the_same_draws(read: Read) -> None:
    by_cell: dict[str, list[tuple[int, object]]] = {}
    for trial in plan_of(read()).choose():
        by_cell.setdefault(trial.cell, []).append((trial.draw, trial.flat["optim.lr"]))
    first, *others = by_cell.values()
    assert len(others) == 3
    assert all(other == first for other in others)


def test_identities_and_specs_are_those_of_trialspec(read: Read) -> None:
    study = read(
        ("[joint_lh, sum_marg_lh]", "[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]"),
        ("[0.02, 0.1]", "[1]\n  loss.params.positives: [all, min]\n  data.noise: [0, 0.2]"),
        ("optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}", "loss.params.normalize: [true, false]"),
        ("  optim.steps: 20", "  optim.epochs: 2\n  optim.lr: 1"),
        ("budget: {draws_per_cell: 4}\n", ""),
    )
    plan = plan_of(study)
    trials = list(plan.choose())
    assert len(trials) == plan.trial_count - 2 * len(plan.cells) == 14
    for trial in trials:
        spec = TrialSpec.from_flat(trial.flat)
        assert trial.flat == spec.to_flat()
        assert list(trial.flat) == list(spec.to_flat())
        assert trial.trial_id == trial_id(spec, {"data.train": "content of tiny"})
        assert trial.fingerprints == {"data.train": "content of tiny"}
    assert len({trial.trial_id for trial in trials}) == 14


def test_a_loss_may_be_tuned_and_keeps_its_parameters(read: Read) -> None:
    study = read(
        ("  loss.name: [joint_lh, sum_marg_lh]\n", ""),
        (
            "optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}",
            "loss.name: [joint_lh, sum_marg_lh]\n  loss.params.normalize: [true, false]",
        ),
        ("  optim.steps: 20", "  optim.steps: 20\n  optim.lr: 1.0e-5"),
        ("budget: {draws_per_cell: 4}\n", ""),
    )
    trials = list(plan_of(study).choose())
    assert [trial.draw for trial in trials] == [0, 1, 2, 0, 1, 2]
    for trial in trials:
        assert trial.flat == TrialSpec.from_flat(trial.flat).to_flat()


def test_changed_content_changes_the_identity(read: Read) -> None:
    study = read()
    one = make_plan(study, lambda name: "one")
    other = make_plan(study, lambda name: "other")
    ids = {trial.trial_id for plan in (one, other) for trial in plan.choose()}
    assert len(ids) == 32


def test_a_local_backbone_is_part_of_the_identity(read: Read, tiny: Path) -> None:
    folder = tiny / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"one")
    study = read(("packaged/all-MiniLM-L6-v2", str(folder)))
    before = next(plan_of(study).choose())
    from ablate.plan.identity import folder_fingerprint

    folder_fingerprint.cache_clear()
    (folder / "model.safetensors").write_bytes(b"two")
    after = next(plan_of(study).choose())
    assert set(before.fingerprints) == {"data.train", "encoder.backbone"}
    assert before.trial_id != after.trial_id


def test_chosen_draws_are_repeated_over_all_seeds(read: Read) -> None:
    plan = plan_of(read())
    first, second = plan.cells[0].name, plan.cells[2].name
    trials = list(plan.repeat({second: 3, first: 1}))
    assert [(t.cell, t.draw, t.seed) for t in trials] == [
        *((first, 1, seed) for seed in (0, 1, 2)),
        *((second, 3, seed) for seed in (0, 1, 2)),
    ]
    tried = {trial.trial_id for trial in plan.choose()}
    assert [trial.trial_id in tried for trial in trials] == [True, False, False] * 2


def test_choices_that_are_not_there_are_refused(read: Read) -> None:
    plan = plan_of(read())
    with pytest.raises(InvalidInput) as caught:
        plan.repeat({"05 joint_lh": 0, plan.cells[0].name: 4})
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidInput, match="its winners are not known"):
        plan.repeat()


def test_nothing_to_choose_when_nothing_is_tuned(read: Read) -> None:
    plan = plan_of(read(sets={"optim.lr": "1.0e-5"}))
    assert plan.frozen_by_design
    assert [dict(draw.values) for draw in plan.draws] == [{}]
    assert plan.trial_count == 12
    assert list(plan.trials()) == list(plan.repeat({cell.name: 0 for cell in plan.cells}))


def test_one_cell_when_nothing_is_compared(read: Read) -> None:
    plan = plan_of(read(sets={"loss.name": "joint_lh", "loss.temperature": "0.1"}))
    assert [cell.name for cell in plan.cells] == ["01 study"]


def test_json_says_everything(read: Read) -> None:
    rule = "exclude: [{when: {loss.name: joint_lh, loss.temperature: 0.1}, reason: hot}]\n"
    plan = plan_of(read(("evaluate:", f"{rule}evaluate:")))
    content = json.loads(json.dumps(plan.to_json()))
    assert [cell["name"] for cell in content["cells"]] == [cell.name for cell in plan.cells]
    assert content["excluded"][0]["reason"] == "hot"
    assert content["select"] == "tiny/dev/mrr_at_10"
    assert content["tune"] == {"optim.lr": {"log_uniform": [1e-6, 1e-4]}}
    assert len(content["trials"]) == 12
    assert content["trials"][0]["trial_id"] == next(plan.choose()).trial_id
    assert content["trial_count"] == 18


def study_of(tune: dict[str, Space], draws: int | None, seed: int = 0) -> Study:
    losses = Axis("loss.name", ({"loss.name": "joint_lh"}, {"loss.name": "lse_pair"}))
    return Study("s", "?", {}, (losses,), tune, (0,), (), Budget(draws, seed))


LR = LogUniform(1e-6, 1e-3)
BATCH = Integer(8, 64)
spaces = st.sampled_from([LR, BATCH, Uniform(0, 1), Choice(tuple(range(40)))])
tunes = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), spaces, min_size=1)


@settings(deadline=None)
@given(tunes, st.integers(1, 12), st.integers(0, 2**63))
def test_draws_follow_from_the_seed_and_grow_at_the_end(
    tune: dict[str, Space], number: int, seed: int
) -> None:
    draws = make_draws(study_of(tune, number, seed))
    assert make_draws(study_of(tune, number, seed)) == draws
    assert make_draws(study_of(tune, number + 3, seed))[:number] == draws
    assert len({tuple(draw.values.values()) for draw in draws}) == number
    assert [draw.index for draw in draws] == list(range(number))
    assert all(list(draw.values) == list(tune) for draw in draws)


@settings(deadline=None)
@given(tunes, st.integers(1, 8))
def test_a_key_added_last_leaves_the_others_as_they_were(
    tune: dict[str, Space], number: int
) -> None:
    before = make_draws(study_of(tune, number))
    after = make_draws(study_of({**tune, "last": Uniform(0, 1)}, number))
    distinct = {tuple(draw.values.values()) for draw in before}
    if len(distinct) == number and not any(isinstance(s, (Choice, Integer)) for s in tune.values()):
        assert [{k: d.values[k] for k in tune} for d in after] == [dict(d.values) for d in before]


def test_draws_spread_evenly_over_a_range() -> None:
    draws = make_draws(study_of({"optim.lr": LR, "loss.temperature": Uniform(0, 1)}, 16))
    for key, edges in (("optim.lr", (1e-5, 1e-4)), ("loss.temperature", (1 / 3, 2 / 3))):
        values = [float(draw.values[key] or 0) for draw in draws]
        thirds = [sum(value < edge for value in values) for edge in edges]
        assert 4 <= thirds[0] <= 7
        assert 9 <= thirds[1] <= 12


def test_different_seeds_draw_differently() -> None:
    one, other = (make_draws(study_of({"optim.lr": LR}, 4, seed)) for seed in (0, 1))
    assert one != other


def test_grids_multiply_random_draws_and_share_them() -> None:
    tune: dict[str, Space] = {"loss.temperature": Grid((0.1, 0.2)), "optim.lr": LR}
    study = study_of(tune, 3)
    draws = make_draws(study)
    assert len(draws) == count_draws(study) == 6
    assert [draw.values["loss.temperature"] for draw in draws] == [0.1, 0.2] * 3
    assert [draw.values["optim.lr"] for draw in draws[::2]] == [
        draw.values["optim.lr"] for draw in draws[1::2]
    ]


def test_every_combination_of_a_small_choice_is_found() -> None:
    tune: dict[str, Space] = {"a": Choice((1, 2, 3, 4)), "b": Choice((1, 2, 3, 4))}
    assert len(make_draws(study_of(tune, 16))) == 16
    with pytest.raises(InvalidInput, match="16 distinct ones were found"):
        make_draws(study_of(tune, 17))


def test_plans_of_many_trials_are_made_as_they_are_asked_for(read: Read) -> None:
    study = replace(read(), budget=Budget(25_000))
    plan = plan_of(study)
    assert plan.trial_count == 100_008
    trials = plan.choose()
    assert next(trials).draw == 0
    assert next(trials).draw == 1
