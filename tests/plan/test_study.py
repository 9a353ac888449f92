"""A study is read whole, or every mistake in it is listed with its line."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from ablate.plan import known
from ablate.plan.parts import Axis, Budget, Cell, Confirm, Resources, Select, Watch
from ablate.plan.planner import make_plan
from ablate.plan.space import Grid, LogUniform
from ablate.plan.study import load_study, narrow, one_trial
from ablate.plan.written import write_study
from tests.plan.conftest import BUNDLE, STUDY, Read, problems_of
from trainables.data.collections import Ref, parse_ref
from trainables.errors import InvalidInput

MISTAKEN = """\
question:
fixed:
  data.train: tinny
  encoder.backbone: packaged/all-MiniLM-L6-v3
  optim.batchsize: 8
  optim.steps: 20.5
  optim.steps: 5
  optim.lr: 1e-6
  data.human_fraction: 1.5
  encoder: {layers: 2}
compare:
  loss.name: [joint_lh, jointlh]
  loss.temperature: {log_uniform: [0.2, 0.1]}
  data.mixing: [replce]
tune:
  optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}
  optim.warmup: {log_unifrm: [0.1, 0.5]}
  optim.batch_size: {uniform: [8, 16]}
repeat: {seed: [0, 0]}
budget: {draws_per_cel: 3}
select: {maximize: tiny/test/mrr_at_10}
evaluate: [tiny/tst, tiny/test]
resorces: {workers: 1}
resources: {workers: 0}
"""

EXPECTED = [
    (1, "question", "must be text"),
    (3, "data.train", "is neither an existing path nor a built-in collection"),
    (4, "encoder.backbone", "did you mean 'packaged/all-MiniLM-L6-v2'?"),
    (5, "optim.batchsize", "did you mean 'optim.batch_size'?"),
    (6, "optim.steps", "should be a valid integer (got 20.5)"),
    (7, "optim.steps", "is written twice, first on line 6"),
    (8, "optim.lr", "is a number that YAML read as text; write 1.0e-06 (got '1e-6')"),
    (9, "data.human_fraction", "should be less than or equal to 1 (got 1.5)"),
    (10, "encoder", "write them with dots, such as encoder.backbone"),
    (12, "loss.name", "did you mean 'joint_lh'?"),
    (13, "loss.temperature", "is compared and needs a list of values"),
    (14, "data.mixing", "did you mean 'replace'?"),
    (16, "optim.lr", "stands in tune and in fixed (study.yaml:8); it belongs in one"),
    (17, "optim.warmup", "did you mean 'log_uniform'?"),
    (18, "optim.batch_size", "takes whole numbers; write {integer: [low, high]}"),
    (19, "seed", "is listed twice (got 0)"),
    (20, "budget.draws_per_cel", "did you mean 'draws_per_cell'?"),
    (21, "select.maximize", "selects on the split 'test'; only a dev or validation split"),
    (22, "evaluate", "did you mean 'test'?"),
    (23, "resorces", "did you mean 'resources'?"),
    (24, "resources.workers", "should be greater than or equal to 1 (got 0)"),
]


def test_every_mistake_of_a_file_is_listed_with_its_line(read: Read) -> None:
    found = problems_of(read, text=MISTAKEN)
    for problem, (line, key, rule) in zip(found, EXPECTED, strict=True):
        assert problem.startswith(f"study.yaml:{line}: {key}: ")
        assert rule in problem


def test_a_valid_study_is_read_whole(read: Read) -> None:
    study = read()
    assert study.name == "study"
    assert study.question == "Which loss ranks best?"
    assert study.fixed["optim.steps"] == 20
    assert study.compare[1] == Axis(
        "loss.temperature", ({"loss.temperature": 0.02}, {"loss.temperature": 0.1})
    )
    assert study.tune == {"optim.lr": LogUniform(1e-6, 1e-4)}
    assert study.seeds == (0, 1, 2)
    assert study.budget == Budget(draws_per_cell=4, seed=0)
    assert study.select == Select(Ref("tiny", "dev"), "mrr_at_10")
    assert study.select.key == "tiny/dev/mrr_at_10"
    assert study.references == (Ref("tiny", "dev"), Ref("tiny", "test"))
    assert study.resources == Resources(1, 1.0, 0.0, None)
    assert study.confirm is None
    assert pickle.loads(pickle.dumps(study)) == study


def test_values_are_stored_as_trials_store_them(read: Read) -> None:
    study = read(("optim.steps: 20", "optim.epochs: 3"), ("[0.02, 0.1]", "[1, 2]"))
    assert type(study.fixed["optim.epochs"]) is float
    assert [type(value) for value in study.listed("loss.temperature")] == [float, float]


def test_thresholds_of_one_split_are_told_apart(read: Read) -> None:
    study = read(("[tiny/test]", "[tiny/test, tiny/test>=2, tiny/dev>=2]"))
    assert [ref.label for ref in study.references] == [
        "tiny/dev", "tiny/test", "tiny/test:grade-2", "tiny/dev:grade-2"
    ]  # fmt: skip
    select = read(("tiny/dev/mrr_at_10", "tiny/dev>=2/mrr_at_10")).select
    assert select is not None and select.key == "tiny/dev:grade-2/mrr_at_10"


def test_judges_and_what_is_watched_are_read_and_written(read: Read) -> None:
    lines = "evaluate: [tiny/test:weak>=2, tiny/dev:weak]\n"
    lines += "watch: {split: tiny/dev, every: 10, passages: 2}\n"
    study = read(("evaluate: [tiny/test]\n", lines))
    assert [str(ref) for ref in study.references] == ["tiny/dev:weak", "tiny/test:weak>=2"]
    assert study.watch is not None and study.watch.label == "tiny/dev:2-passages"
    assert read(text=write_study(study)) == study
    assert read(sets={"watch.split": "tiny/dev", "watch.every": "5"}).watch == Watch(
        study.watch.ref, 5
    )
    trials = [[t.trial_id for t in make_plan(s).trials()] for s in (study, read())]
    assert trials[0] == trials[1]


CASES: list[tuple[tuple[str, str], str]] = [
    (("question: Which loss ranks best?\n", ""), "study.yaml: question: is missing"),
    (("  optim.steps: 20\n", ""), "study.yaml: optim: exactly one of steps and epochs"),
    (("steps: 20", "steps: 20\n  optim.epochs: 2"), "study.yaml:6: optim: exactly one of steps"),
    (("  loss.temperature: [0.02, 0.1]\n", ""), "study.yaml: loss.temperature: is missing"),
    (("  data.train: tiny\n", ""), "study.yaml: data.train: is missing and has no default"),
    (("data.train: tiny", "data.train: tiny/tset"), "study.yaml:3: data.train: split of tiny"),
    (
        ("steps: 20", "steps: 20\n  data.human_fraction: 0.5"),
        "study.yaml:7: data: human_fraction below 1 needs machine_labels",
    ),
    (
        ("steps: 20", "steps: 20\n  data.machine_labels: weka"),
        "study.yaml:7: data.machine_labels: is unknown; known: minilm-l6, weak (got 'weka'); "
        "did you mean 'weak'?",
    ),
    (
        ("steps: 20", "steps: 20\n  data.human_labels: weka"),
        "study.yaml:7: data.human_labels: is unknown; known: qrels, weak (got 'weka')",
    ),
    (
        ("steps: 20", "steps: 20\n  data.machine_labels: weak>=high"),
        "data.machine_labels: the grade after '>=' must be a whole number",
    ),
    (
        ("steps: 20", "steps: 20\n  data.group_size: 8\n  data.hard_negatives: 2"),
        "study.yaml:7: data: hard_negatives must be 0 under group_size, which sets the number",
    ),
    (
        ("packaged/all-MiniLM-L6-v2", "./nowhere"),
        "study.yaml:4: encoder.backbone: must be a folder with config.json (got './nowhere')",
    ),
    (("optim.steps: 20", "optim.steps: [1, 2]"), "is fixed and takes one value"),
    (("optim.steps: 20", "seed: 3"), "study.yaml:6: seed: belongs in repeat, not in fixed"),
    (("[joint_lh, sum_marg_lh]", "joint_lh"), "loss.name: is compared and needs a list"),
    (("[joint_lh, sum_marg_lh]", "[]"), "loss.name: is compared and needs a list of values"),
    (("[joint_lh, sum_marg_lh]", "[joint_lh, joint_lh]"), "loss.name: is listed twice"),
    (("[0.02, 0.1]", "[1, 1.0]"), "study.yaml:9: loss.temperature: is listed twice (got 1.0)"),
    (("[0.02, 0.1]", "[0, 0.1]"), "loss.temperature: should be greater than 0 (got 0)"),
    (("[0.02, 0.1]", "[yes, 0.1]"), "loss.temperature: should be a valid number (got True)"),
    (
        ("[0.02, 0.1]", "[0.02]\n  loss.params.positives: [min]"),
        "study.yaml:10: loss.params.positives: is a parameter of lse_pair, which this study does",
    ),
    (
        ("{log_uniform: [1.0e-6, 1.0e-4]}", "1.0e-4"),
        "optim.lr: has one value and is not tuned; write it in fixed (got 0.0001)",
    ),
    (
        ("{log_uniform: [1.0e-6, 1.0e-4]}", "[1.0e-5, 1.0e-4]"),
        "study.yaml:13: budget.draws_per_cell: counts random draws, and tune draws nothing",
    ),
    (("log_uniform: [1.0e-6", "log_uniform: [-1"), "log_uniform: `0 < low` must hold"),
    (("log_uniform: [1.0e-6, 1.0e-4]", "integer: [1, 2]"), "takes real numbers; write {uniform"),
    (("{draws_per_cell: 4}", "{}"), "budget.draws_per_cell: is missing: optim.lr is drawn"),
    (("draws_per_cell: 4", "draws_per_cell: 0"), "should be greater than or equal to 1 (got 0)"),
    (("draws_per_cell: 4", "draws_per_cell: 1e3"), "write 1000.0 (got '1e3')"),
    (("draws_per_cell: 4", "draws_per_cell: 100000000"), "at most 1,000,000 are allowed"),
    (
        ("{log_uniform: [1.0e-6, 1.0e-4]}", "{choice: [1.0e-5, 1.0e-4]}"),
        "budget.draws_per_cell: asks for more draws than there are: 2 distinct ones",
    ),
    (("repeat: {seed: [0, 1, 2]}\n", ""), "study.yaml: repeat: is missing"),
    (("{seed: [0, 1, 2]}", "{seed: 3}"), "seed: needs a list of whole numbers"),
    (("{seed: [0, 1, 2]}", "{seed: [0, 1.5]}"), "study.yaml:12: seed: should be a valid integer"),
    (("{seed: [0, 1, 2]}", "{seed: [-1]}"), "seed: should be greater than or equal to 0"),
    (("{seed: [0, 1, 2]}", "{seed: [1], fold: [2]}"), "fold: cannot be repeated"),
    (("select: {maximize: tiny/dev/mrr_at_10}\n", ""), "select.maximize: is missing: tune"),
    (("{maximize: tiny", "{maximise: tiny"), "did you mean 'maximize'?"),
    (("mrr_at_10", "mrr@10"), "select.maximize: is unknown; known: mrr_at_K"),
    (("mrr_at_10", "mrr_at_2000"), "reads below the end of a run, which is 1000 deep"),
    (
        ("evaluate: [tiny/test]", "evaluate: [tiny/test:waek]"),
        "evaluate: is unknown; known: minilm-l6, weak (got 'waek'); did you mean 'weak'?",
    ),
    (("evaluate: [tiny/test]", "evaluate: ['tiny/test:']"), "must name each judge once after ':'"),
    (
        ("budget:", "watch: {split: tiny/dev}\nbudget:"),
        "watch.every: is missing and has no default",
    ),
    (("budget:", "watch: {every: 5}\nbudget:"), "watch.split: is missing and has no default"),
    (
        ("budget:", "watch: {split: tiny/test, every: 5}\nbudget:"),
        "watch.split: watches the split 'test'; only a dev or validation split may be watched",
    ),
    (
        ("budget:", "watch: {split: tiny/train, every: 5}\nbudget:"),
        "watch.split: is neither the split that selects nor one of evaluate",
    ),
    (
        ("budget:", "watch: {split: tiny/dev, every: 5, passages: 3}\nbudget:"),
        "watch.passages: must be 1 (the judged passages of tiny/dev) to 2 (got 3)",
    ),
    (("budget:", "watch: {split: tiny/dev, evry: 5}\nbudget:"), "did you mean 'every'?"),
    (("mrr_at_10", "unjudged_at_10"), "is better when it is small"),
    (("tiny/dev/mrr_at_10", "mrr_at_10"), "must be a split and a metric"),
    (("tiny/dev/mrr_at_10", "tini/dev/mrr_at_10"), "is neither an existing path nor a built-in"),
    (("evaluate: [tiny/test]\n", ""), "study.yaml: evaluate: is missing"),
    (("[tiny/test]", "tiny/test"), "evaluate: must list splits"),
    (("[tiny/test]", "[tiny]"), "names a collection without a split; its splits: dev, test, train"),
    (("[tiny/test]", "[tiny/test, tiny/test]"), "is the second split called tiny/test"),
    (("[tiny/test]", "[tiny/train, tiny/test]"), "evaluate: is the split that is trained on"),
    (("evaluate:", "resources: {workers: 1.5}\nevaluate:"), "resources.workers: should be a valid"),
    (("evaluate:", "resources: {gpu: 1}\nevaluate:"), "resources.gpu: is not a key of resources"),
    (("evaluate:", "confirm: {workers: 1}\nevaluate:"), "confirm.workers: should be greater than"),
    (("evaluate:", "exclude: {}\nevaluate:"), "exclude: must be a list of {when, reason}"),
    (("evaluate:", "exclude: [{when: {}}]\nevaluate:"), "holds exactly when and reason"),
    (("evaluate:", "loss.name: joint_lh\nevaluate:"), "loss.name: stands outside the blocks"),
    (("fixed:\n", "fixed: 3\nx:\n"), "fixed: must be a mapping of keys (got 3)"),
]


@pytest.mark.parametrize(("replaced", "message"), CASES)
def test_each_mistake_is_named(read: Read, replaced: tuple[str, str], message: str) -> None:
    found = problems_of(read, replaced)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize("text", ["", "3", "[1, 2]", "just words"])
def test_a_file_that_is_no_mapping_is_said_to_be_none(read: Read, text: str) -> None:
    assert "must be a mapping of blocks" in problems_of(read, text=text)[0]


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"question: caf\xe9\n")
    for name, rule in (("missing.yaml", "No such file"), ("latin.yaml", "is not UTF-8")):
        with pytest.raises(InvalidInput, match=rule):
            load_study(str(tmp_path / name))


def test_the_label_sources_that_can_be_made_are_those_of_prepare() -> None:
    from trainables.prepare.annotators import ANNOTATORS

    assert tuple(ANNOTATORS) == known.ANNOTATORS


@pytest.mark.parametrize(
    ("split", "selects"),
    [("dev", True), ("validation", True), ("train", True), ("dev-small", True), ("test", False),
     ("dl19", False), ("development", False), ("testdev", False)],
)  # fmt: skip
def test_the_name_of_a_split_says_whether_it_may_select(split: str, selects: bool) -> None:
    assert known.is_dev(Ref("any", split)) is selects


def test_exclusions_leave_out_cells_with_a_reason(read: Read) -> None:
    rule = "exclude: [{when: {loss.name: joint_lh, loss.temperature: [0.02]}, reason: too cold}]\n"
    study = read(("evaluate:", f"{rule}evaluate:"))
    assert [cell.name for cell in study.cells()] == [
        "02 joint_lh 0.1",
        "03 sum_marg_lh 0.02",
        "04 sum_marg_lh 0.1",
    ]
    out = Cell("01 joint_lh 0.02", {"loss.name": "joint_lh", "loss.temperature": 0.02})
    assert study.excluded() == ((out, "too cold"),)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{loss.nme: joint_lh}", "is not compared; compared: loss.name, loss.temperature"),
        ("{optim.lr: 1.0e-5}", "optim.lr: is not compared"),
        ("{loss.name: jointlh}", "is not among the compared values joint_lh, sum_marg_lh"),
        ("{loss.name: [joint_lh, sum_marg_lh]}", "leaves out every cell"),
        ("3", "must map compared keys to values"),
    ],
)
def test_exclusions_that_cannot_be_meant_are_refused(read: Read, when: str, message: str) -> None:
    rule = f"exclude: [{{when: {when}, reason: none}}]\n"
    found = problems_of(read, ("evaluate:", f"{rule}evaluate:"))
    assert any(message in problem for problem in found), found


def test_a_loss_keeps_its_own_parameters_to_itself(read: Read) -> None:
    study = read(
        ("[joint_lh, sum_marg_lh]", "[joint_lh, lse_pair]"),
        ("[0.02, 0.1]", "[0.1]\n  loss.params.positives: [all, min]"),
    )
    assert [cell.name for cell in study.cells()] == [
        "01 joint_lh 0.1",
        "02 lse_pair 0.1 positives=all",
        "03 lse_pair 0.1 positives=min",
    ]
    assert "loss.params.positives" not in study.cells()[0].values


def test_narrowing_keeps_numbers_and_names(read: Read) -> None:
    study = narrow(read(), {"loss.name": "sum_marg_lh", "loss.temperature": "[0.1]"})
    assert [cell.name for cell in study.cells()] == ["04 sum_marg_lh 0.1"]
    assert study.only == {"loss.name": ("sum_marg_lh",), "loss.temperature": (0.1,)}


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"loss.name": "summarglh"}, "did you mean 'sum_marg_lh'?"),
        ({"optim.lr": "1.0e-5"}, "optim.lr: is not compared"),
        ({"loss.name": "[joint_lh"}, "YAML"),
    ],
)
def test_narrowing_to_what_is_not_there_is_refused(
    read: Read, only: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        narrow(read(), only)
    assert message in str(caught.value)


def test_one_trial_is_left_when_everything_is_set(read: Read) -> None:
    sets = {"loss.name": "joint_lh", "loss.temperature": "0.1", "optim.lr": "1.0e-5"}
    spec = one_trial(read(sets=sets))
    assert (spec.loss.name, spec.loss.temperature, spec.optim.lr) == ("joint_lh", 0.1, 1e-5)
    assert spec.seed == 0
    with pytest.raises(InvalidInput) as caught:
        one_trial(read(sets={"loss.temperature": "0.1"}))
    assert [problem.key for problem in caught.value.problems] == ["loss.name", "optim.lr"]


def test_a_written_study_reads_back_equal(read: Read) -> None:
    studies = [
        read(),
        read(("\n  loss.name: [joint_lh, sum_marg_lh]\n", BUNDLE)),
        read(
            ("{log_uniform: [1.0e-6, 1.0e-4]}", "[1.0e-6, 1.0e-4]"),
            ("budget: {draws_per_cell: 4}\n", "confirm: {workers: 2}\n"),
            ("evaluate:", "exclude: [{when: {loss.name: joint_lh}, reason: cold}]\nevaluate:"),
        ),
    ]
    assert studies[2].confirm == Confirm(2)
    assert studies[2].tune == {"optim.lr": Grid((1e-6, 1e-4))}
    for study in studies:
        assert read(text=write_study(study)) == study


def test_the_name_of_a_study_is_its_file_name(tiny: Path) -> None:
    (tiny / "mine.yaml").write_text(STUDY, encoding="utf-8")
    assert load_study(str(tiny / "mine.yaml")).name == "mine"
    assert load_study("mine.yaml", {"optim.steps": "5"}).fixed["optim.steps"] == 5


def test_supplied_negatives_must_be_there(read: Read, tiny: Path) -> None:
    asked = ("  optim.steps: 20\n", "  optim.steps: 20\n  data.negatives: supplied\n")
    with pytest.raises(InvalidInput) as caught:
        read(asked)
    (problem,) = caught.value.problems
    assert problem.key == "data.negatives" and "labels/negatives.tsv" in problem.rule
    (tiny / "tiny" / "labels" / "negatives.tsv").write_text("a\ta\t0\n", encoding="utf-8")
    assert read(asked).fixed["data.negatives"] == "supplied"


def test_a_judge_needs_no_split_to_train_on(tiny_collection: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_collection, tmp_path / "judged")
    (folder / "qrels" / "train.tsv").unlink()
    refs, problems = known.check_refs("evaluate", f"{folder}/test:weak", "study.yaml:1")
    assert [ref.label for ref in refs] == ["judged/test"] and not problems
    _, (problem,) = known.check_refs("evaluate", f"{folder}/test:week", "study.yaml:1")
    assert problem.nearest == "weak"


def test_a_part_holds_the_judged_passages_that_are_there(tiny_collection: str) -> None:
    ref = parse_ref(f"{tiny_collection}/dev")
    with (Path(tiny_collection) / "qrels" / "dev.tsv").open(encoding="utf-8") as file:
        judged = len({line.split("\t")[1] for line in file}) - 1
    sizes = (judged - 1, judged, 59, 60)
    found = [known.check_part("watch.passages", size, ref, None) for size in sizes]
    assert [len(problems) for problems in found] == [1, 0, 0, 1]
    assert found[0][0].rule == f"must be {judged} (the judged passages of tiny/dev) to 59"
