"""The report: complete, honest, one file, and safe to open."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ablate.learn.report import write_report
from ablate.learn.report.answer import answer
from ablate.learn.report.document import listing, number, plural, probability, scalar, signed
from ablate.learn.report.figures import Row as PlotRow
from ablate.learn.report.figures import Rows, row_plot
from ablate.learn.report.svg import fit, scale
from ablate.learn.report.threats import threats
from ablate.learn.results import Results, collect
from ablate.run.ledger import Ledger
from tests.learn import fake

VOID = {"meta", "br", "img", "hr", "input", "link"}
SECTIONS = (
    "Design", "What was run", "Ranking", "Which differences are real", "Over the grid",
    "Where the winner changes", "What matters", "MRR against recall",
    "All metrics", "Chosen on dev, judged on test", "Learning curves", "Where the gradient goes",
    "One worker against several", "Openings of the test", "Threats to validity", "Methods", "Cite",
    "Reproduce", "Not in this report",
)  # fmt: skip
NASTY = '<script>alert(1)</script> & <b>"quoted"</b> | a'
CONFIRMED = {
    "agree": True, "largest": 2.5e-4, "weights": 7e-7, "cell": "10 lse_pair 0.1", "seed": 0,
    "workers": 2, "one": {"pydocs/test/ndcg_at_10": 0.61}, "group": {"pydocs/test/ndcg_at_10": 0.6},
}  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what refers to somewhere else."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.references += [
            found[name] or "" for name in ("href", "src", "srcset") if name in found
        ]
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.texts.append(data)


def results_of(root: Path, text: str = fake.STUDY, **options: object) -> Results:
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger, **options)  # type: ignore[arg-type]
    return collect(plan, ledger)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A tuned study with a failed trial whose reason is markup, and a confirmation."""
    root = tmp_path_factory.mktemp("runs")
    text = fake.TUNED.replace("question: Which", f"question: '{NASTY} Which").replace(
        "temperature?", "temperature?'"
    )
    plan, ledger = fake.plan_of(text), Ledger(root)
    fake.fill(plan, ledger, failed={"05 joint_lh 0.02 1": f"{NASTY} *star*"})
    ledger.study("losses").write("confirm.json", CONFIRMED)
    return collect(plan, ledger)


@pytest.fixture(scope="module")
def written(tuned: Results, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_report(tuned, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written: tuple[Path, Path]) -> Page:
    return Page(written[0].read_text(encoding="utf-8"))


def test_every_section_is_there(written: tuple[Path, Path], page: Page) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in written)
    for title in SECTIONS:
        assert f"<h2>{title}</h2>" in html
        assert f"\n## {title}\n" in markdown
    assert len(re.findall("<h2>", html)) == len(SECTIONS)
    assert {f"#{anchor}" for anchor in page.ids} >= set(page.references)


def test_the_page_needs_nothing_from_outside(written: tuple[Path, Path], page: Page) -> None:
    html = written[0].read_text(encoding="utf-8")
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    assert re.findall(r"https?://[^\s\"<]+", html) == ["http://www.w3.org/2000/svg"] * html.count(
        "<svg"
    )
    assert "default-src 'none'" in html
    assert written[0].stat().st_size < 500_000
    assert len(set(page.ids)) == len(page.ids)


def test_markup_in_the_data_stays_text(written: tuple[Path, Path], page: Page) -> None:
    html, markdown = (path.read_text(encoding="utf-8") for path in written)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert any(NASTY in text for text in page.texts)
    assert "<script>alert" not in html.replace("<script>\nfor", "")
    assert "<script>" not in markdown
    assert "<b>" not in markdown


def test_figures_are_drawings_with_words_for_them(written: tuple[Path, Path]) -> None:
    html = written[0].read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 2 * 9
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert len(list(root)) > 3
    files = sorted(path.name for path in (written[1].parent / "figures").iterdir())
    assert files == [
        "curves.svg", "differences.svg", "gradients.svg", "grid.svg", "importance.svg",
        "interaction-loss-name-loss-temperature.svg", "means.svg", "pareto.svg",
        "pull-machine.svg",
    ]  # fmt: skip
    for name in files:
        text = (written[1].parent / "figures" / name).read_text(encoding="utf-8")
        assert "prefers-color-scheme" in text
        ElementTree.fromstring(text)
        assert f"](figures/{name})" in written[1].read_text(encoding="utf-8")


