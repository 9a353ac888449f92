"""The spread over queries and seeds of earlier trials, as a plan's power takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.learn.spread import MOST_TRIALS, measured
from ablate.plan.confounds import warnings
from ablate.plan.cost import Size
from ablate.plan.planner import Plan, make_plan
from ablate.plan.power import detectable, smallest_effect
from ablate.plan.prior import Prior
from ablate.plan.study import read_study
from ablate.run.ledger import Ledger, Record

QUERIES = 400
SPLIT = "nq/test"
STUDY = """\
question: Which loss ranks best?
fixed: {data.train: nq/dpr, encoder.backbone: bert-base-uncased, loss.temperature: 0.1,
  optim.lr: 1.0e-5, optim.batch_size: 8, optim.steps: 20}
compare: {loss.name: [joint_lh, sum_marg_lh]}
repeat: {seed: [0, 1, 2]}
evaluate: [nq/test]
"""


@pytest.fixture
def plan() -> Plan:
    return make_plan(read_study(STUDY, "study", "study.yaml"), lambda name: f"content of {name}")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "runs")


def finish(
    ledger: Ledger, name: str, spec: dict[str, Any], scores: Any, ids: list[str] | None = None
) -> Record:
    """A finished trial with its scores per query."""
    known = ids or [f"q{i}" for i in range(len(scores))]
    folder = ledger.store.local
    assert folder is not None
    home = folder / "trials" / name / "evaluations" / "nq__test"
    home.mkdir(parents=True)
    pq.write_table(pa.table({"query_id": known, "ndcg_at_10": scores}), home / "per_query.parquet")
    evaluated = {SPLIT: "content of nq"}
    record = Record(name, spec, {}, "finished", finished=1.0, evaluated=evaluated)
    ledger.write(record)
    return record


def trials(ledger: Ledger, cells: int, seeds: int, query_sd: float, seed_sd: float) -> list[Record]:
    """Cells whose difference of two has `query_sd` over queries, seeds that shift all queries."""
    rng, found = np.random.default_rng(0), []
    common = rng.normal(0.5, 0.2, QUERIES)
    for cell in range(cells):
        own = rng.normal(0, query_sd / np.sqrt(2), QUERIES)
        for seed in range(seeds):
            scores = common + own + rng.normal(0, seed_sd)
            spec = {"loss.temperature": 0.01 * cell, "seed": seed}
            found.append(finish(ledger, f"t{cell}.{seed}", spec, scores))
    return found


def test_the_spreads_that_made_the_scores_come_back(plan: Plan, ledger: Ledger) -> None:
    records = trials(ledger, cells=12, seeds=4, query_sd=0.1, seed_sd=0.02)
    prior = measured(plan, ledger, records)[SPLIT]
    assert prior.query_sd == pytest.approx(0.1, rel=0.1)
    assert prior.seed_sd == pytest.approx(0.02, rel=0.3)
    assert (prior.query_trials, prior.seed_trials, prior.label) == (48, 48, SPLIT)
    assert str(prior).endswith("over seeds from 48 earlier trials on nq/test")


def test_one_seed_tells_nothing_of_seeds(plan: Plan, ledger: Ledger) -> None:
    records = trials(ledger, cells=8, seeds=1, query_sd=0.1, seed_sd=0.02)
    prior = measured(plan, ledger, records)[SPLIT]
    assert prior.seed_sd == Prior().seed_sd and prior.seed_trials == 0
    assert "from 8 earlier trials on nq/test, assumed 0.005 over seeds" in str(prior)


def test_other_data_queries_or_metrics_do_not_count(plan: Plan, ledger: Ledger) -> None:
    (record,) = trials(ledger, cells=1, seeds=1, query_sd=0.1, seed_sd=0.0)
    assert measured(plan, ledger, [record]) == {}
    changed = Record("t0.0", record.spec, {}, "finished", evaluated={SPLIT: "other content"})
    lost = Record(
        "nowhere", {"seed": 0, "optim.lr": 1.0}, {}, "finished", evaluated=record.evaluated
    )
    others = [f"other{i}" for i in range(QUERIES)]
    strange = finish(ledger, "strange", {"seed": 0, "optim.lr": 2.0}, np.ones(QUERIES), others)
    assert measured(plan, ledger, [record, changed, lost, strange]) == {}


def test_the_latest_of_a_seed_and_no_more_than_enough_are_read(
    plan: Plan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = trials(ledger, cells=3, seeds=2, query_sd=0.1, seed_sd=0.02)
    again = Record("t0.0", records[0].spec, {}, "finished", evaluated=records[0].evaluated)
    assert measured(plan, ledger, [*records, again])[SPLIT].query_trials == 6
    read: list[str] = []
    known = ledger.per_query

    def counted(trial_id: str, label: str) -> Any:
        read.append(trial_id)
        return known(trial_id, label)

    monkeypatch.setattr(ledger, "per_query", counted)
    measured(plan, ledger, records * MOST_TRIALS)
    assert len(read) == MOST_TRIALS


def test_a_plan_says_where_its_spread_is_from(plan: Plan, ledger: Ledger) -> None:
    sizes = {"nq": Size(1000, {"test": 200})}
    prior = Prior(0.1, 0.01, 27, 9, SPLIT)
    (seen,) = detectable(plan, sizes.get, {SPLIT: prior})
    assert seen.effect == smallest_effect(200, 3, 1, prior)
    (note,) = [n for n in warnings(plan, sizes.get, {SPLIT: prior}) if n.code == "few-queries"]
    assert f"below {seen} (power 0.8; error rate 0.05 over 1 comparison; 3 seeds; " in note.text
    spread = "spread 0.1 over queries from 27 earlier trials on nq/test, 0.01 over seeds from 9"
    assert f"{spread} of them)." in note.text
    (guess,) = [n for n in warnings(plan, sizes.get) if n.code == "few-queries"]
    assert "assumed spread 0.25 over queries, 0.005 over seeds" in guess.text
