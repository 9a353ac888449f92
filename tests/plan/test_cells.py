"""Cells: keys and options that belong together, and what cells are called."""

from __future__ import annotations

import pytest

from ablate.plan.study import narrow
from ablate.plan.written import write_study
from tests.plan.conftest import BUNDLE, Read, problems_of
from trainables.errors import InvalidInput


def test_keys_that_belong_together_are_compared_together(read: Read) -> None:
    study = read(("\n  loss.name: [joint_lh, sum_marg_lh]\n", BUNDLE))
    assert [cell.name for cell in study.cells()] == [
        "01 joint_lh normalize=false 0.02",
        "02 joint_lh normalize=false 0.1",
        "03 lse_pair positives=min 0.02",
        "04 lse_pair positives=min 0.1",
    ]
    assert study.compared[0] == "loss.name"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "loss.params.normalize",
            "loss.params.positives",
            "is not a parameter of joint_lh, but of",
        ),
        ("loss.name: lse_pair, ", "", "loss.name: is set by other options of loss and missing"),
        ("lse_pair, loss.params.positives: min", "joint_lh, loss.params.normalize: false", "twice"),
        ("lse_pair", "lsepair", "did you mean 'lse_pair'?"),
        ("loss.params.positives", "loss.temperature", "loss.temperature: stands in compare and in"),
        ("  loss:\n", "  loss.name:\n", "loss.name: should be a valid string"),
    ],
)
def test_mistakes_within_a_bundle_are_named(read: Read, old: str, new: str, message: str) -> None:
    assert old in BUNDLE
    found = problems_of(
        read, ("\n  loss.name: [joint_lh, sum_marg_lh]\n", BUNDLE.replace(old, new))
    )
    assert any(message in problem for problem in found), found


NAMED = """
  loss:
    plain: {loss.name: joint_lh}
    weakest: {loss.name: lse_pair, loss.params.positives: min}
"""


def test_options_may_have_names_that_cells_bear(read: Read) -> None:
    replaced = ("\n  loss.name: [joint_lh, sum_marg_lh]\n", NAMED)
    study = read(replaced)
    assert [cell.name for cell in study.cells()] == [
        "01 plain 0.02",
        "02 plain 0.1",
        "03 weakest 0.02",
        "04 weakest 0.1",
    ]
    assert study.cells()[2].labels == {"loss": "weakest"}
    assert study.cells()[2].values["loss.params.positives"] == "min"
    assert len(narrow(study, {"loss": "weakest"}).cells()) == 2
    rule = "exclude: [{when: {loss: plain, loss.temperature: 0.1}, reason: hot}]\n"
    assert len(read(replaced, ("evaluate:", f"{rule}evaluate:")).cells()) == 3
    with pytest.raises(InvalidInput, match="did you mean 'weakest'"):
        narrow(study, {"loss": "weekest"})
    assert read(text=write_study(study)) == study


def test_cell_names_differ_early_and_say_what_is_needed(read: Read) -> None:
    study = read(
        ("[0.02, 0.1]", "[0.02, 0.1]\n  data.noise: [0.0, 0.5]\n  encoder.tied: [true, false]")
    )
    names = [cell.name for cell in study.cells()]
    assert names[0] == "01 joint_lh temperature=0.02 noise=0 tied=true"
    assert len({name[:3] for name in names}) == len(names) == 16