def test_markdown_tables_are_rectangular(written: tuple[Path, Path]) -> None:
    lines = written[1].read_text(encoding="utf-8").splitlines()
    tables = 0
    width = 0
    for line in lines:
        if not line.startswith("|"):
            width = 0
            continue
        columns = len(re.findall(r"(?<!\\)\|", line))
        tables += width == 0
        width = width or columns
        assert columns == width, line
    assert tables >= 7


def test_the_same_results_give_the_same_bytes(
    tuned: Results, written: tuple[Path, Path], tmp_path: Path
) -> None:
    again = write_report(tuned, tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]
    assert not list(tmp_path.glob(".*"))


def test_the_numbers_are_those_of_the_results(written: tuple[Path, Path], tuned: Results) -> None:
    markdown = written[1].read_text(encoding="utf-8")
    for cell in tuned.cells:
        summary, gain = tuned.primary_of(cell), cell.gains["untrained"]
        row = next(line for line in markdown.splitlines() if line.startswith(f"| {cell.name} |"))
        assert "failed" in row or cell.name in row
        ranked = [
            line for line in markdown.splitlines() if f"| {cell.name} | {summary.mean:.3f}" in line
        ]
        assert ranked, cell.name
        assert f"{gain.mean:+.3f}".replace("-", "−") in ranked[0]
        assert f"[{summary.low:.3f}, {summary.high:.3f}]" in ranked[0]
    assert f"| bm25 | {tuned.baselines['bm25'][tuned.primary].mean:.3f} |" in markdown
    assert f"± {tuned.seed_noise or 0:.3f}" in markdown


