"""What stopping trials early costs in false alarms and saves in steps: simulated, or on a sweep.

    python -m tests.bench.stopping                      # every table; a quarter of an hour
    python -m tests.bench.stopping --only null --studies 1000
    python -m tests.bench.stopping replay RUNS STUDY --stop '{rule: asha, among: draws, grace: 8,
        reduction: 3}'

The simulated studies have the variances of `tests.bench.calibration`. `replay` runs a rule over the
looks that the finished trials of a watched study left in a run folder.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml

from ablate.plan.contest import Board, Contest, contest
from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.stops import Look, Rule, Sequential
from ablate.plan.study import read_study
from ablate.run.execution import best_cell, choose
from ablate.run.ledger import Ledger
from ablate.run.stops import kept_looks
from ablate.run.tasks import looks_place, watched_key
from tests.bench.calibration import PATTERNS, Floats, World
from trainables.errors import InvalidInput
from trainables.looks import Looks

CELLS, SEEDS, LOOKS, EVERY = 5, 3, 10, 10
GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
ERROR = 0.05


@dataclass(frozen=True)
class Runner:
    """A trial that could be run: how many steps it takes and what it shows at each look."""

    trial_id: str
    total: int
    looks: Mapping[int, Look]


@dataclass
class Race:
    """What a rule did: trial -> the step and the reason of its stop; steps done and planned."""

    stopped: dict[str, tuple[int, str]] = field(default_factory=dict)
    done: int = 0
    planned: int = 0

    @property
    def saved(self) -> float:
        """Share of the planned steps that were not done."""
        return 1 - self.done / self.planned if self.planned else 0.0


def race(board: Board, runners: Sequence[Runner], slots: int) -> Race:
    """Run the trials in order on so many slots, one step a unit of time, under the board's rule."""
    found, clock = Race(planned=sum(runner.total for runner in runners)), 0
    waiting = list(enumerate(runners))[::-1]
    looks: list[tuple[int, int, int, int]] = []
    by_place = dict(enumerate(runners))

    def begin() -> None:
        if waiting:
            place, runner = waiting.pop()
            for step in sorted({*runner.looks, runner.total}):
                heapq.heappush(looks, (clock + step, place, step, clock))

    for _ in range(slots):
        begin()
    over: set[int] = set()
    while looks:
        clock, place, step, _ = heapq.heappop(looks)
        if place in over:
            continue
        runner, reason = by_place[place], None
        if step in runner.looks:
            board.add(runner.trial_id, step, runner.looks[step])
            reason = board.reason(runner.trial_id, step, runner.total)
        if reason is not None:
            found.stopped[runner.trial_id] = (step, reason)
        if reason is not None or step >= runner.total:
            over.add(place)
            found.done += step
            begin()
    return found


@dataclass(frozen=True)
class Course:
    """Simulated studies that are trained: a world, and how its scores move from look to look.

    `still`: share of the variance of a trial's own taste for queries that stays between looks.
    `gap`: how much worse the last cell is, at every look.
    """

    world: World
    gap: float = 0.0
    still: float = 0.7

    def runners(self, rng: np.random.Generator) -> list[Runner]:
        """The trials of one study, seed by seed; each cell's are called CELL/SEED."""
        world = self.world
        base = world.query * rng.standard_normal(world.queries)
        tastes = world.taste * rng.standard_normal((len(world.noise), world.queries))
        found = []
        for seed in range(world.seeds):
            for cell, noise in enumerate(world.noise):
                shift = noise * world.seed * float(rng.standard_normal())
                own = base + tastes[cell] + shift
                found.append(self._runner(rng, f"{cell}/{seed}", own, cell == len(world.noise) - 1))
        return found

    def _runner(self, rng: np.random.Generator, name: str, own: Floats, bad: bool) -> Runner:
        spread = self.world.interaction
        stays = np.sqrt(self.still) * rng.standard_normal(self.world.queries)
        looks = {}
        for index in range(1, LOOKS + 1):
            moves = np.sqrt(1 - self.still) * rng.standard_normal(self.world.queries)
            # All learn alike: the curve is common to the trials and cancels in every pair.
            learnt = -0.2 * 0.6**index
            scores = self.world._shaped(own + learnt + spread * (stays + moves)) - self.gap * bad
            looks[index * EVERY] = Look(float(scores.mean()), scores)
        return Runner(name, LOOKS * EVERY, looks)


