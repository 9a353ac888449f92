"""Label cost, MRR against recall, and groups of queries in the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ablate.learn.queries import groups_of, query_facts, rising
from ablate.learn.report import scatter
from ablate.learn.report.answer import answer
from ablate.learn.report.document import Points, Section, Table, Text
from ablate.learn.report.labels import human_labels, label_cost, label_curves
from ablate.learn.report.scatter import Dot
from ablate.learn.report.sections import build
from ablate.learn.report.sets import other_metrics
from ablate.learn.report.slices import query_groups
from ablate.learn.report.threats import threats
from ablate.learn.report.trade import two_metrics
from ablate.learn.report.write import render_html, render_markdown
from ablate.learn.results import Results, collect
from ablate.learn.stats import break_even, pareto, slices
from ablate.plan.planner import PlannedTrial
from ablate.run.ledger import Ledger
from tests.learn import fake
from trainables.data.cache import Cache
from trainables.data.collections import open_collection, parse_ref

MIX = fake.STUDY.replace("  data.human_fraction: 0.5\n", "").replace(
    "  loss.temperature: [0.02, 0.1]",
    "  data.human_fraction: [0, 0.2, 0.5, 1.0]",
).replace("  optim.lr", "  loss.temperature: 0.1\n  optim.lr").replace(
    "[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]", "[joint_lh, lse_pair]"
)  # fmt: skip
LEVELS = {0: -0.2, 0.2: -0.1, 0.5: 0.0, 1.0: 0.0}


def results_of(root: Path, text: str = fake.STUDY, **options: object) -> Results:
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger, **options)  # type: ignore[arg-type]
    return collect(plan, ledger)


def words(section: Section) -> str:
    texts = [block.words for block in section.blocks if isinstance(block, Text)]
    texts += [item for block in section.blocks if isinstance(block, Points) for item in block.items]
    return "\n".join(texts)


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Half of the human labels are as good as all of them."""
    honest = fake.quality

    def quality(trial: PlannedTrial) -> float:
        return honest(trial) + LEVELS[trial.flat["data.human_fraction"]]  # type: ignore[index]

    monkeypatch.setattr(fake, "quality", quality)
    text = MIX.replace("ndcg_at_10}", "ndcg_at_10, equal_within: 0.03}")
    return results_of(tmp_path, text.replace("repeat:", "budget: {label_price: 2.0}\nrepeat:"))


def test_the_break_even_point_is_that_of_the_statistics(mixed: Results) -> None:
    curves = label_curves(mixed)
    assert {curve.name for curve in curves} == {"joint_lh", "lse_pair"}
    section = label_cost(mixed)
    table = tables(section)[0]
    for curve, row in zip(curves, table.rows, strict=True):
        costs = {cell.name: fraction for fraction, cell in curve.cells}
        found = break_even(
            {name: mixed.grid[name] for name in costs}, costs, curve.target.name, 0.03
        )
        assert row[2].sort == pytest.approx(found.cost)
        assert 0.2 < found.cost <= 0.6
        assert row[3].shown == f"{100 * found.low:.0f} % to {100 * found.high:.0f} %"
    assert "less 0.03, the declared margin" in words(section)
    points = tables(section)[-1]
    assert len(points.rows) == 8


def test_money_needs_a_price_and_a_count(mixed: Results, tmp_path: Path) -> None:
    assert human_labels(mixed) is None
    assert "Cost" not in tables(label_cost(mixed))[0].columns
    folder = tmp_path / "studies" / "losses"
    counted = {"collection": "pydocs", "passages": 1, "lines": ["x"],
               "splits": {"train": {"judgements": 4000, "queries": 900}}}  # fmt: skip
    (folder / "data.json").write_text(json.dumps([counted]))
    text = MIX.replace("repeat:", "budget: {label_price: 2.0}\nrepeat:")
    found = collect(fake.plan_of(text), Ledger(tmp_path))
    assert human_labels(found) == 4000
    section = label_cost(found)
    assert "All are 4,000 labels, which cost 8,000 at 2 each." in words(section)
    assert {"Labels", "Cost", "Saved, at most"} <= set(tables(section)[0].columns)


def test_label_cost_needs_shares_and_a_cell_with_all(tmp_path: Path) -> None:
    assert "does not compare" in label_cost(results_of(tmp_path / "a")).left_out
    without = MIX.replace(", 1.0]", "]")
    assert (
        "no cell with all human labels" in label_cost(results_of(tmp_path / "b", without)).left_out
    )


