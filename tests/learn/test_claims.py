"""Claims: what the YAML may say, which cells a contrast takes, and the verdicts."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.learn.claims import Claim, Verdict, claim_presets, judge, load_claims
from ablate.learn.claims.match import match
from trainables.errors import InvalidInput
from trainables.model.losses import LOSSES
from trainables.spec import Scalar

Floats = NDArray[np.float64]
Table = dict[str, tuple[dict[str, Scalar], dict[str, Floats]]]
KEY = "nq/test/mrr_at_10"

LOSS_CLAIM = """
claims:
  - id: A
    statement: LSEPair beats JointLH.
    source: test
    contrasts:
      - left: {loss.name: lse_pair}
        right: {loss.name: joint_lh}
        metric: "*/test/mrr_at_10"
        expects: EXPECTS
"""


def claims_of(tmp_path: Path, text: str) -> tuple[Claim, ...]:
    path = tmp_path / "mine.claims.yaml"
    path.write_text(text, encoding="utf-8")
    return load_claims(path)


def expecting(tmp_path: Path, expects: str, margin: float | None = None) -> tuple[Claim, ...]:
    extra = "" if margin is None else f"\n        margin: {margin}"
    return claims_of(tmp_path, LOSS_CLAIM.replace("EXPECTS", expects + extra))


def study(
    gains: dict[str, float],
    seeds: int = 4,
    queries: int = 400,
    keys: tuple[str, ...] = (KEY,),
    fractions: tuple[float, ...] = (0.0, 0.2),
    key: int = 4,
) -> Table:
    """Cells loss x human fraction whose score rises by the loss's gain."""
    rng = np.random.default_rng(key)
    base = {name: rng.normal(0.4, 0.3, queries) for name in keys}
    table: Table = {}
    for index, (loss, fraction) in enumerate(product(gains, fractions)):
        values: dict[str, Scalar] = {
            "loss.name": loss,
            "data.human_fraction": fraction,
            "data.mixing": "replace",
        }
        if loss == "lse_pair":
            values["loss.params.positives"] = "all"
        scores = {}
        for name in keys:
            noise = rng.normal(0, 0.05, (seeds, queries)) + rng.normal(0, 0.002, (seeds, 1))
            scores[name] = base[name] + gains[loss] + 0.1 * fraction + noise
        table[f"{index:02d} {loss} {fraction}"] = (values, scores)
    return table


def verdict(claims: tuple[Claim, ...], table: Table) -> Verdict:
    return judge(claims, table)[0]


def test_the_paper_preset_holds_ten_claims_on_real_losses() -> None:
    assert "paper" in claim_presets()
    claims = load_claims("paper")
    assert [claim.id for claim in claims] == [f"C{i}" for i in range(1, 11)]
    for claim in claims:
        assert claim.statement and claim.source and claim.contrasts
        for contrast in claim.contrasts:
            for side in (contrast.left, contrast.right):
                named = getattr(side.get("loss.name"), "values", ())
                assert set(named) <= set(LOSSES)


@pytest.mark.parametrize(
    ("expects", "margin", "gain", "outcome"),
    [
        ("greater", None, 0.05, "holds"),
        ("greater", None, -0.05, "fails"),
        ("greater", None, 0.0, "undecided"),
        ("less", None, -0.05, "holds"),
        ("less", None, 0.05, "fails"),
        ("equal", 0.02, 0.0, "holds"),
        ("equal", 0.02, 0.05, "fails"),
        ("equal", 0.02, 0.02, "undecided"),
        ("no_worse", 0.02, 0.0, "holds"),
        ("no_worse", 0.02, 0.05, "holds"),
        ("no_worse", 0.02, -0.05, "fails"),
        ("no_worse", 0.02, -0.02, "undecided"),
    ],
)
def test_verdicts(
    tmp_path: Path, expects: str, margin: float | None, gain: float, outcome: str
) -> None:
    found = verdict(
        expecting(tmp_path, expects, margin), study({"lse_pair": gain, "joint_lh": 0.0})
    )
    assert found.outcome == outcome
    finding = found.findings[0]
    assert finding.effect == pytest.approx(gain, abs=0.01)
    assert finding.low is not None and finding.high is not None
    assert finding.low < finding.effect < finding.high
    assert finding.left == ("00 lse_pair 0.0", "01 lse_pair 0.2")
    assert finding.right == ("02 joint_lh 0.0", "03 joint_lh 0.2")
    assert (finding.seeds, finding.metrics, finding.scope) == (4, (KEY,), "method")
    assert bool(found.settled_by) == (outcome == "undecided")


