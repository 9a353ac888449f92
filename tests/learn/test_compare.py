"""`ablate compare`: the chosen cells in the terminal, and MLflow's pages with the same ones."""

from __future__ import annotations

import base64
import json
import zlib
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ablate.cli import SOME_FAILED, commands, show
from ablate.cli.compare import chosen_cells, compare
from ablate.learn.results import Results, collect
from ablate.plan.planner import Plan
from ablate.run.execution import Execution
from ablate.run.ledger import Ledger
from tests.learn import fake
from trainables.errors import InvalidInput

pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    fake.fill(fake.plan_of(), Ledger(folder), only=lambda trial: trial.seed < 2)
    return folder


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan that every command of the test has."""
    plan = fake.plan_of()
    monkeypatch.setattr(commands, "plan_of", lambda *words: plan)
    return plan


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Everything that the commands say."""
    heard = StringIO()
    for stream in ("out", "err"):
        monkeypatch.setattr(show, stream, Console(file=heard, width=160, soft_wrap=True))
    return heard


@pytest.fixture
def results(runs: Path) -> Results:
    return collect(fake.plan_of(), Ledger(runs))


def test_cells_are_asked_for_by_name_or_number(results: Results) -> None:
    chosen = chosen_cells(results, ["03", "9", "05 joint_lh 0.02"])
    assert {cell.name.split()[0] for cell in chosen} == {"03", "05", "09"}
    assert list(chosen) == [cell for cell in results.cells if cell in chosen]
    assert chosen_cells(results, []) == results.cells


def test_every_word_that_names_no_cell_is_told(results: Results) -> None:
    with pytest.raises(InvalidInput) as caught:
        chosen_cells(results, ["03", "05 joint_lh 0.2", "44"])
    first, second = caught.value.problems
    assert (first.value, first.nearest) == ("05 joint_lh 0.2", "05 joint_lh 0.02")
    assert second.value == "44" and "01 single_lh 0.02" in second.rule


def test_table_differences_and_addresses(
    runs: Path, plan: Plan, results: Results, said: StringIO
) -> None:
    from mlflow import MlflowClient

    assert compare("losses", cells=["01", "10"], runs=str(runs)) == 0
    text = said.getvalue()
    for name in ("01 single_lh 0.02", "10 lse_pair 0.1"):
        cell = next(cell for cell in results.cells if cell.name == name)
        (line,) = [x for x in text.splitlines() if name in x and " to " in x and "minus" not in x][
            :1
        ]
        summary = results.primary_of(cell)
        assert f"{summary.mean:.4f}" in line and cell.verdict in line
        assert f"{summary.low:.4f} to {summary.high:.4f}" in line
        assert line.split()[0] == str(results.cells.index(cell) + 1)
    assert "02 single_lh 0.1" not in text
    (pair,) = [p for p in results.comparisons if {p.a[:2], p.b[:2]} == {"01", "10"}]
    assert f"{pair.effect:+.4f}" in text
    assert "mlflow server --host 127.0.0.1" in text
    client = MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("losses")
    key = text.split("viewStateShareKey=")[1].split("&")[0]
    tag = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    state = json.loads(zlib.decompress(base64.b64decode(tag["state"].removeprefix("deflate;"))))
    found = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert {run.info.run_name for run in found} == {"01 single_lh 0.02", "10 lse_pair 0.1"}
    assert all(run.info.run_id in text for run in found)
    axes = {chart.get("metricKey") for chart in state["compareRunCharts"]}
    assert results.primary in axes


def test_without_a_server_the_table_is_there_all_the_same(
    runs: Path, plan: Plan, said: StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    code = compare("losses", runs=str(runs), tracking_uri="http://127.0.0.1:9")
    assert code == SOME_FAILED
    assert "01 single_lh 0.02" in said.getvalue()
    again = f"ablate track losses --runs {runs} --tracking-uri http://127.0.0.1:9"
    assert again in said.getvalue()
    assert capfd.readouterr() == ("", "")


def test_a_cell_without_a_score_has_no_place(tmp_path: Path, plan: Plan, said: StringIO) -> None:
    lost = "10 lse_pair 0.1"
    fake.fill(plan, Ledger(tmp_path), failed={f"{lost} {seed}": "lost" for seed in range(3)})
    show.ranking(collect(plan, Ledger(tmp_path)))
    lines = [line for line in said.getvalue().splitlines() if "unfinished" in line]
    assert [line.split()[:4] for line in lines] == [["10", "lse_pair", "0.1", "-"]]


@pytest.mark.parametrize(("count", "words"), [(1, "1 trial that failed by its"), (2, "2 trials")])
def test_what_is_left_is_counted_in_words(count: int, words: str, said: StringIO) -> None:
    done = Execution(left_failed={str(i) for i in range(count)})
    commands._say_what_is_left(done, "losses", "runs")
    assert said.getvalue().startswith(words)
