"""Adaptive search on a made-up objective: fair between cells, the same whatever happens, useful."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ablate.cli.live import LiveView
from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.space import Choice, Integer, LogUniform, Random, Uniform
from ablate.plan.study import read_study
from ablate.run.adaptive import Told, suggest
from ablate.run.execution import choose
from ablate.run.lease import Leases
from ablate.run.ledger import Ledger, Record
from ablate.run.search import Searches
from ablate.run.supply import Supply
from ablate.run.trial import Job
from trainables.spec import Scalar

STUDY = """
question: Does a search find what draws miss?
fixed:
  data.train: {collection}
  encoder.backbone: packaged/all-MiniLM-L6-v2
  optim.batch_size: 6
  optim.steps: 6
compare: {{loss.name: [joint_lh, lse_pair]}}
tune:
  optim.lr: {{log_uniform: [1.0e-6, 1.0e-2]}}
  loss.temperature: {{log_uniform: [0.01, 1.0]}}
repeat: {{seed: [0, 1]}}
budget: {{draws_per_cell: 12, search: adaptive}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
"""
KEY = "tiny/dev/ndcg_at_10"
WANTED = {"tiny/dev": "f"}
Objective = Callable[[PlannedTrial], Record]


@pytest.fixture
def plan(tiny_collection: str) -> Plan:
    return plan_of(tiny_collection)


def plan_of(collection: str, *replaced: tuple[str, str]) -> Plan:
    text = STUDY.format(collection=collection)
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return make_plan(read_study(text, "searched"), lambda name: "content")


def scored(trial: PlannedTrial) -> Record:
    """A quadratic in both logarithms; the optimum of one loss lies far from that of the other."""
    lr, temperature = (float(trial.flat[key]) for key in ("optim.lr", "loss.temperature"))  # type: ignore[arg-type]
    best = (-4.3, -1.4) if trial.flat["loss.name"] == "joint_lh" else (-2.6, -0.3)
    far = (math.log10(lr) - best[0]) ** 2 + (math.log10(temperature) - best[1]) ** 2
    return finished(trial, -far)


def finished(trial: PlannedTrial, score: float) -> Record:
    return Record(
        trial.trial_id, trial.flat, {}, "finished", metrics={KEY: score}, evaluated=WANTED
    )


class Driver:
    """What a driver does to a study's trials, without Ray; they end in an order of their own."""

    def __init__(
        self, plan: Plan, ledger: Ledger, leases: Leases, slots: int = 2, order: int = 0
    ) -> None:
        self.plan = plan.resumed(ledger.study("searched").search)
        self.ledger, self.slots, self._order = ledger, slots, random.Random(order)
        self.trials = {trial.trial_id: trial for trial in self.plan.choose()}
        self.searches = Searches(self.plan, ledger, leases, self._job, lambda: slots)
        pending = [t for t in self.trials.values() if ledger.record(t.trial_id) is None]
        jobs = [self._job(trial) for trial in pending]
        self.supply = Supply(jobs, ledger, leases, lambda record: None, self.searches)
        self.running: list[str] = []
        self.ran: list[str] = []

    def _job(self, trial: PlannedTrial) -> Job:
        self.trials[trial.trial_id] = trial
        return Job(trial.trial_id, trial.cell, trial.seed, {}, {}, {}, (), WANTED)

    def step(self, objective: Objective = scored) -> None:
        """Start what fits, then end one trial."""
        while len(self.running) < self.slots:
            job = self.supply.next()
            if job is None:
                break
            self.running.append(job.trial_id)
        if self.running:
            trial_id = self.running.pop(self._order.randrange(len(self.running)))
            self.ledger.write(objective(self.trials[trial_id]))
            self.supply.end(trial_id)
            self.ran.append(trial_id)


def run(
    plan: Plan,
    root: Path,
    objective: Objective = scored,
    slots: int = 2,
    order: int = 0,
    steps: float = math.inf,
) -> list[str]:
    """The trials that were run, in the order of their ends; `steps` ends the driver early."""
    ledger = Ledger(root)
    with Leases(ledger.store) as leases:
        driver = Driver(plan, ledger, leases, slots, order)
        while not driver.supply.empty and len(driver.ran) < steps:
            driver.step(objective)
    return driver.ran


def resumed(plan: Plan, root: Path) -> Plan:
    return plan.resumed(Ledger(root).study("searched").search)


def draws(plan: Plan, root: Path) -> dict[str, list[Mapping[str, Scalar]]]:
    """Cell name -> what its draws set, in their order."""
    found = resumed(plan, root)
    return {cell.name: list(found.settings(cell).values()) for cell in plan.cells}


def files(root: Path) -> dict[str, bytes]:
    found = sorted((root / "studies" / "searched" / "searches").iterdir())
    assert found
    return {path.name: path.read_bytes() for path in found}


def test_every_cell_gets_as_many_draws_and_the_first_are_shared(plan: Plan, tmp_path: Path) -> None:
    assert (plan.trial_count, plan.to_come, plan.shared_draws) == (26, 16, 4)
    ran = run(plan, tmp_path)
    assert len(ran) == len(set(ran)) == 24
    done = resumed(plan, tmp_path)
    assert (done.trial_count, done.to_come) == (26, 0)
    assert {trial.trial_id for trial in done.choose()} == set(ran)
    first, second = draws(plan, tmp_path).values()
    assert len(first) == len(second) == 12
    shared = [draw.values for draw in plan.draws[:4]]
    assert first[:4] == second[:4] == shared
    assert all(draw not in second for draw in first[4:])
    choices = choose(done, Ledger(tmp_path))
    assert next(done.repeat(choices)).trial_id in ran
    assert done.possible({**choices, "other": 3}) == choices


def test_cells_advance_together(plan: Plan, tmp_path: Path) -> None:
    """The cell with the fewest draws comes first."""
    run(plan, tmp_path, slots=1, steps=14)
    ledger = Ledger(tmp_path)
    found = resumed(plan, tmp_path)
    ended = {cell.name: 0 for cell in plan.cells}
    for trial in found.choose():
        ended[trial.cell] += ledger.record(trial.trial_id) is not None
    assert sorted(ended.values()) == [7, 7]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_the_order_in_which_trials_end_does_not_matter(
    plan: Plan, tmp_path: Path, slots: int
) -> None:
    run(plan, tmp_path / "one", slots=slots, order=1)
    run(plan, tmp_path / "other", slots=slots, order=2)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_a_killed_search_comes_to_the_same_draws_and_repeats_nothing(
    plan: Plan, tmp_path: Path
) -> None:
    run(plan, tmp_path / "undisturbed", slots=3)
    ran: list[str] = []
    for steps in (3, 6, 1, 1, 8, math.inf):
        ran += run(plan, tmp_path / "killed", slots=3, order=len(ran), steps=steps)
    assert len(ran) == len(set(ran)) == 24
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")
    before = files(tmp_path / "killed")
    assert run(plan, tmp_path / "killed") == [] and files(tmp_path / "killed") == before


def test_a_driver_killed_while_it_writes_a_draw_comes_to_it_again(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plan, tmp_path / "undisturbed")

    class Killed(BaseException):
        pass

    replaced = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.parent.name == "searches" and counted(target) == 3:
            raise Killed
        return replaced(self, target)

    def counted(target: Path) -> int:
        return len(json.loads(target.read_bytes())["draws"]) if target.exists() else 0

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            run(plan, tmp_path / "killed")
    assert all(len(json.loads(text)["draws"]) <= 3 for text in files(tmp_path / "killed").values())
    run(plan, tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")


def test_a_damaged_file_is_found_again_from_the_trials(plan: Plan, tmp_path: Path) -> None:
    ran = run(plan, tmp_path)
    before = files(tmp_path)
    name = next(iter(before))
    (tmp_path / "studies" / "searched" / "searches" / name).write_bytes(before[name][:-40])
    assert resumed(plan, tmp_path).to_come == 8
    again = run(plan, tmp_path)
    assert not set(again) & set(ran) and again == []
    assert files(tmp_path) == before


def test_two_drivers_make_one_sequence_and_run_each_trial_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.run.supply.WAIT_SECONDS", 0.0)
    run(plan, tmp_path / "alone")
    ledger = Ledger(tmp_path / "both")
    with Leases(ledger.store) as one, Leases(ledger.store) as other:
        drivers = [
            Driver(plan, ledger, leases, 2, order) for order, leases in enumerate((one, other))
        ]
        while not all(driver.supply.empty for driver in drivers):
            for driver in drivers:
                driver.step()
    ran = [trial for driver in drivers for trial in driver.ran]
    assert len(ran) == len(set(ran)) == 24 and all(driver.ran for driver in drivers)
    assert files(tmp_path / "both") == files(tmp_path / "alone")


def test_other_settings_are_another_search_and_more_draws_are_the_same_one(
    tiny_collection: str, tmp_path: Path
) -> None:
    plan = plan_of(tiny_collection)
    run(plan, tmp_path)
    before, kept = files(tmp_path), draws(plan, tmp_path)
    other = plan_of(tiny_collection, ("optim.steps: 6", "optim.steps: 7"))
    assert resumed(other, tmp_path).to_come == 16
    run(other, tmp_path, steps=12)
    assert before.items() < files(tmp_path).items()
    assert resumed(plan, tmp_path).to_come == 0
    more = plan_of(tiny_collection, ("draws_per_cell: 12", "draws_per_cell: 18"))
    assert resumed(more, tmp_path).shared_draws == 4
    assert len(run(more, tmp_path)) == 12
    assert {name: found[:12] for name, found in draws(more, tmp_path).items()} == kept
    fewer = resumed(plan_of(tiny_collection, ("draws_per_cell: 12", "draws_per_cell: 8")), tmp_path)
    assert [len(fewer.settings(cell)) for cell in fewer.cells] == [8, 8]


def test_it_comes_nearer_than_random_draws() -> None:
    """Over 20 seeds: what the best of 20 draws of two keys lacks, seven of them at random."""
    spaces: dict[str, Random] = {"lr": LogUniform(1e-6, 1e-2), "temperature": LogUniform(0.01, 1.0)}

    def tried(values: Mapping[str, Scalar]) -> Told:
        steps = (
            math.log10(float(values["lr"]) / 1e-4),
            math.log10(float(values["temperature"]) / 0.1),
        )
        return Told(values, -math.hypot(*steps))

    def lack(seed: int, searched: int) -> float:
        dice, told = random.Random(seed), []
        for place in range(20):
            drawn = {key: space.at(dice.random()) for key, space in spaces.items()}
            told.append(
                tried(suggest(spaces, told, 100 * seed + place))
                if place >= searched
                else tried(drawn)
            )
        return min(-one.score for one in told if one.score is not None)

    adaptive, at_random = (sum(lack(seed, first) for seed in range(20)) for first in (7, 20))
    assert adaptive < 0.7 * at_random


def test_what_failed_by_its_own_fault_is_avoided() -> None:
    """Told of it, few suggestions fall where trials fail; with no score to go by, it is chance."""
    spaces: dict[str, Random] = {"optim.lr": LogUniform(1e-6, 1e-2)}
    good = [Told({"optim.lr": lr}, 0.5) for lr in (2e-6, 5e-6, 1.5e-5, 5e-5)]
    failed = [Told({"optim.lr": lr}, None) for lr in (2e-4, 6e-4, 2e-3, 6e-3)]

    def bad(told: list[Told]) -> int:
        return sum(suggest(spaces, told, seed)["optim.lr"] > 1e-4 for seed in range(60))  # type: ignore[operator]

    assert bad(good + failed) < 0.3 * bad(good)
    assert 20 < bad(failed) < 40


def test_lost_trials_teach_nothing_and_cost_no_draw(plan: Plan, tmp_path: Path) -> None:
    def lost(trial: PlannedTrial) -> Record:
        return Record(trial.trial_id, trial.flat, {}, "failed", "its node was lost")

    run(plan, tmp_path, lost)
    assert all(len(found) == 12 for found in draws(plan, tmp_path).values())


def test_small_spaces_give_every_draw_once(tiny_collection: str, tmp_path: Path) -> None:
    """As many draws as random search makes: where a key does not act, and where few are left."""
    tune = "loss.params.normalize: {{choice: [true, false]}}\n  optim.steps: {{choice: [2, 4, 6]}}"
    replaced = (
        ("  optim.steps: 6\n", "  optim.lr: 1.0e-4\n  loss.temperature: 0.1\n"),
        ("  optim.lr: {log_uniform: [1.0e-6, 1.0e-2]}\n", f"  {tune.format()}\n"),
        ("  loss.temperature: {log_uniform: [0.01, 1.0]}\n", ""),
        ("draws_per_cell: 12", "draws_per_cell: 6"),
    )
    plan = plan_of(tiny_collection, *replaced)
    assert [plan.wanted(cell) for cell in plan.cells] == [6, 3]
    ran = run(plan, tmp_path)
    assert len(ran) == len(set(ran)) == 9
    random_plan = plan_of(tiny_collection, *replaced, ("search: adaptive", "search: random"))
    assert {t.trial_id for t in random_plan.choose()} == set(ran)


SPACES: dict[str, Random] = {
    "optim.lr": LogUniform(1e-6, 1e-4),
    "optim.warmup": Uniform(0.0, 0.5),
    "optim.batch_size": Integer(4, 64),
    "encoder.tied": Choice((True, 1, None, "yes", 2.5)),
}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.booleans())
def test_a_suggestion_lies_in_its_space_and_follows_from_what_was_told(
    seed: int, count: int, failures: bool
) -> None:
    generator = random.Random(seed)
    told = [
        Told({key: space.at(generator.random()) for key, space in SPACES.items()}, score)
        for score in [None if failures and i % 3 else generator.random() for i in range(count)]
    ]
    told += [Told(one.values, None, running=True) for one in told[:2]]
    found = suggest(SPACES, told, seed)
    assert suggest(SPACES, told, seed) == found and found.keys() == SPACES.keys()
    for key, value in found.items():
        space = SPACES[key]
        if isinstance(space, Choice):
            assert any(value is one for one in space.values)
        else:
            assert space.low <= value <= space.high  # type: ignore[operator]
            assert type(value) is (int if isinstance(space, Integer) else float)
            assert value == float(f"{value:.6g}")


def test_a_key_that_did_not_act_is_left_out_of_what_is_told() -> None:
    told = [Told({"optim.lr": 1e-5}, 0.5), Told({"optim.lr": 2e-5, "optim.warmup": 0.1}, 0.6)]
    assert suggest(SPACES, told, 0).keys() == SPACES.keys()


def test_the_live_view_counts_what_is_to_come(plan: Plan) -> None:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=120), KEY)
    first, second, *_ = plan.choose()
    jobs = [Job(first.trial_id, first.cell, 0, {}, {}, {}, ())]
    with view.phase("choosing on dev", jobs, 1, to_come=2):
        view.started(first.trial_id)
        view.ended(scored(first))
        jobs.append(Job(second.trial_id, second.cell, 0, {}, {}, {}, ()))
        view.started(second.trial_id)
        view.ended(scored(second))
    assert [line.partition("]")[0] for line in out.getvalue().splitlines()] == ["[1/3", "[2/3"]
