"""Nodes over time and what to cite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.learn.report.citations import citations
from ablate.learn.report.cluster import nodes
from ablate.learn.report.document import Code, Section, Table, Text
from ablate.learn.report.figures import Figure
from ablate.learn.report.ramps import Ramps, ramps, told
from ablate.learn.results import Results, collect
from ablate.run.cluster.nodes import node_hours
from ablate.run.ledger import Ledger
from tests.learn import fake

ROWS = [
    {"time": 0.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 6},
    {"time": 90.0, "nodes": 3, "types": {"head": 1, "cpu": 2}, "running": 2, "pending": 4},
    {"time": 900.0, "nodes": 2, "types": {"head": 1, "cpu": 1}, "running": 1, "pending": 0},
    {"time": 1000.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
    {"time": 9000.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 2},
    {"time": 9060.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    ledger.study("losses").write("nodes.jsonl", rows)
    return collect(plan, ledger)


def shown(section: Section) -> str:
    return " ".join(block.words for block in section.blocks if isinstance(block, Text))


def test_nodes_are_drawn_and_their_hours_counted(results: Results) -> None:
    section = nodes(results)
    assert "Up to 3 nodes over 18 min" in shown(section)
    assert "Trials waited 90 s for the first new node" in shown(section).replace("2 min", "90 s")
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    expected = node_hours(ROWS)
    assert {row[0].shown: row[1].sort for row in table.rows} == pytest.approx(expected)
    assert sum(expected.values()) == pytest.approx((90 + 3 * 810 + 2 * 100 + 60) / 3600)


def test_hours_become_money_where_every_type_has_a_price(results: Results) -> None:
    prices = {"head": 0.2, "cpu": 0.5}
    money = sum(part * prices[name] for name, part in node_hours(ROWS).items())
    section = nodes(replace(results, prices=prices))
    assert f"They cost {money:.2f} USD" in shown(section)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert sum(row[3].sort or 0.0 for row in table.rows) == pytest.approx(money)
    assert [f.caption for f in figures(section)][1] == "USD so far."
    section = nodes(replace(results, prices={"head": 0.2}))
    assert "USD" not in shown(section) and "no prices" in figures(section)[1].caption


def figures(section: Section) -> list[Figure]:
    return [block for block in section.blocks if isinstance(block, Figure)]


def test_a_study_on_one_machine_has_no_nodes(results: Results) -> None:
    assert nodes(replace(results, nodes=())).blocks == ()


def row(time: float, nodes: int, running: int, pending: int) -> dict[str, float]:
    return {"time": time, "nodes": nodes, "running": running, "pending": pending}


def test_a_node_comes_is_lost_is_replaced_and_goes() -> None:
    rows = [
        row(10, 1, 0, 3), row(22, 2, 0, 3), row(24, 3, 2, 1),  # two nodes come
        row(40, 2, 2, 1), row(47, 3, 2, 1),  # one is killed; its trial counts until it begins again
        row(60, 3, 2, 0), row(70, 3, 1, 0), row(85, 2, 0, 0),  # work runs out, and a node goes
        row(87, 3, 0, 0),  # for the baselines
    ]  # fmt: skip
    found = ramps([rows])
    assert found == Ramps(came=(12, 14), replaced=(7,), went=(15,), lost=1)
    assert told(found) == (
        "Trials waited 12 s for the first new node, at most 14 s for one of 2. 1 node went while "
        "there was work; the next came 7 s later. Idle nodes went 15 s after their trial had ended."
    )


def test_a_killed_node_of_the_last_trials_is_lost_not_idle() -> None:
    found = ramps([[row(0, 3, 2, 0), row(5, 2, 2, 0), row(9, 3, 2, 0), row(30, 3, 0, 0)]])
    assert (found.lost, found.replaced, found.went) == (1, (4,), ())


def test_each_execution_waits_by_itself() -> None:
    first, second = [row(0, 1, 0, 1), row(6, 2, 1, 0)], [row(5000, 1, 0, 1), row(5009, 2, 1, 0)]
    assert ramps([first, second]).came == (6, 9)


def test_nodes_that_stay_have_no_delays() -> None:
    assert told(ramps([[row(0, 2, 0, 3), row(9, 2, 2, 1), row(20, 2, 0, 0)]])) == ""


def test_what_is_used_is_cited(results: Results) -> None:
    (code,) = (block for block in citations(results).blocks if isinstance(block, Code))
    text = "\n".join(code.lines)
    assert text.count("{") == text.count("}")
    for key in ("@software{ablate", "2602.12727", "2504.05220", "westfall1993resampling"):
        assert key in text
    assert "schuirmann" not in text