def test_the_front_is_that_of_the_statistics(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    section = two_metrics(results)
    grids = [results.scores.grid(f"pydocs/test/{name}") for name in ("mrr_at_10", "recall_at_100")]
    first, second = ({cell.name: grid[cell.name] for cell in results.scored} for grid in grids)
    found = {point.cell: point for point in pareto(first, second)}
    for row in tables(section)[0].rows:
        point = found[row[0].shown]
        assert row[3].shown == ("yes" if point.on_front else "no")
        assert row[4].shown == (point.beaten_by or "–")
    assert any(point.beaten_by for point in found.values())


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.arange(9), {"0 to 3", "4 to 6", "7 to 8"}),
        (np.array([1] * 8 + [2, 5]), {"1", "2 to 5"}),
        (np.array([4, 4, 4]), {"4"}),
        (np.array([0.1, 0.2, 0.9, 1.0]), {"0.10 to 0.20", "0.90", "1.00"}),
    ],
)  # fmt: skip
def test_groups_keep_equal_values_together(values: np.ndarray, labels: set[str]) -> None:
    found = groups_of(values, "")
    assert set(found) == labels
    for label in labels:
        inside = values[[one == label for one in found]]
        outside = values[[one != label for one in found]]
        assert not set(inside.tolist()) & set(outside.tolist())
    assert rising(found)[0] == found[int(values.argmin())]


def collection(folder: Path) -> Path:
    """Ten passages, and queries whose words and positives are known."""
    folder.mkdir()
    (folder / "qrels").mkdir()
    passages = [{"_id": f"p{i}", "title": "", "text": f"alpha beta word{i}"} for i in range(10)]
    queries = [
        {"_id": "q0", "text": "alpha beta"}, {"_id": "q1", "text": "alpha word1 gamma delta"},
        {"_id": "q2", "text": "nothing known"},
    ]  # fmt: skip
    for name, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    qrels = ["query-id\tcorpus-id\tscore", "q0\tp0\t1", "q0\tp1\t2", "q1\tp2\t1", "q1\tp1\t1",
             "q2\tp3\t1"]  # fmt: skip
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    return folder


def test_facts_of_queries_are_counted_from_what_the_run_left(tmp_path: Path) -> None:
    folder, cache = collection(tmp_path / "tiny"), tmp_path / "cache"
    ref = parse_ref(f"{folder}/test")
    missing = query_facts(ref, ["q0"], cache, None)
    assert isinstance(missing, str)
    assert "not in the run folder's cache" in missing
    opened = open_collection(str(folder), Cache(cache))
    facts = query_facts(ref, ["q1", "q0", "q2"], cache, opened.fingerprint)
    assert not isinstance(facts, str)
    assert facts.length.tolist() == [4, 2, 2]
    assert facts.positives.tolist() == [2, 2, 1]
    assert facts.overlap.tolist() == [0.5, 1.0, 0.0]
    strict = query_facts(parse_ref(f"{folder}/test>=2"), ["q0", "q1"], cache, None)
    assert not isinstance(strict, str)
    assert strict.positives.tolist() == [1, 0]
    assert "no longer the one" in str(query_facts(ref, ["q0"], cache, "another"))


def test_several_groupings_are_corrected_together() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.5, 0.2, 300)
    scores = {name: hard + rng.normal(shift, 0.1, (3, 300)) for name, shift in
              (("a", 0.02), ("b", 0.0))}  # fmt: skip
    first, second = np.repeat(["x", "y"], 150), np.tile(["u", "v", "w"], 100)
    both = slices(scores, [("a", "b")], {"one": first, "two": second})
    alone = slices(scores, [("a", "b")], first)
    assert [row.slice for row in both] == ["one: x", "one: y", "two: u", "two: v", "two: w"]
    assert [row.effect for row in both[:2]] == [row.effect for row in alone]
    assert all(a.p_adjusted >= b.p_adjusted for a, b in zip(both[:2], alone, strict=True))