def test_writing_a_report_imports_no_giant(tmp_path: Path) -> None:
    results_of(tmp_path, only=lambda trial: trial.seed == 0)
    code = f"""
import sys
from pathlib import Path
from ablate.learn.report import write_report
from ablate.learn.results import collect
from ablate.run.ledger import Ledger
from tests.learn import fake
plan = fake.plan_of()
write_report(collect(plan, Ledger({str(tmp_path)!r})), Path({str(tmp_path)!r}) / "report")
print(*sorted({{"torch", "ray", "mlflow", "transformers", "datasets", "faiss"}} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


ONE_TEMPERATURE = fake.STUDY.replace("[0.02, 0.1]", "[0.02]")


@pytest.mark.parametrize(
    ("effects", "opening"),
    [
        ({"lse_pair": 0.2}, "**One cell is best.** `05 lse_pair 0.02` scores"),
        ({}, "**Undecided.**"),
        ({"joint_lh": -0.12}, "**Partly decided.**"),
    ],
)
def test_the_answer_is_no_surer_than_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effects: dict[str, float], opening: str
) -> None:
    monkeypatch.setattr(fake, "LOSS_EFFECT", {**dict.fromkeys(fake.LOSS_EFFECT, 0.0), **effects})
    words = answer(results_of(tmp_path, ONE_TEMPERATURE))
    assert words[0].startswith(opening)
    assert words[1].startswith("Dev chooses")
    assert "All 5 cells gain over the untrained encoder" in words[2]
    assert "BM25" in words[2]
    if opening == "**Undecided.**":
        assert "That does not show them to be equal." in words[0]


def test_the_answer_without_scores(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    assert answer(collect(plan, ledger)) == ("**No answer yet.** No cell has a score.",)
    trial = next(iter(plan.repeat()))
    fake.write_trial(ledger, trial, [], {f"{trial.cell} 0": "out of memory"})
    found = collect(plan, ledger)
    assert answer(found) == ("**No answer.** No cell has a score, and 1 trial failed.",)
    html, markdown = write_report(found, tmp_path / "report")
    assert "out of memory" in html.read_text(encoding="utf-8")
    assert "## Ranking" not in markdown.read_text(encoding="utf-8")


def test_the_answer_says_what_is_missing(tmp_path: Path) -> None:
    found = results_of(tmp_path, only=lambda trial: trial.seed == 0)
    words = " ".join(answer(found))
    assert "With one seed per cell this compares the trained encoders, not the methods" in words
    assert "The ranking holds what is there: 10 of 30 trials." in words
    assert found.seed_noise is None
    write_report(found, tmp_path / "report")


@pytest.mark.parametrize("compare", ["", "compare: {loss.name: [joint_lh]}\n"])
def test_a_study_of_one_cell(tmp_path: Path, compare: str) -> None:
    text = re.sub(r"compare:\n.*\n.*\n", compare, fake.STUDY)
    fixed = "  loss.temperature: 0.05\n" + ("" if compare else "  loss.name: joint_lh\n")
    found = results_of(tmp_path, text.replace("  optim.lr", f"{fixed}  optim.lr"))
    assert "It is the only cell with scores" in answer(found)[0]
    html, _ = write_report(found, tmp_path / "report")
    Page(html.read_text(encoding="utf-8"))


def test_one_seed_in_one_cell_is_that_cells_alone(tmp_path: Path) -> None:
    """The others still say how much a training differs from another."""
    plan, ledger = fake.plan_of(fake.STUDY), Ledger(tmp_path)
    lone = plan.cells[0].name
    fake.fill(plan, ledger, only=lambda trial: trial.cell != lone or trial.seed == 0)
    said = [words for words in threats(collect(plan, ledger)) if "seed" in words.partition(".")[0]]
    assert len(said) == 1 and said[0].startswith(f"**One seed in some cells.** `{lone}`:")


CLEAN = (
    fake.TUNED.replace("tune: {optim.lr", "tune: {optim.weight_decay: [0.0, 0.01], optim.lr")
    .replace("  encoder.layers: 2\n", "")
    .replace("[0, 1, 2]", "[0, 1, 2, 3, 4]")
    .replace("  data.machine_labels: minilm-l6\n  data.human_fraction: 0.5\n", "")
)


@pytest.mark.parametrize(
    ("old", "new", "title"),
    [
        ("[0, 1, 2, 3, 4]", "[0]", "**One seed.**"),
        ("[0, 1, 2, 3, 4]", "[0, 1]", "**2 seeds.**"),
        ("optim.lr: {log_uniform: [1.0e-5, 1.0e-3]}", "optim.warmup: [0.1]", "**One learning rate"),
        ("[0.02, 0.1]", "[0.02]", "**One temperature"),
        ("  optim.steps", "  data.group_size: 8\n  optim.steps", "**Unequal negatives.**"),
        ("  loss.temperature", "  data.hard_negatives: [0, 1]\n  loss.temperature", "**Unequal"),
        ("  optim.steps", "  data.noise: 0.2\n  optim.steps", "**Injected noise"),
        ("  optim.steps", "  encoder.layers: 2\n  optim.steps", "**A cut encoder** (2 layers)"),
        ("ndcg_at_10}", "ndcg_at_10, equal_within: 0.0001}", "**A margin finer than the study.**"),
        (
            "  optim.steps",
            "  data.mask_known_positives: false\n  optim.steps",
            "**Positives among the negatives.**",
        ),
        (
            "  optim.steps",
            "  data.machine_labels: minilm-l6\n  data.human_fraction: 0.0\n  optim.steps",
            "**Machine labels are not free of human ones.**",
        ),
    ],
)
def test_threats_follow_from_the_design(old: str, new: str, title: str, tmp_path: Path) -> None:
    assert CLEAN.count(old) >= 1
    text = CLEAN.replace(old, new, 1)
    if "optim.warmup" in new:
        text = text.replace("  optim.batch_size", "  optim.lr: 1.0e-4\n  optim.batch_size")
        text = text.replace("budget: {draws_per_cell: 3}\n", "")
    plan, ledger = fake.plan_of(text), Ledger(tmp_path)
    fake.fill(plan, ledger, only=lambda trial: trial.cell.startswith(("01", "02", "1 ", "2 ")))
    found = threats(collect(plan, ledger))
    assert [words for words in found if words.startswith(title)]


def test_a_clean_design_raises_none_of_them(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(CLEAN), Ledger(tmp_path)
    fake.fill(plan, ledger, only=lambda trial: trial.cell.startswith(("01", "02")))
    titles = [words.split("**")[1].rstrip(".") for words in threats(collect(plan, ledger))]
    assert titles == [
        "Resolution", "Chosen on dev", "One metric decides", "One collection", "A small corpus",
    ]  # fmt: skip


def test_a_reopened_test_is_told(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    opening = {"time": 1.8e9, "references": ["pydocs/test"], "trials": ["a"]}
    ledger.study("losses").open_test(opening, "0001")
    words = threats(collect(plan, ledger))
    assert any(one.startswith("**The test was opened 2 times.**") for one in words)


def test_what_the_data_share_is_told(tmp_path: Path) -> None:
    plan, ledger = fake.plan_of(), Ledger(tmp_path)
    fake.fill(plan, ledger)
    shared = {
        "train": "pydocs/train", "test": "pydocs/test", "test_queries": 12,
        "test_queries_exact": 9, "test_queries_of": 300, "test_passages": 0,
        "test_passages_exact": 0, "test_passages_of": 310, "conflicting": 0,
    }  # fmt: skip
    flaws = {"ref": "pydocs/test", "judgements": 310, "dangling": 0, "conflicting": 0}
    summary = {"collection": "pydocs", "passages": 9214, "lines": []}
    audit = {"overlaps": [shared], "flaws": [flaws]}
    ledger.study("losses").write("data.json", [{**summary, "audit": audit}] * 2)
    (words,) = (one for one in threats(collect(plan, ledger)) if one.startswith("**The data.**"))
    assert words.count("12 of 300 (9 letter by letter) of pydocs/test in pydocs/train") == 1


def test_tables_sort_and_colours_follow_the_reader(written: tuple[Path, Path]) -> None:
    html = written[0].read_text(encoding="utf-8")
    assert html.count('<button type="button">') > 40
    assert "aria-sort" in html
    assert html.count("prefers-color-scheme: dark") == 1
    values = re.findall(r'data-sort="([^"]*)"', html)
    assert values
    assert all(float(one) == float(one) for one in values)


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [-1.0, 2.5], [1e-9, 2e-9], [1e6, 3e6], [-0.04, 0.04], []]
)
def test_scales_hold_their_values_and_have_round_ticks(values: list[float]) -> None:
    axis = scale(values, 10.0, 110.0)
    assert all(10.0 <= axis(value) <= 110.0 for value in values)
    ticks = axis.tick_text(5)
    assert 2 <= len(ticks) <= 11
    assert all(axis.low <= tick <= axis.high for tick, _ in ticks)
    assert len({words for _, words in ticks}) == len(ticks)


def test_long_labels_are_cut_and_kept_whole_for_pointing() -> None:
    assert fit("short", 200) == "short"
    assert len(fit("a" * 100, 100)) <= 14
    assert fit("24 lse_pair human_fraction=0.5 temperature=0.02", 185) == "24 lse_pair…erature=0.02"
    name = "01 a cell with a name that does not fit <into> any column of the figure at all"
    plot = Rows((PlotRow(name, 0.5, 0.4, 0.6, "0.5"),), "axis")
    drawing = row_plot("x", "caption", "label", plot)
    for one in (drawing.wide, drawing.narrow):
        titles = [
            node.text for node in ElementTree.fromstring(one).iter() if node.tag.endswith("title")
        ]
        assert name in titles


def test_words_for_numbers() -> None:
    assert number(-0.1234) == "−0.123"
    assert number(None) == "–"
    assert signed(0.02) == "+0.020"
    assert probability(0.0004) == "< 0.001"
    assert [scalar(one) for one in (None, True, 0.05, 1e-5, 32, "a")] == [
        "null", "true", "0.05", "1e-05", "32", "a",
    ]  # fmt: skip
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcdefghi"), limit=2) == "a, b and 7 more"
    assert [plural(1, "query"), plural(2, "query"), plural(1000, "seed")] == [
        "1 query", "2 queries", "1,000 seeds",
    ]  # fmt: skip