def test_an_open_claim_says_what_would_settle_it(tmp_path: Path) -> None:
    claims = expecting(tmp_path, "greater")
    gains = {"lse_pair": 0.006, "joint_lh": 0.0}
    verdicts = [verdict(claims, study(gains, seeds=2, queries=100, key=key)) for key in range(12)]
    lines = set()
    for found in verdicts:
        finding = found.findings[0]
        if found.outcome == "undecided":
            line = found.settled_by[0]
            assert (finding.seeds_needed is not None) == ("seeds per cell" in line)
            assert (finding.queries_needed is not None) == ("queries with" in line)
            lines.add(line)
    assert any(line.startswith("about") for line in lines)


def test_the_seeds_that_would_settle_a_claim_do(tmp_path: Path) -> None:
    claims = expecting(tmp_path, "greater")
    needed = []
    for key in range(20):
        table = study({"lse_pair": 0.008, "joint_lh": 0.0}, seeds=2, queries=150, key=key)
        finding = verdict(claims, table).findings[0]
        if finding.outcome == "undecided" and abs((finding.effect or 0) - 0.008) < 0.002:
            assert finding.seeds_needed is not None
            needed.append(finding.seeds_needed)
    seeds = int(np.median(needed))
    held = [
        verdict(
            claims, study({"lse_pair": 0.008, "joint_lh": 0.0}, seeds=seeds, queries=150, key=key)
        ).outcome
        for key in range(100, 130)
    ]
    assert held.count("holds") >= 18


def test_one_seed_leaves_every_claim_open(tmp_path: Path) -> None:
    found = verdict(
        expecting(tmp_path, "greater"), study({"lse_pair": 0.2, "joint_lh": 0.0}, seeds=1)
    )
    assert found.outcome == "undecided"
    assert found.findings[0].scope == "checkpoints"
    assert "3 seeds" in found.settled_by[0]


def test_cells_are_paired_all_else_equal(tmp_path: Path) -> None:
    table = study({"lse_pair": 0.0, "joint_lh": 0.0})
    # Without pairing, the human labels of this cell would pass for the loss's merit.
    del table["02 joint_lh 0.0"]
    sides = match(expecting(tmp_path, "greater")[0].contrasts[0], table)
    assert not isinstance(sides, str)
    assert dict(sides.weights) == {"01 lse_pair 0.2": 1.0, "03 joint_lh 0.2": -1.0}


def test_two_cells_of_one_stratum_share_its_weight(tmp_path: Path) -> None:
    table = study({"lse_pair": 0.0, "joint_lh": 0.0}, fractions=(0.0,))
    values, scores = table["00 lse_pair 0.0"]
    table["lse_pair-min"] = ({**values, "loss.params.positives": "min"}, scores)
    sides = match(expecting(tmp_path, "greater")[0].contrasts[0], table)
    assert not isinstance(sides, str)
    assert sides.weights["lse_pair-min"] == 0.5
    assert sum(sides.weights.values()) == pytest.approx(0.0)


def test_several_sets_are_averaged_with_equal_weight(tmp_path: Path) -> None:
    table = study({"lse_pair": 0.0, "joint_lh": 0.0}, fractions=(0.0,), keys=(KEY,))
    for name, (_, scores) in table.items():
        gain = 0.2 if "lse_pair" in name else 0.0
        scores["beir/scifact/test/mrr_at_10"] = scores[KEY][:, :40] + gain
        scores["nq/dev/mrr_at_10"] = scores[KEY] - 0.5
    finding = verdict(expecting(tmp_path, "greater"), table).findings[0]
    assert finding.metrics == ("beir/scifact/test/mrr_at_10", KEY)
    assert finding.queries == 440
    assert finding.effect == pytest.approx(0.1, abs=0.02)


JUDGED = tuple(
    f"nq/test{label}/mrr_at_10" for label in (":grade-2", ":machine:weak", ":union:weak")
)


def metric_of(tmp_path: Path, pattern: str) -> tuple[Claim, ...]:
    return claims_of(
        tmp_path, LOSS_CLAIM.replace("EXPECTS", "greater").replace("*/test/mrr_at_10", pattern)
    )