def test_a_hidden_loss_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On long queries LSEPair loses what it wins on the others."""
    from ablate.learn.queries import QueryFacts
    from ablate.learn.report import slices as module

    count = fake.QUERIES["pydocs/test"]
    long = np.arange(count) % 3 == 0
    honest = fake.scores

    def scores(level: float, name: str, ref: str) -> dict[str, np.ndarray]:
        found = honest(level, name, ref)
        if ref == "pydocs/test" and level > 0.62:
            found = {metric: column - 0.4 * long for metric, column in found.items()}
        return found

    text = fake.STUDY.replace("[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]",
                              "[joint_lh, lse_pair]").replace("[0.02, 0.1]", "[0.1]")  # fmt: skip
    monkeypatch.setattr(fake, "scores", scores)
    monkeypatch.setattr(fake, "LOSS_EFFECT", {"joint_lh": -0.15, "lse_pair": 0.15})
    facts = QueryFacts(np.where(long, 20, 5), np.ones(count, int), np.full(count, 0.5))
    monkeypatch.setattr(module, "query_facts", lambda *given: facts)
    results = results_of(tmp_path, text)
    said = words(query_groups(results))
    assert all(table.columns[-1] == "Note" for table in tables(query_groups(results)))
    assert "**The mean hides a loss:**" in said
    assert (
        "**length: 20 words** (100 queries): `02 lse_pair 0.1` is worse here than cells that it is "
        "ahead of over all queries: `01 joint_lh 0.1` (−0.1"
    ) in said
    monkeypatch.setattr(module, "query_facts", lambda *given: "no texts are here")
    assert query_groups(results).left_out == "no texts are here"


@pytest.mark.parametrize("losses", ["[joint_lh]", "[single_lh, joint_lh, lse_pair]"])
def test_groups_have_a_row_each_and_every_cell_in_a_fold(
    losses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.learn.queries import QueryFacts
    from ablate.learn.report import slices as module

    count = fake.QUERIES["pydocs/test"]
    facts = QueryFacts(np.arange(count), np.arange(count) % 2, np.full(count, 0.5))
    monkeypatch.setattr(module, "query_facts", lambda *given: facts)
    every = "[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]"
    results = results_of(tmp_path, fake.STUDY.replace(every, losses))
    others, groups = len(results.scored) - 1, 5
    first, *folded = tables(query_groups(results))
    for table in (first, *folded):
        assert ("Note" in table.columns) == any("mean" in row[-1].shown for row in table.rows)
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len(first.rows) == groups and not first.folded
    page, plain = render_html(build(results)), render_markdown(build(results))
    assert page.count("<details>") == page.count("</details>") == len(folded)
    if others == 1:
        assert not folded
        return
    assert [len(table.rows) for table in folded] == [2 * others, 3 * others]
    assert {row[1].shown for row in folded[0].rows} == {cell.name for cell in results.scored[1:]}
    for row in first.rows:
        grouping, _, group = row[0].shown.partition(": ")
        (table,) = [one for one in folded if one.folded.startswith(grouping.capitalize())]
        own = [full for full in table.rows if full[0].shown == group]
        best = min(own, key=lambda full: full[2].sort or 0.0)
        assert len(own) == others and (row[2], row[1]) == best[1:3]
        assert row[3].shown == f"{sum(full[4].shown == 'yes' for full in own)} of {others}"
        assert f"<td>{group}</td>" in page
    for table in folded:
        assert f"<summary>{table.folded}</summary>" in page
        assert f"- {table.folded} (left out here, in `report.html`)\n" in plain
    assert "| p corrected | Different | Queries |" not in plain


def test_labels_in_a_crowd_cover_neither_each_other_nor_a_dot() -> None:
    noise = np.random.default_rng(3)
    places = [*noise.normal((0.4, 0.5), 0.01, (20, 2)), *((0.42 + i / 900, 0.53) for i in range(4))]
    dots = [
        Dot(f"{i:02d} joint_lh 0.05", "", x, y, (0.0, 0.0), i >= 20)
        for i, (x, y) in enumerate(places)
    ]
    spots = {dot: (dot.x * 4000, dot.y * 4000) for dot in dots}
    room = (0.0, 0.0, 3000.0, 3000.0)
    drawn = [ElementTree.fromstring(part) for part in scatter._labels(spots, room, False)]
    words = [(one.text or "") + "".join(inner.tail or "" for inner in one) for one in drawn]
    assert 2 <= len(words) <= len(scatter.named(dots)) <= 6
    assert set(words) <= {dot.name for dot in scatter.named(dots)}
    boxes = [
        scatter._box(
            float(one.attrib["x"]), float(one.attrib["y"]), text, one.attrib["text-anchor"]
        )
        for one, text in zip(drawn, words, strict=True)
    ]
    boxes += [(x - 5, y - 5, x + 5, y + 5) for x, y in spots.values()]
    for i, box in enumerate(boxes[: len(words)]):
        assert not any(scatter._touch(box, other) for other in boxes[i + 1 :])


def test_the_cell_that_dev_chooses_is_told_beside_the_first_on_test(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    select = found.study.select
    assert select is not None
    best = max(found.scored, key=lambda cell: cell.metrics[select.key].mean)
    (words,) = [words for words in answer(found) if words.startswith("Dev chooses")]
    assert best.name in words
    rank = found.scored.index(best) + 1
    assert f"ranks {rank}." in words if rank > 1 else "was not picked on test" in words


def test_a_winner_at_the_end_of_its_range_is_a_threat(tmp_path: Path) -> None:
    text = fake.STUDY.replace("[0.02, 0.1]", "[0.02, 0.1, 0.3]")
    found = results_of(tmp_path, text)
    temperature = found.cells[0].values["loss.temperature"]
    told = [words for words in threats(found) if "At the end of a range" in words]
    assert len(told) == (temperature != 0.1)
    kept = replace(
        found, cells=tuple(c for c in found.cells if c.values["loss.temperature"] == 0.3)
    )
    (words,) = [words for words in threats(kept) if "At the end of a range" in words]
    assert "has the greatest `loss.temperature` that was compared (0.3)" in words


def test_a_metric_that_equals_another_everywhere_is_named_once(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    recall, copy = "pydocs/test/recall_at_10", "pydocs/test/bpref"
    cells = tuple(
        replace(cell, metrics={**cell.metrics, copy: cell.metrics[recall]}) for cell in found.cells
    )
    baselines = {name: {**own, copy: own[recall]} for name, own in found.baselines.items()}
    keys = (*found.metric_keys, copy)
    (table, *_) = other_metrics(
        replace(found, cells=cells, baselines=baselines, metric_keys=keys)
    ).blocks
    assert isinstance(table, Table)
    assert "bpref" not in table.columns and "Recall@10" in table.columns
    assert table.caption.endswith("bpref equals Recall@10")