def simulated(course: Course, rule: Rule, rng: np.random.Generator) -> Race:
    """One study of the course under the rule; its trials run side by side, so all are compared."""
    runners = course.runners(rng)
    groups: dict[str, tuple[str, ...]] = {}
    for seed in range(course.world.seeds):
        own = tuple(r.trial_id for r in runners if r.trial_id.endswith(f"/{seed}"))
        groups |= dict.fromkeys(own, own)
    cells = len(course.world.noise)
    pairs = course.world.seeds * cells * (cells - 1)
    field_ = Contest(groups, {name: name for name in groups}, pairs)
    return race(Board(rule, field_, EVERY, 0.0), runners, len(runners))


def false_rate(course: Course, rule: Rule, studies: int, seed: int = 0) -> float:
    """Share of studies in which a trial of a cell that is as good as the best is stopped."""
    rng, wrong = np.random.default_rng(seed), 0
    last = str(len(course.world.noise) - 1)
    for _ in range(studies):
        stopped = simulated(course, rule, rng).stopped
        wrong += any(course.gap == 0 or name.split("/")[0] != last for name in stopped)
    return wrong / studies


def null_table(studies: int) -> Iterator[str]:
    """Rates of false alarms over whole studies in which all cells are equal."""
    bound = ERROR + 1.645 * np.sqrt(ERROR * (1 - ERROR) / studies)
    yield (
        f"Studies that stop a trial of an equal cell: {studies} null studies a case, {CELLS} cells "
        f"x {SEEDS} seeds, {LOOKS - 1} looks"
    )
    yield f"(stated {ERROR:.3f}; one-sided 95 % binomial limit {bound:.3f}; ! = above it)"
    yield f"{'case':44s} {'50':>7s} {'300':>7s} {'2000':>7s}   queries"
    told = Sequential("cells", error=ERROR)
    cases: dict[str, tuple[World, Rule]] = {
        "normal scores": (World(SEEDS, 50), told),
        "reciprocal ranks": (World(SEEDS, 50, shape="mrr"), told),
        "reciprocal ranks, one cell's seeds x 2": (
            World(SEEDS, 50, noise=PATTERNS["one x2"], shape="mrr"), told,
        ),
        "normal, seed_sd stated at half the true one": (
            World(SEEDS, 50), replace(told, seed_sd=0.0025),
        ),
        "normal, seeds not told of (seed_sd 0)": (World(SEEDS, 50), replace(told, seed_sd=0.0)),
    }  # fmt: skip
    for name, (world, rule) in cases.items():
        line = f"{name:44s} "
        for queries in (50, 300, 2000):
            course = Course(replace(world, queries=queries))
            rate = false_rate(course, rule, studies)
            line += f"{rate:7.3f}{'!' if rate > bound else ' '}"
        yield line


