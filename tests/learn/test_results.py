"""Results: every number traced to the files it comes from, and nothing averaged around a gap."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import special

from ablate.cli import show
from ablate.learn import ranking
from ablate.learn.report import write_report
from ablate.learn.results import Results, collect, metric_title, split_key
from ablate.plan.planner import make_plan
from ablate.plan.study import narrow
from ablate.run.ledger import Ledger, slug
from tests.learn import fake
from trainables.errors import InvalidInput

FAILED = "05 joint_lh 0.02"
REASON = "the loss is not finite at step 31; lower optim.lr"
PRIMARY = "pydocs/test/ndcg_at_10"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("runs"))
    fake.fill(fake.plan_of(), ledger, failed={f"{FAILED} 1": REASON})
    return ledger


@pytest.fixture(scope="module")
def results(ledger: Ledger) -> Results:
    return collect(fake.plan_of(), ledger)


def parquet(ledger: Ledger, trial_id: str, ref: str) -> dict[str, np.ndarray]:
    path = f"trials/{trial_id}/evaluations/{slug(ref)}/per_query.parquet"
    table = pq.read_table(ledger.store.path(path))
    return {name: table[name].to_numpy() for name in table.column_names}


def test_means_are_those_of_the_files(ledger: Ledger, results: Results) -> None:
    for cell in results.cells:
        rows = [
            parquet(ledger, trial.trial_id, "pydocs/test")["ndcg_at_10"]
            for trial in cell.counted
            if trial.state == "finished"
        ]
        summary = cell.metrics[PRIMARY]
        assert summary.mean == pytest.approx(np.mean(rows))
        assert summary.sd == pytest.approx(np.std([row.mean() for row in rows], ddof=1))
        assert (summary.seeds, summary.queries) == (len(rows), 300)
        assert summary.low < summary.mean < summary.high


def test_cells_are_ranked_by_the_selected_metric_on_the_test(results: Results) -> None:
    assert results.primary == PRIMARY
    assert results.tested
    means = [cell.metrics[PRIMARY].mean for cell in results.cells]
    assert len(means) == 10
    assert means == sorted(means, reverse=True)
    assert results.metric_keys[0] == PRIMARY
    assert [split_key(key)[0] for key in results.metric_keys] == ["pydocs/test"] * 5 + [
        "pydocs/dev"
    ] * 5


def test_a_failed_trial_is_a_row_with_its_reason(results: Results) -> None:
    cell = next(cell for cell in results.cells if cell.name == FAILED)
    assert (cell.failed, cell.metrics[PRIMARY].seeds) == (1, 2)
    failed = [trial for trial in results.trials if trial.state == "failed"]
    assert [(trial.cell, trial.seed, trial.reason) for trial in failed] == [(FAILED, 1, REASON)]
    assert len(results.trials) == 30


def test_gain_over_a_baseline_is_paired(ledger: Ledger, results: Results) -> None:
    folder = ledger.study("losses").local
    assert folder is not None
    path = folder / "baselines/untrained/pydocs__test/per_query.parquet"
    floor = pq.read_table(path)["ndcg_at_10"].to_numpy()
    assert results.untrained == "untrained"
    for cell in results.cells:
        gain = cell.gains["untrained"]
        assert gain.mean == pytest.approx(cell.metrics[PRIMARY].mean - floor.mean())
        assert gain.high - gain.low < cell.metrics[PRIMARY].high - cell.metrics[PRIMARY].low
    assert results.baselines["bm25"][PRIMARY].mean > results.baselines["untrained"][PRIMARY].mean


def test_comparisons_are_signed_from_the_reference(results: Results) -> None:
    assert results.family.complete
    assert len(results.comparisons) == 45
    assert results.reference is results.cells[0]
    for cell in results.cells[1:]:
        pair = results.against[cell.name]
        assert (pair.a, pair.b) == (results.cells[0].name, cell.name)
        expected = results.cells[0].metrics[PRIMARY].mean - cell.metrics[PRIMARY].mean
        assert pair.effect == pytest.approx(expected)
        assert pair.low_family <= pair.effect <= pair.high_family
        assert cell.verdict == ("worse" if pair.different else "undecided")
    assert results.cells[0].verdict == "first"


def test_clear_winner_is_best_and_equal_cells_are_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fake.STUDY.replace("[0.02, 0.1]", "[0.02]")
    for name, effect, expected in (("far", 0.2, "best"), ("same", 0.0, "first")):
        effects = {**dict.fromkeys(fake.LOSS_EFFECT, 0.0), "lse_pair": effect}
        monkeypatch.setattr(fake, "LOSS_EFFECT", effects)
        plan, ledger = fake.plan_of(text), Ledger(tmp_path / name)
        fake.fill(plan, ledger)
        found = collect(plan, ledger)
        assert found.cells[0].verdict == expected
        rest = {cell.verdict for cell in found.cells[1:]}
        assert rest == ({"worse"} if expected == "best" else {"undecided"})


def test_large_grids_are_compared_with_the_cell_best_on_dev(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "FULL_FAMILY", 3)
    found = collect(fake.plan_of(), ledger)
    dev = {cell.name: cell.metrics["pydocs/dev/ndcg_at_10"].mean for cell in found.cells}
    assert not found.family.complete
    assert found.family.reference == max(dev, key=lambda name: dev[name])
    assert len(found.comparisons) == 9
    for cell in found.cells:
        if cell is found.reference:
            assert cell.verdict in {"best", "first", "reference"}
        elif found.against[cell.name].different:
            assert cell.verdict == ("worse" if found.against[cell.name].effect > 0 else "better")
        else:
            assert cell.verdict == "undecided"


def test_queries_are_aligned_by_id(ledger: Ledger, tmp_path: Path) -> None:
    plan, own = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, own)
    expected = collect(plan, own)
    trial = expected.cells[0].counted[1]
    path = own.store.path(f"trials/{trial.trial_id}/evaluations/pydocs__test/per_query.parquet")
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    shuffled = collect(plan, own)
    assert shuffled.cells[0].metrics[PRIMARY] == expected.cells[0].metrics[PRIMARY]
    assert shuffled.comparisons == expected.comparisons
    pq.write_table(table.slice(0, 299), path)
    with pytest.raises(InvalidInput, match=f"{trial.trial_id}.*other queries of pydocs/test"):
        collect(plan, own)
    Path(path).unlink()
    with pytest.raises(InvalidInput, match=f"{trial.trial_id}.*lost its scores on pydocs/test"):
        collect(plan, own)


def test_scores_on_other_data_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    names = [cell.name for cell in plan.cells]
    for trial in plan.repeat():
        record = ledger.record(trial.trial_id)
        assert record is not None
        older = trial.cell == names[0] or (trial.cell, trial.seed) == (names[1], 2)
        if older:
            evaluated = {**record.evaluated, "pydocs/test": "ff" * 32}
            ledger.write(replace(record, evaluated=evaluated))
    ledger.study("losses").write("baselines.json", {"bm25": {"pydocs/test": "ff" * 32}})
    found = collect(plan, ledger)
    cells = {cell.name: cell for cell in found.cells}
    assert PRIMARY not in cells[names[0]].metrics
    assert "pydocs/dev/ndcg_at_10" in cells[names[0]].metrics
    assert [cells[name].metrics[PRIMARY].seeds for name in names[1:3]] == [2, 3]
    assert PRIMARY not in found.baselines["bm25"] and PRIMARY in found.baselines["untrained"]
    assert found.on_other_data == {"pydocs/test": 4}
    _, markdown = write_report(found, tmp_path / "report")
    assert "4 trials on pydocs/test" in markdown.read_text(encoding="utf-8")
    said = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=said, width=120))
    show.ranking(found)
    assert "Left out on pydocs/test" in said.getvalue()


def test_scores_of_an_older_form_count_when_their_data_are_the_same(tmp_path: Path) -> None:
    plan = fake.plan_of(fake.STUDY.replace("[pydocs/test]", "['pydocs/test>=2:weak>=2']"))
    ledger, labels = Ledger(tmp_path), [ref.label for ref in plan.test_refs]
    assert labels == ["pydocs/test:grade-2"]
    for trial in plan.repeat():
        fake.write_trial(ledger, trial, ["pydocs/dev", "pydocs/test"], {})
        record = ledger.record(trial.trial_id)
        assert record is not None
        judged = f"{fake.FINGERPRINT} 2 weak>=2"
        evaluated = {**record.evaluated, "pydocs/test:union:weak": judged}
        ledger.write(replace(record, evaluated=evaluated))
        home = ledger.store.path(f"trials/{trial.trial_id}/evaluations")
        shutil.copytree(f"{home}/pydocs__test", f"{home}/pydocs__test:union:weak")
    found = collect(plan, ledger)
    assert found.primary == "pydocs/test:grade-2/ndcg_at_10"
    assert [cell.metrics[found.primary].seeds for cell in found.cells] == [3] * 10
    assert found.on_other_data == {}


def test_undefined_metrics_are_left_out(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    trial = next(iter(plan.repeat()))
    path = ledger.store.path(f"trials/{trial.trial_id}/evaluations/pydocs__test/per_query.parquet")
    table = pq.read_table(path)
    column = table["recall_at_10"].to_numpy().copy()
    column[3] = np.nan
    place = table.column_names.index("recall_at_10")
    pq.write_table(table.set_column(place, "recall_at_10", [column]), path)
    cells = {cell.name: cell for cell in collect(plan, ledger).cells}
    assert "pydocs/test/recall_at_10" not in cells[trial.cell].metrics
    assert PRIMARY in cells[trial.cell].metrics


def test_a_saturated_metric_of_one_cell_harms_nothing(tmp_path: Path) -> None:
    """Recall at a large depth is 1 for every query and seed of a good cell, not of the others."""
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    for trial in plan.repeat():
        if trial.cell == plan.cells[0].name:
            path = f"trials/{trial.trial_id}/evaluations/pydocs__test/per_query.parquet"
            table = pq.read_table(ledger.store.path(path))
            place = table.column_names.index("recall_at_100")
            full = table.set_column(place, "recall_at_100", [np.ones(len(table))])
            pq.write_table(full, ledger.store.path(path))
    key = "pydocs/test/recall_at_100"
    found = {cell.name: cell.metrics[key] for cell in collect(plan, ledger).cells}
    whole = found.pop(plan.cells[0].name)
    assert (whole.mean, whole.sd) == (1.0, 0.0)
    assert all(summary.low < summary.mean < summary.high for summary in found.values())


def test_only_the_chosen_draw_counts(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(fake.TUNED), Ledger(tmp_path)
    fake.fill(plan, ledger)
    ledger.study("losses").write("choices.json", {cell.name: 0 for cell in plan.cells})
    found = collect(plan, ledger)
    assert found.chosen
    assert len(found.trials) == 10 * (3 + 2)
    for cell in found.cells:
        assert len(cell.trials) == 5
        assert [trial.planned.draw for trial in cell.counted] == [0, 0, 0]
        assert cell.tuned == plan.draws[0].values


def test_a_choice_that_the_plan_no_longer_has_is_none(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(fake.TUNED), Ledger(tmp_path)
    ledger.study("losses").write("choices.json", {plan.cells[0].name: 99, plan.cells[1].name: 1})
    found = {cell.name: cell.draw for cell in collect(plan, ledger).cells}
    assert found[plan.cells[0].name] is None
    assert found[plan.cells[1].name] == 1


def test_before_the_choice_nothing_is_ranked(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(fake.TUNED), Ledger(tmp_path)
    for trial in plan.choose():
        fake.write_trial(ledger, trial, ["pydocs/dev"], {})
    found = collect(plan, ledger)
    assert not found.chosen
    assert found.scored == ()
    assert {cell.verdict for cell in found.cells} == {"unfinished"}
    assert {cell.draw for cell in found.cells} == {None}
    assert len(found.trials) == 30


def test_an_empty_run_folder_has_planned_trials_only(tmp_path: Path) -> None:
    found = collect(fake.plan_of(), Ledger(tmp_path))
    assert {trial.state for trial in found.trials} == {"planned"}
    assert found.scored == ()
    assert (found.comparisons, found.reference, found.against) == ((), None, {})
    assert found.untrained is None
    assert found.seed_noise is None


def test_a_dev_ranking_is_known_as_one(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    for trial in plan.repeat():
        fake.write_trial(ledger, trial, ["pydocs/dev"], {})
    found = collect(plan, ledger)
    assert found.primary == "pydocs/dev/ndcg_at_10"
    assert not found.tested


def test_seed_noise_is_the_reach_of_a_difference_between_equal_cells(results: Results) -> None:
    spread = [(cell.metrics[PRIMARY].sd or 0) ** 2 for cell in results.cells]
    freedom = [cell.metrics[PRIMARY].seeds - 1 for cell in results.cells]
    pooled = np.average(spread, weights=freedom)
    quantile = special.stdtrit(sum(freedom), 0.975)
    assert results.seed_noise == pytest.approx(quantile * np.sqrt(2 * pooled / 3))


def test_plan_id_follows_the_plan_and_not_its_progress(ledger: Ledger, results: Results) -> None:
    plan = fake.plan_of()
    part = make_plan(narrow(plan.study, {"loss.name": "joint_lh"}), lambda _: fake.FINGERPRINT)
    narrowed = collect(part, ledger)
    assert len(narrowed.cells) == 2
    assert narrowed.plan_id == results.plan_id
    longer = fake.plan_of(fake.STUDY.replace("steps: 60", "steps: 61"))
    assert collect(longer, ledger).plan_id != results.plan_id
    other = replace(plan, fingerprints={"pydocs": "cd" * 32})
    assert collect(other, ledger).plan_id != results.plan_id


def test_scores_are_read_when_asked_for(ledger: Ledger, results: Results) -> None:
    grid = results.scores.grid("pydocs/dev/mrr_at_10")
    assert {array.shape for array in grid.values()} == {(3, 80), (2, 80)}
    assert results.scores.queries("pydocs/dev") == [f"q{i}" for i in range(80)]
    history = results.scores.history(results.cells[0].counted[0])
    path = f"trials/{results.cells[0].counted[0].trial_id}/history.jsonl"
    rows = (ledger.store.read(path) or b"").splitlines()
    assert history == [json.loads(row) for row in rows]
    assert len(history) == 60


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("nq/test/ndcg_at_10", "nDCG@10"),
        ("mrr_at_10", "MRR@10"),
        ("beir/scifact/test/recall_at_1000", "Recall@1000"),
        ("nq/test/map", "MAP"),
        ("nq/test/condensed_ndcg_at_10", "condensed nDCG@10"),
    ],
)
def test_metric_titles(key: str, title: str) -> None:
    assert metric_title(key) == title