@pytest.mark.parametrize(
    ("pattern", "metrics"),
    [
        ("nq/*/mrr_at_10", (KEY,)),
        ("*/mrr_at_10", (KEY,)),
        ("nq/test:grade-2/mrr_at_10", (JUDGED[0],)),
        ("*/test:union:*/mrr_at_10", (JUDGED[2],)),
    ],
)
def test_a_pattern_means_one_label_of_a_split(
    tmp_path: Path, pattern: str, metrics: tuple[str, ...]
) -> None:
    table = study({"lse_pair": 0.0, "joint_lh": 0.0}, keys=(KEY, *JUDGED))
    finding = verdict(metric_of(tmp_path, pattern), table).findings[0]
    assert (finding.metrics, finding.queries) == (metrics, 400)


def test_several_labels_of_one_split_are_refused(tmp_path: Path) -> None:
    table = study({"lse_pair": 0.5, "joint_lh": 0.0}, keys=(KEY, *JUDGED))
    found = verdict(metric_of(tmp_path, "nq/test:*/mrr_at_10"), table)
    missing = str(found.findings[0].missing)
    assert found.outcome == "undecided" and "more than once" in missing
    assert "nq/test:machine:weak" in missing and "nq/test:union:weak" in missing


def test_a_mean_named_by_one_claim_is_no_set_of_another(tmp_path: Path) -> None:
    sets = ("beir/nfcorpus/test/mrr_at_10", "beir/scifact/test/mrr_at_10")
    mean = "beir/mean:nfcorpus:scifact/mrr_at_10"
    table = study({"lse_pair": 0.0, "joint_lh": 0.0}, keys=(*sets, mean))
    for pattern, metrics in (("beir/*/mrr_at_10", sets), (mean, (mean,))):
        assert verdict(metric_of(tmp_path, pattern), table).findings[0].metrics == metrics


def test_the_flip_of_the_hybrid_test_sets_judges_against_human_judgements() -> None:
    (claim,) = (claim for claim in load_claims("paper") if claim.id == "C4")
    human, hybrid = "msmarco/dev/mrr_at_10", "msmarco/test:union:weak/mrr_at_10"
    found = verdict((claim,), study({"lse_pair": 0.0, "joint_lh": 0.0}, keys=(human, hybrid, KEY)))
    assert [finding.metrics for finding in found.findings] == [(hybrid,), (human,)]


def test_only_trials_that_have_every_set_count(tmp_path: Path) -> None:
    other = "scifact/test/mrr_at_10"
    table = study({"lse_pair": 0.0, "joint_lh": 0.0}, seeds=4, keys=(KEY, other), fractions=(0.0,))
    values, scores = table["00 lse_pair 0.0"]
    whole = {key: array[1:3].copy() for key, array in scores.items()}
    alone = {**table, "00 lse_pair 0.0": (values, whole)}
    expected = verdict(expecting(tmp_path, "greater"), alone).findings[0]
    scores[KEY][0], scores[other][3] = np.nan, np.nan
    finding = verdict(expecting(tmp_path, "greater"), table).findings[0]
    assert finding == expected and finding.seeds == 2
    scores[KEY][1:3] = np.nan
    lacking = verdict(expecting(tmp_path, "greater"), table).findings[0]
    assert "a side has no trial" in str(lacking.missing)


def test_an_interaction_compares_two_differences(tmp_path: Path) -> None:
    text = LOSS_CLAIM.replace(
        "EXPECTS",
        "greater\n"
        "        where: {data.human_fraction: 0}\n"
        "        versus: {data.human_fraction: 0.2}",
    )
    claims = claims_of(tmp_path, text)
    table = study({"lse_pair": 0.0, "joint_lh": 0.0})
    assert verdict(claims, table).outcome == "undecided"
    table["00 lse_pair 0.0"][1][KEY][:] += 0.06
    table["01 lse_pair 0.2"][1][KEY][:] -= 0.06
    found = verdict(claims, table)
    assert found.outcome == "holds"
    assert found.findings[0].effect == pytest.approx(0.12, abs=0.02)


def test_a_claim_of_several_contrasts_needs_all_of_them(tmp_path: Path) -> None:
    text = LOSS_CLAIM.replace("EXPECTS", "greater") + LOSS_CLAIM.split("contrasts:\n")[1].replace(
        "right: {loss.name: joint_lh}", "right: {loss.name: rand1_lh}"
    ).replace("EXPECTS", "greater")
    claims = claims_of(tmp_path, text)
    gains = {"lse_pair": 0.05, "joint_lh": 0.0, "rand1_lh": 0.0}
    assert verdict(claims, study(gains)).outcome == "holds"
    assert verdict(claims, study({**gains, "rand1_lh": 0.05})).outcome == "undecided"
    assert verdict(claims, study({**gains, "rand1_lh": 0.10})).outcome == "fails"


