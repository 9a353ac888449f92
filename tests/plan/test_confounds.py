"""Each confound is named by its code, and a study without any is left in peace."""

from __future__ import annotations

import pytest

from ablate.plan.confounds import warnings
from ablate.plan.cost import Size
from tests.plan.conftest import Read, plan_of

MORE_STEPS = "  optim.steps: 20\n"


def codes(read: Read, *replaced: tuple[str, str], queries: int = 0) -> list[str]:
    sizes = {"tiny": Size(1_000_000, {"test": queries})}
    return [note.code for note in warnings(plan_of(read(*replaced)), sizes.get)]


def fixed(text: str) -> tuple[str, str]:
    return (MORE_STEPS, f"{MORE_STEPS}  {text}\n")


def compared(text: str) -> tuple[str, str]:
    return ("  loss.temperature: [0.02, 0.1]\n", f"  loss.temperature: [0.02, 0.1]\n  {text}\n")


def test_a_sound_study_has_no_confound(read: Read) -> None:
    assert codes(read, queries=7000) == []


LR_FIXED = (
    ("tune:\n  optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}\n", ""),
    ("budget: {draws_per_cell: 4}\n", ""),
    fixed("optim.lr: 1.0e-5"),
)
MACHINE = fixed("data.machine_labels: weak")

CASES: list[tuple[str, tuple[tuple[str, str], ...]]] = [
    ("one-seed", (("seed: [0, 1, 2]", "seed: [0]"),)),
    ("one-lr", LR_FIXED),
    (
        "one-temperature",
        (("  loss.temperature: [0.02, 0.1]\n", ""), fixed("loss.temperature: 0.1")),
    ),
    ("unequal-negatives", (fixed("data.group_size: 8"),)),
    ("known-positives-as-negatives", (fixed("data.mask_known_positives: false"),)),
    ("unequal-steps", ((MORE_STEPS, ""), compared("optim.steps: [10, 20]"))),
    (
        "epochs-of-unequal-length",
        ((MORE_STEPS, f"  optim.epochs: 2\n{MACHINE[1].removeprefix(MORE_STEPS)}"),
         compared("data.human_fraction: [0.2, 0.5]")),
    ),
    ("curriculum-steps", (MACHINE, compared("data.mixing: [union, curriculum]"))),
    (
        "idle-machine-labels",
        (MACHINE, compared("data.mixing: [replace, union]\n  data.human_fraction: [0.5, 1.0]")),
    ),
    ("short-search", (("draws_per_cell: 4", "draws_per_cell: 11, search: adaptive"),)),
    ("few-draws", (("draws_per_cell: 4", "draws_per_cell: 3"),)),
    (
        "unnormalised-joint-lh",
        (compared("loss.params.normalize: [true, false]"),),
    ),
    (
        "selects-on-training-queries",
        (("maximize: tiny/dev", "maximize: tiny/train"),),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "replaced"), CASES, ids=[code for code, _ in CASES])
def test_each_confound_is_named(
    read: Read, code: str, replaced: tuple[tuple[str, str], ...]
) -> None:
    assert codes(read, *replaced) == [code]


def test_few_queries_and_low_power_are_told_apart(read: Read) -> None:
    assert codes(read, queries=100) == ["few-queries"]
    assert codes(read, queries=600) == ["low-power"]


def test_the_sentences_are_whole(read: Read) -> None:
    study = read(*LR_FIXED, ("seed: [0, 1, 2]", "seed: [0]"))
    found = warnings(plan_of(study), lambda name: None)
    assert [note.code for note in found] == ["one-seed", "one-lr"]
    assert all(note.text[0].isupper() and note.text.endswith(".") for note in found)
    assert "(1e-05)" in found[1].text
