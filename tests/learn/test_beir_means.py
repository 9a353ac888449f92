"""Cells on several sets of BEIR: their mean is a metric like any other, and says of what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ablate.learn.claims import Claim, Contrast
from ablate.learn.claims.values import OneOf
from ablate.learn.report import write_report
from ablate.learn.report.claims import _cells
from ablate.learn.results import Results, collect
from ablate.learn.tracking.tracked import cell_metrics
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import fake
from trainables.evaluation.means import beir_means, beir_sets

STUDY = (
    fake.STUDY.replace("[0.02, 0.1]", "[0.1]")
    .replace("[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]", "[joint_lh, lse_pair]")
    .replace("select: {maximize: pydocs/dev/ndcg_at_10}\n", "")
    .replace("[pydocs/test]", "[beir/scifact/test, beir/nfcorpus/test, beir/cqadupstack/test]")
)
MEAN = "beir/mean:cqadupstack:nfcorpus:scifact"
PARTS = "beir/cqadupstack/test"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    found = fake.plan_of(STUDY, "beir")
    labels = [ref.label for ref in found.test_refs]
    counts = {label: 20 + 7 * place for place, label in enumerate(labels)}
    monkeypatch.setattr(fake, "QUERIES", counts)
    return found


def filled(plan: Plan, folder: Path, without: dict[str, str] | None = None) -> Results:
    """`without` maps `<cell> <seed>` to a label that the trial was not scored on."""
    ledger = Ledger(folder)
    study = ledger.study(plan.study.name)
    labels = list(fake.QUERIES)
    assert len(labels) == 14 and study.local is not None
    for trial in plan.repeat({cell.name: 0 for cell in plan.cells}):
        lacking = (without or {}).get(f"{trial.cell} {trial.seed}")
        fake.write_trial(ledger, trial, [label for label in labels if label != lacking], {})
    fake.write_evaluations(study.local / "baselines" / "bm25", 0.5, "bm25", labels)
    return collect(plan, ledger)


def test_cells_and_baselines_have_the_means_of_their_sets(plan: Plan, tmp_path: Path) -> None:
    results = filled(plan, tmp_path)
    assert results.primary == "beir/scifact/test/ndcg_at_10"
    assert list(results.scores.means) == [PARTS, MEAN]
    for cell in results.cells:
        for label in (PARTS, MEAN):
            key = f"{label}/ndcg_at_10"
            by_seed = [beir_means(trial.metrics)[key] for trial in cell.counted]
            found = cell.metrics[key]
            assert found.mean == pytest.approx(np.mean(by_seed), abs=1e-12)
            assert found.sd == pytest.approx(np.std(by_seed, ddof=1), abs=1e-12)
            assert found.low < found.mean < found.high and found.seeds == 3
        widths = [
            cell.metrics[key].high - cell.metrics[key].low
            for key in (f"{MEAN}/ndcg_at_10", results.primary)
        ]
        assert widths[0] < widths[1]
    flat = {key: summary.mean for key, summary in results.baselines["bm25"].items()}
    singles = {key: value for key, value in flat.items() if "mean" not in key and PARTS not in key}
    assert {**singles, **beir_means(singles)} == pytest.approx(flat, abs=1e-12)


def test_report_and_mlflow_name_the_sets(plan: Plan, tmp_path: Path) -> None:
    results = filled(plan, tmp_path / "runs")
    write_report(results, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"{MEAN}: mean ± sd over seeds" in page
    for cell in results.cells:
        sent = cell_metrics(results, cell)
        assert sent[f"{MEAN}/ndcg_at_10"] == cell.metrics[f"{MEAN}/ndcg_at_10"].mean
        assert all(len(name) <= 250 for name in sent)


def test_a_trial_that_lacks_a_set_is_in_no_mean(plan: Plan, tmp_path: Path) -> None:
    name = plan.cells[0].name
    results = filled(plan, tmp_path, {f"{name} 1": "beir/scifact/test"})
    cell = next(cell for cell in results.cells if cell.name == name)
    keys = ("beir/scifact/test", "beir/nfcorpus/test", PARTS, MEAN)
    assert [cell.metrics[f"{key}/ndcg_at_10"].seeds for key in keys] == [2, 3, 3, 2]
    complete = [trial for trial in cell.counted if trial.seed != 1]
    expected = np.mean([beir_means(trial.metrics)[f"{MEAN}/ndcg_at_10"] for trial in complete])
    assert cell.metrics[f"{MEAN}/ndcg_at_10"].mean == pytest.approx(expected, abs=1e-12)


def test_claims_count_each_set_once(plan: Plan, tmp_path: Path) -> None:
    results = filled(plan, tmp_path)

    def read(pattern: str) -> set[str]:
        left, right = ({"loss.name": OneOf((name,))} for name in ("lse_pair", "joint_lh"))
        contrast = Contrast(left, right, metric=pattern, expects="greater")
        table = _cells(results, [Claim("C1", "s", "s", (contrast,))])
        (keys,) = {frozenset(scores) for _, scores in table.values()}
        return set(keys)

    assert read("*/test/ndcg_at_10") == {f"{label}/ndcg_at_10" for label in fake.QUERIES}
    assert read(f"{MEAN}/ndcg_at_10") == {f"{MEAN}/ndcg_at_10"}


def test_other_thresholds_and_judges_are_no_set_of_beir() -> None:
    labels = ["beir/scifact/test", "beir/nfcorpus/test:grade-2", "nq/test:union:weak"]
    assert beir_sets(labels) == {}
    assert beir_sets([*labels, "nq/test"]) == {
        "beir/mean:nq:scifact": (("nq/test",), ("beir/scifact/test",))
    }
