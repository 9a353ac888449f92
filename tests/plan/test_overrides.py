"""`--set` changes a study as written, and its mistakes are listed with the file's."""

from __future__ import annotations

import pytest

from ablate.plan.space import Grid, LogUniform, Uniform
from tests.plan.conftest import Read
from trainables.errors import InvalidInput

EXCLUDE = "exclude: [{when: {loss.name: joint_lh}, reason: known to fail}]\nevaluate:"


def test_a_scalar_fixes_a_key_wherever_it_stood(read: Read) -> None:
    study = read(sets={"optim.steps": "5", "loss.name": "lse_pair", "optim.lr": "2.0e-5"})
    assert study.fixed["optim.steps"] == 5
    assert study.fixed["loss.name"] == "lse_pair"
    assert study.fixed["optim.lr"] == 2e-5
    assert study.compared == ("loss.temperature",)
    assert study.tune == {}


def test_draws_are_no_longer_counted_when_the_last_range_is_fixed(read: Read) -> None:
    assert read(sets={"optim.lr": "2.0e-5"}).budget.draws_per_cell is None
    with pytest.raises(InvalidInput, match="tune draws nothing at random"):
        read(sets={"optim.lr": "2.0e-5", "budget.draws_per_cell": "3"})


def test_a_list_replaces_the_list_of_its_block(read: Read) -> None:
    study = read(sets={"loss.temperature": "[0.5]", "optim.lr": "[1.0e-5, 1.0e-4]"})
    assert study.listed("loss.temperature") == (0.5,)
    assert study.tune == {"optim.lr": Grid((1e-5, 1e-4))}


def test_a_list_makes_a_fixed_or_new_key_compared(read: Read) -> None:
    study = read(sets={"optim.batch_size": "[8, 16]", "data.noise": "[0.0, 0.2]"})
    assert study.compared == ("loss.name", "loss.temperature", "optim.batch_size", "data.noise")
    assert "optim.batch_size" not in study.fixed


def test_a_space_makes_a_key_tuned(read: Read) -> None:
    study = read(sets={"loss.temperature": "{log_uniform: [0.01, 1.0]}"})
    assert study.compared == ("loss.name",)
    assert study.tune["loss.temperature"] == LogUniform(0.01, 1.0)


def test_a_block_can_be_named_outright(read: Read) -> None:
    study = read(
        sets={"compare.optim.lr": "[1.0e-5]", "tune.optim.warmup": "{uniform: [0.0, 0.1]}"}
    )
    assert study.compared == ("loss.name", "loss.temperature", "optim.lr")
    assert study.tune == {"optim.warmup": Uniform(0.0, 0.1)}


def test_seeds_and_settings_can_be_set(read: Read) -> None:
    study = read(
        sets={
            "seed": "7",
            "budget.draws_per_cell": "2",
            "budget.seed": "1",
            "resources.max_concurrent_trials": "3",
            "resources.gpus_per_worker": "1",
            "confirm.workers": "2",
            "select.maximize": "tiny/dev/ndcg_at_10",
            "evaluate": "[tiny/test>=2]",
        }
    )
    assert study.seeds == (7,)
    assert read(sets={"seed": "[3, 4]"}).seeds == (3, 4)
    assert (study.budget.draws_per_cell, study.budget.seed) == (2, 1)
    assert study.resources.max_concurrent_trials == 3
    assert study.resources.gpus_per_worker == 1.0
    assert study.confirm is not None
    assert study.select is not None
    assert study.select.metric == "ndcg_at_10"
    assert study.evaluate[0].min_grade == 2


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"optim.step": "5"}, "--set optim.step=5: optim.step: is not a key of a trial or a study; "
         "did you mean 'optim.steps'?"),
        ({"budgt.seed": "5"}, "did you mean 'budget.seed'?"),
        ({"optim.lr": "1e-5"}, "--set optim.lr=1e-5: optim.lr: is a number that YAML read as text"),
        ({"optim.steps": "[1"}, "--set optim.steps=[1:1: YAML: "),
        ({"optim.steps": "0"}, "--set optim.steps=0: optim.steps: should be greater than or equal"),
        ({"loss.name": "[joint_lh, jointlh]"}, "did you mean 'joint_lh'?"),
        ({"tune.loss.nme": "[a]"}, "did you mean 'loss.name'?"),
        ({"select.maximize": "tiny/test/mrr_at_10"}, "only a dev or validation split may select"),
        ({"resources.workers": "two"}, "resources.workers: should be a valid integer"),
    ],
)  # fmt: skip
def test_mistakes_name_the_option(read: Read, sets: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(sets=sets)
    assert message in str(caught.value)


def test_mistakes_of_file_and_options_come_together(read: Read) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(("optim.steps: 20", "optim.steps: 0"), sets={"optim.lr": "-1.0"})
    assert [problem.place for problem in caught.value.problems] == [
        "study.yaml:6",
        "--set optim.lr=-1.0",
    ]


def test_keys_of_a_bundle_are_narrowed_instead(read: Read) -> None:
    bundle = "  loss: [{loss.name: joint_lh}, {loss.name: sum_marg_lh}]\n"
    replaced = ("  loss.name: [joint_lh, sum_marg_lh]\n", bundle)
    with pytest.raises(InvalidInput, match="together with others in loss; keep some of them with"):
        read(replaced, sets={"loss.name": "joint_lh"})
    study = read(replaced, sets={"loss": "[{loss.name: lse_pair, loss.params.positives: max}]"})
    assert study.cells()[0].name == "01 lse_pair positives=max 0.02"


def test_named_options_that_become_equal_are_one(read: Read) -> None:
    named = (
        "  variant:\n"
        "    all: {loss.params.positives: all, data.noise: 0}\n"
        "    min: {loss.params.positives: min, data.noise: 0}\n"
        "    noisy: {loss.params.positives: min, data.noise: 0.5}\n"
    )
    replaced = ("  loss.name: [joint_lh, sum_marg_lh]\n", named)
    loss = ("  optim.steps: 20", "  optim.steps: 20\n  loss.name: lse_pair")
    assert [cell.labels["variant"] for cell in read(replaced, loss).cells()[::2]] == [
        "all",
        "min",
        "noisy",
    ]
    study = read(replaced, loss, sets={"loss.name": "joint_lh"})
    assert [cell.name for cell in study.cells()[::2]] == ["01 all 0.02", "03 noisy 0.02"]


def test_what_a_changed_loss_leaves_idle_is_dropped(read: Read) -> None:
    replaced = (
        ("[joint_lh, sum_marg_lh]", "[joint_lh, lse_pair]"),
        ("[0.02, 0.1]", "[0.02, 0.1]\n  loss.params.positives: [all, min]"),
        ("evaluate:", EXCLUDE),
    )
    study = read(*replaced, sets={"loss.name": "sum_marg_lh"})
    assert study.compared == ("loss.temperature",)
    assert study.exclude == ()
    assert len(study.cells()) == 2
    assert len(read(*replaced, sets={"loss.name": "lse_pair"}).cells()) == 4
    assert len(read(*replaced, sets={"loss.temperature": "0.5"}).cells()) == 2
