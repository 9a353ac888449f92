"""Claims, equality, choice and scope in the report: each says what the statistics say, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ablate.learn.claims import find_claims, load_claims
from ablate.learn.report import write_report
from ablate.learn.report.choice import choice
from ablate.learn.report.claims import claims_section, verdicts
from ablate.learn.report.comparisons import scope
from ablate.learn.report.document import LOST, Points, Section, Table, Text
from ablate.learn.report.equality import equality
from ablate.learn.report.methods import methods
from ablate.learn.report.sets import per_set
from ablate.learn.results import Results, collect
from ablate.learn.stats import equivalent, winners_curse
from ablate.plan.study import read_study
from ablate.plan.written import write_study
from ablate.run.ledger import Ledger
from tests.learn import fake

MARGIN = fake.STUDY.replace("ndcg_at_10}", "ndcg_at_10, equal_within: 0.06}")
CLAIMS = """
claims:
  - id: A
    statement: LSEPair beats JointLH.
    source: a test
    contrasts:
      - {left: {loss.name: lse_pair}, right: {loss.name: joint_lh},
         metric: "*/test/ndcg_at_10", expects: greater}
  - id: B
    statement: JointLH beats LSEPair.
    source: a test
    contrasts:
      - {left: {loss.name: joint_lh}, right: {loss.name: lse_pair},
         metric: "*/test/ndcg_at_10", expects: greater}
  - id: C
    statement: SumMargLH and LSEPair are equal within a thousandth.
    source: a test
    contrasts:
      - {left: {loss.name: sum_marg_lh}, right: {loss.name: lse_pair},
         metric: "*/test/ndcg_at_10", expects: equal, margin: 0.001}
  - id: D
    statement: Eight positives beat four.
    source: a test
    contrasts:
      - {left: {data.max_positives: 8}, right: {data.max_positives: 4},
         metric: "*/test/ndcg_at_10", expects: greater}