def test_what_a_study_lacks_is_named(tmp_path: Path) -> None:
    claims = expecting(tmp_path, "greater")
    table = study({"lse_pair": 0.0, "joint_lh": 0.0})
    without = {name: row for name, row in table.items() if "joint" not in name}
    found = verdict(claims, without)
    assert (found.outcome, found.tested) == ("undecided", False)
    assert found.findings[0].missing == "no cell has loss.name = joint_lh"
    assert "not tested by this study" in found.settled_by[0]
    other = {
        name: (values, {"nq/dev/mrr_at_10": scores[KEY]})
        for name, (values, scores) in table.items()
    }
    assert "share no scores" in str(verdict(claims, other).findings[0].missing)
    apart = {
        name: row for name, row in table.items() if name in ("00 lse_pair 0.0", "03 joint_lh 0.2")
    }
    assert "alone" in str(verdict(claims, apart).findings[0].missing)


def test_judging_more_claims_asks_more_of_each(tmp_path: Path) -> None:
    one = expecting(tmp_path, "greater")
    table = study({"lse_pair": 0.01, "joint_lh": 0.0})
    alone, together = judge(one, table)[0], judge(one * 20, table)[0]
    assert alone.findings[0].p == together.findings[0].p
    assert (together.findings[0].p_adjusted or 0) > (alone.findings[0].p_adjusted or 0)


def test_the_preset_is_judged_on_a_study_that_holds_part_of_it() -> None:
    gains = {"lse_pair": 0.02, "joint_lh": 0.0, "sum_marg_lh": 0.05, "rand1_lh": 0.03}
    verdicts = {v.claim.id: v for v in judge(load_claims("paper"), study(gains, seeds=5))}
    assert verdicts["C1"].outcome == "holds"
    assert verdicts["C2"].outcome == "fails", "LSEPair is not the best here"
    assert not verdicts["C5"].tested
    assert verdicts["C7"].outcome == "undecided"
    assert verdicts["C10"].outcome == "fails"


def test_equal_cells_rarely_decide_a_claim(tmp_path: Path) -> None:
    claims = expecting(tmp_path, "greater")
    wrong = 0
    for key in range(200):
        table = study({"lse_pair": 0, "joint_lh": 0}, seeds=3, queries=60, fractions=(0,), key=key)
        wrong += verdict(claims, table).outcome != "undecided"
    assert wrong / 200 <= 0.09


def test_every_mistake_of_a_file_is_listed(tmp_path: Path) -> None:
    text = """
claims:
  - id: A
    statment: typo
    source: x
    contrasts:
      - left: {loss.nam: lse_pair, seed: 1}
        right: {optim.lr: 1e-5, data.human_fraction: {abov: 1}}
        metric: mrr_at_10
        expects: greter
  - id: A
    statement: ''
    source: x
    contrasts:
      - left: lse_pair
        right: {loss.name: []}
        metric: "*/test/mrr_at_1O"
        expects: equal
      - left: {}
        right: {data.human_fraction: {below: much}}
        metric: nq/test/map
        expects: less
        margin: 0.1
"""
    with pytest.raises(InvalidInput) as wrong:
        claims_of(tmp_path, text)
    found = str(wrong.value)
    for part in (
        "claims[0].statment",
        "did you mean 'statement'",
        "claims[0].statement: is missing",
        "loss.nam",
        "did you mean 'loss.name'",
        "left.seed",
        "read as text",
        "did you mean 'above'",
        "must be a metric key",
        "did you mean 'greater'",
        "is the id of claims[0] already",
        "claims[1].statement: must be text",
        "left: must map keys",
        "must not be empty",
        "mrr_at_1O",
        "equal needs it",
        "below: must be a number",
        "not to less",
    ):
        assert part in found, f"{part!r} is not in\n{found}"
    assert "mine.claims.yaml:4" in found


def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", "claims: {}", "claims: []", "claims: [1]", "a: b: c"):
        with pytest.raises(InvalidInput):
            claims_of(tmp_path, text)
    with pytest.raises(InvalidInput, match="did you mean 'paper'"):
        load_claims("papers")