def power_table(studies: int) -> Iterator[str]:
    """What is stopped and saved when one of five cells is worse by a gap."""
    few = max(1, studies // 5)
    yield f"One cell of {CELLS} worse by a gap, {few} studies a case, normal scores"
    yield (
        f"{'queries':>8s} {'gap':>6s} {'its trials stopped':>19s} {'others stopped':>15s} "
        f"{'of its steps saved':>19s} {'of all steps':>13s}"
    )
    rule = Sequential("cells", error=ERROR)
    for queries in (300, 2000):
        for gap in GAPS:
            course = Course(World(SEEDS, queries), gap)
            rng, last = np.random.default_rng(1), str(CELLS - 1)
            hit, wrong, own, all_ = 0, 0, 0.0, 0.0
            for _ in range(few):
                found = simulated(course, rule, rng)
                bad = [step for name, (step, _) in found.stopped.items() if name[0] == last]
                hit += len(bad)
                wrong += len(found.stopped) > len(bad)
                own += sum(1 - step / (LOOKS * EVERY) for step in bad) / SEEDS
                all_ += found.saved
            yield (
                f"{queries:8d} {gap:6.3f} {hit / few / SEEDS:19.2f} {wrong / few:15.3f} "
                f"{own / few:19.2f} {all_ / few:13.2f}"
            )


def replay(runs: Path, name: str, stop: Mapping[str, object], slots: int) -> Iterator[str]:
    """What the rule `stop` would have done to a finished, watched study of a run folder."""
    ledger = Ledger(runs)
    plan = _plan(ledger, name, stop)
    chosen = ledger.study(name).choices()
    seen: set[str] = set()
    stopped: dict[str, tuple[int, str]] = {}
    done = planned = 0
    phases = [(list(plan.choose()), False)] * bool(plan.study.tune)
    for trials, again in [*phases, (list(plan.repeat(chosen)), True)]:
        own = [trial for trial in trials if trial.trial_id not in seen]
        seen |= {trial.trial_id for trial in own}
        runners = [r for r in (_runner(plan, ledger, trial) for trial in own) if r is not None]
        found = race(_board(plan, trials, again), runners, slots)
        stopped |= found.stopped
        done, planned = done + found.done, planned + found.planned
        phase = "training" if again else "choosing"
        yield f"{phase}: {len(runners)} of {len(own)} trials have looks, {len(found.stopped)} stop"
    everyone = {t.trial_id: t for t in (*plan.choose(), *plan.repeat(chosen))}
    for trial_id, (_, reason) in stopped.items():
        trial = everyone[trial_id]
        yield f"  {trial_id} {trial.cell} draw {trial.draw} seed {trial.seed}: {reason}"
    saved = 1 - done / planned if planned else 0.0
    yield f"steps: {done:,} of {planned:,} done, {saved:.1%} saved"
    yield from _survivors(plan, ledger, chosen, stopped)


def _survivors(
    plan: Plan,
    ledger: Ledger,
    chosen: Mapping[str, int],
    stopped: Mapping[str, object],
) -> Iterator[str]:
    """Whether the choices and the winner are those of the study that stopped nothing."""
    winner = best_cell(plan, ledger, chosen)
    lost = [t for t in plan.repeat(chosen) if t.cell == winner and t.trial_id in stopped]
    yield (
        f"best cell {winner}: {'survives' if not lost else f'{len(lost)} of its trials stopped'}"
    )
    if not plan.study.tune:
        return
    now = _choice(plan, ledger, stopped)
    before = choose(plan, ledger)
    moved = [cell for cell in before if now.get(cell) != before[cell]]
    yield f"choices: {len(before) - len(moved)} of {len(before)} cells keep their draw"
    for cell in moved:
        yield f"  {cell}: draw {before[cell]} -> {now.get(cell, 'none left')}"


def _choice(plan: Plan, ledger: Ledger, stopped: Mapping[str, object]) -> dict[str, int]:
    """The best draw of each cell among those that the rule let finish."""
    key = plan.study.select.key if plan.study.select else ""
    best: dict[str, tuple[float, int]] = {}
    for trial in plan.choose():
        record = ledger.record(trial.trial_id)
        if record is not None and key in record.metrics and trial.trial_id not in stopped:
            score = record.metrics[key]
            if trial.cell not in best or score > best[trial.cell][0]:
                best[trial.cell] = (score, trial.draw)
    return {cell: draw for cell, (_, draw) in best.items()}


def _plan(ledger: Ledger, name: str, stop: Mapping[str, object]) -> Plan:
    folder = ledger.study(name)
    text, plan = ledger.store.read(f"{folder.path}/study.yaml"), folder.read("plan.json")
    if text is None or plan is None:
        raise SystemExit(f"{name} has not been run in {ledger.store.uri}")
    content = yaml.safe_load(text) | {"stop": dict(stop)}
    if "watch" not in content:
        raise SystemExit(f"{name} was not watched: add watch to its study and run it again")
    study = read_study(yaml.safe_dump(content, sort_keys=False), name, f"{folder.path}/study.yaml")
    return make_plan(study, lambda collection: str(plan["fingerprints"][collection]))


def _board(plan: Plan, trials: Sequence[PlannedTrial], chosen: bool) -> Board:
    study = plan.study
    if study.stop is None or study.watch is None or study.select is None:
        raise SystemExit("the study stops nothing")
    found = contest(plan, trials, study.stop.among, chosen)
    return Board(study.stop, found, study.watch.every, study.select.equal_within or 0.0)


def _runner(plan: Plan, ledger: Ledger, trial: PlannedTrial) -> Runner | None:
    """The trial as it was run to its end; None when it was not, or was not watched."""
    record = ledger.record(trial.trial_id)
    place, key = looks_place(plan, ledger, trial.trial_id), watched_key(plan)
    if record is None or record.state != "finished" or place is None or key is None:
        return None
    looks = dict(kept_looks(ledger, Looks(place), trial.trial_id, key))
    history = ledger.history(trial.trial_id)
    return Runner(trial.trial_id, int(history[-1]["step"]), looks) if looks and history else None


def main() -> None:
    """Print the tables or the replay that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", choices=("null", "power"))
    modes = parser.add_subparsers(dest="mode")
    again = modes.add_parser("replay")
    again.add_argument("runs", type=Path)
    again.add_argument("study")
    again.add_argument("--stop", type=yaml.safe_load, required=True)
    again.add_argument("--slots", type=int, default=2)
    asked = parser.parse_args()
    if asked.mode == "replay":
        try:
            lines = list(replay(asked.runs, asked.study, asked.stop, asked.slots))
        except InvalidInput as error:
            raise SystemExit(str(error)) from None
        sys.stdout.write("\n".join(lines) + "\n")
        return
    start = time.time()
    for name, table in {"null": null_table, "power": power_table}.items():
        if asked.only in (None, name):
            for line in table(asked.studies):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{time.time() - start:.0f} s\n")


if __name__ == "__main__":
    main()