"""


def results_of(root: Path, text: str = fake.STUDY, **options: object) -> Results:
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger, **options)  # type: ignore[arg-type]
    return collect(plan, ledger)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("runs"), MARGIN)


@pytest.fixture(scope="module")
def claims_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("claims") / "losses.claims.yaml"
    file.write_text(CLAIMS)
    return file


def words(section: Section) -> str:
    texts = [block.words for block in section.blocks if isinstance(block, Text)]
    texts += [item for block in section.blocks if isinstance(block, Points) for item in block.items]
    return "\n".join(texts)


def rows(section: Section) -> list[dict[str, str]]:
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    return [
        dict(zip(table.columns, (cell.shown for cell in row), strict=True)) for row in table.rows
    ]


def test_claims_are_told_as_they_were_judged(results: Results, claims_file: Path) -> None:
    claims = load_claims(claims_file)
    found = {verdict.claim.id: verdict.outcome for verdict in verdicts(results, claims)}
    assert found == {"A": "holds", "B": "fails", "C": "undecided", "D": "undecided"}
    section = claims_section(results, claims)
    said = words(section)
    assert "**A holds.** LSEPair beats JointLH." in said
    assert "**B fails.**" in said
    assert "**C is undecided.**" in said
    assert "**C**: about" in said or "**C**: more seeds" in said
    assert "D: no cell has data.max_positives = 8." in said
    assert [row["Claim"] for row in rows(section)] == ["A", "B", "C"]
    first = rows(section)[0]
    assert (first["Outcome"], first["Expected"], first["Seeds"]) == ("holds", "> 0", "3")
    assert "10 lse_pair 0.1" in first["Cells used"]
    assert rows(section)[2]["Expected"] == "within ± 0.001"


def test_claims_about_another_study_are_left_out_with_the_reason(
    results: Results, claims_file: Path
) -> None:
    (last,) = (claim for claim in load_claims(claims_file) if claim.id == "D")
    section = claims_section(results, [last])
    assert section.blocks == ()
    assert section.left_out == "none of the 1 claim is about cells of this study"
    assert claims_section(results, ()).left_out == ""


def test_claims_are_found_beside_the_study(tmp_path: Path, claims_file: Path) -> None:
    study = tmp_path / "losses.yaml"
    study.write_text(fake.STUDY)
    paper = [claim.id for claim in find_claims("temperature")]
    assert paper[0] == "C1"
    assert [claim.id for claim in find_claims(str(study))] == paper
    (tmp_path / "losses.claims.yaml").write_text(CLAIMS)
    assert [claim.id for claim in find_claims(str(study))] == ["A", "B", "C", "D"]
    assert next(claim.id for claim in find_claims("temperature", str(claims_file))) == "A"


def test_only_what_is_shown_to_be_equal_is_called_so(results: Results) -> None:
    section = equality(results)
    found = equivalent(results.grid, results.family.pairs, 0.06)
    shown = {(row["Cell"], row["Other"]): row["Verdict"] for row in rows(section)}
    assert any("equal" in verdict for verdict in shown.values())
    assert any(verdict == "undecided" for verdict in shown.values())
    for pair in found:
        if pair.equivalent:
            assert shown[pair.a, pair.b] in {"equal within 0.060", "different, by less than 0.060"}
        elif (pair.a, pair.b) in shown:
            assert shown[pair.a, pair.b] in {"undecided", "different"}


def test_without_a_declared_margin_nothing_is_equal(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    section = equality(found)
    assert section.blocks == ()
    assert "select.equal_within" in section.left_out
    _, markdown = write_report(found, tmp_path / "report")
    assert "**Which cells are equal**: the study declares no" in markdown.read_text()


def test_the_methods_tell_of_every_test_that_was_made(
    results: Results, claims_file: Path, tmp_path: Path
) -> None:
    said = {"equality": "Schuirmann 1987", "claims": "A claim is", "slices": "groups of queries"}
    for anchor, words in said.items():
        told = " ".join(methods(results, {anchor}))
        assert [one for one in said.values() if one in told] == [words]
    _, markdown = write_report(results, tmp_path, load_claims(str(claims_file)))
    told = markdown.read_text(encoding="utf-8").partition("## Methods")[2]
    assert said["equality"] in told and said["claims"] in told and said["slices"] not in told


def test_a_margin_and_a_price_are_read_written_and_checked() -> None:
    text = MARGIN.replace("repeat:", "budget: {label_price: 2.5}\nrepeat:")
    study = read_study(text, "losses")
    assert study.select is not None
    assert (study.select.equal_within, study.budget.label_price) == (0.06, 2.5)
    assert read_study(write_study(study), "losses") == study
    from trainables.errors import InvalidInput

    for wrong in ("equal_within: 0", "equal_within: 1.5", "equal_with: 0.1"):
        with pytest.raises(InvalidInput, match="equal_with"):
            read_study(MARGIN.replace("equal_within: 0.06", wrong), "losses")


@pytest.mark.parametrize(("seeds", "about"), [([0, 1, 2], "training methods"), ([0], "checkpoint")])
def test_the_scope_says_what_verdicts_are_about(
    tmp_path: Path, seeds: list[int], about: str
) -> None:
    found = results_of(tmp_path, only=lambda trial: trial.seed in seeds)
    assert about in scope(found)
    assert ("of the trained encoders, not of the methods" in scope(found)) == (len(seeds) == 1)


def test_the_winners_curse_is_told(results: Results) -> None:
    section = choice(results)
    dev = results.scores.grid("pydocs/dev/ndcg_at_10")
    curse = winners_curse({cell.name: dev[cell.name] for cell in results.cells})
    assert f"`{curse.chosen}` is best on dev" in words(section)
    assert f"too high by {curse.optimism:.3f}" in words(section)
    assert len(rows(section)) == len(results.cells)


def test_tuned_draws_have_an_optimism(tmp_path: Path) -> None:
    found = results_of(tmp_path, fake.TUNED, failed={"05 joint_lh 0.02 1": "out of memory"})
    table = rows(choice(found))
    assert all(float(row["Optimism"]) >= 0.0 for row in table)
    assert {row["Draws"] for row in table} == {"3"}
    assert {row["Cell"]: row[LOST] for row in table}["05 joint_lh 0.02"] != "0"


def test_several_test_sets_are_set_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert per_set(results_of(tmp_path / "one")).blocks == ()
    monkeypatch.setitem(fake.QUERIES, "pydocs/small/test", 60)
    text = fake.STUDY.replace("[pydocs/test]", "[pydocs/test, pydocs/small/test]")
    found = results_of(tmp_path / "two", text)
    table = [row for row in rows(per_set(found)) if "baseline" not in row["Cell"]]
    assert len(table) == len(found.cells)
    by_name = {row["Cell"]: row for row in table}
    for cell in found.cells:
        keys = [f"{ref}/ndcg_at_10" for ref in found.test_refs]
        mean = sum(cell.metrics[key].mean for key in keys) / 2
        assert by_name[cell.name]["Mean of sets"] == f"{mean:.3f}"
    means = [float(row["Mean of sets"]) for row in table]
    assert means == sorted(means, reverse=True)


TWO_SETS = fake.STUDY.replace("[pydocs/test]", "[pydocs/test, pydocs/small/test]").replace(
    "[0.02, 0.1]", "[0.02]"
)


def test_a_mean_over_sets_is_over_the_trials_that_have_every_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claims_file: Path
) -> None:
    monkeypatch.setitem(fake.QUERIES, "pydocs/small/test", 60)
    plan, ledger = fake.plan_of(TWO_SETS), Ledger(tmp_path)
    fake.fill(plan, ledger)
    first, second = (cell.name for cell in plan.cells[:2])
    lacking = {(first, 0): "pydocs/test", (first, 2): "pydocs/small/test"}
    lacking |= {(second, seed): "pydocs/small/test" for seed in (0, 1, 2)}
    for trial in plan.repeat():
        ref = lacking.get((trial.cell, trial.seed))
        record = ledger.record(trial.trial_id)
        assert record is not None
        evaluated = {label: mark for label, mark in record.evaluated.items() if label != ref}
        ledger.write(replace(record, evaluated=evaluated))
    found = collect(plan, ledger)
    table = {row["Cell"]: row for row in rows(per_set(found))}
    (whole,) = (t for t in found.trials if (t.cell, t.seed) == (first, 1))
    means = [whole.metrics[f"{ref}/ndcg_at_10"] for ref in found.test_refs]
    assert table[first]["Mean of sets"] == f"{sum(means) / 2:.3f}"
    assert table[second]["Mean of sets"] == "–"
    (block,) = per_set(found).blocks
    assert isinstance(block, Table)
    assert f"1 of 3 of {first}" in block.caption and f"0 of 3 of {second}" in block.caption
    write_report(found, tmp_path / "report", load_claims(claims_file))
