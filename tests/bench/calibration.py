"""Does `ablate.learn.stats.compare` keep its word? False differences and power, by simulation.

    python tests/bench/calibration.py                  # every table, an hour or two on one core
    python tests/bench/calibration.py --only null --studies 300
    python tests/bench/calibration.py --ledger RUNS --key nfcorpus/test/mrr_at_10

Variances are the constants below, measured on retrievers fine-tuned on nfcorpus (four losses,
MRR@10), or with --ledger those of the finished trials of a run folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from ablate.learn.stats import cell_summaries, compare
from ablate.learn.stats.cells import positions, reduce
from ablate.learn.stats.errors import Contrasts, Errors
from ablate.learn.stats.family import family
from ablate.learn.stats.seeds import variance_components

Floats = NDArray[np.float64]
SEEDS = (2, 3, 5, 10)
QUERIES = (50, 300, 7000)
PATTERNS: Mapping[str, tuple[float, ...]] = {
    "equal": (1, 1, 1, 1, 1),
    "one x2": (1, 1, 1, 1, 2),
    "one x3": (1, 1, 1, 1, 3),
    "two x2": (1, 1, 1, 2, 2),
    "spread": (0.5, 0.7, 1, 1.4, 2),
}
"""Standard deviation of each cell's seed effect, over the usual one."""


@dataclass(frozen=True)
class World:
    """Where simulated studies come from; standard deviations in units of the metric.

    `seed`: shared by all queries of a trial. `interaction`: of single queries from seed to seed.
    `taste`: a cell's own liking for single queries. `query`: between queries. `shape`: `normal`
    scores, or `mrr`, in which the same sum is a latent rank and the score 1/rank down to 10.
    """

    seeds: int
    queries: int
    noise: tuple[float, ...] = PATTERNS["equal"]
    seed: float = 0.005
    interaction: float = 0.11
    taste: float = 0.07
    query: float = 0.41
    shape: str = "normal"
    tail: float = np.inf
    """Degrees of freedom of the seed effects' t distribution; infinite for a normal one."""
    uneven: bool = False
    """Whether the cells have seeds, seeds + 1, seeds + 2 ... seeds rather than all the same."""

    def study(self, rng: np.random.Generator, gain: float = 0.0) -> dict[str, Floats]:
        """One study of equal cells, but for the first, whose every score is higher by `gain`."""
        base = self.query * rng.standard_normal(self.queries)
        scores = {}
        for index, noise in enumerate(self.noise):
            seeds = self.seeds + index * self.uneven
            latent = self.interaction * rng.standard_normal((seeds, self.queries))
            latent += base + self.taste * rng.standard_normal(self.queries)
            latent += noise * self.seed * self._seed_effects(rng, seeds)
            scores[f"cell {index}"] = self._shaped(latent) + gain * (index == 0)
        return scores

    def _seed_effects(self, rng: np.random.Generator, seeds: int) -> Floats:
        """[seeds, 1] of variance 1."""
        if np.isinf(self.tail):
            return rng.standard_normal((seeds, 1))
        unit = np.sqrt((self.tail - 2) / self.tail)
        return np.asarray(unit * rng.standard_t(self.tail, (seeds, 1)))

    def _shaped(self, latent: Floats) -> Floats:
        if self.shape == "normal":
            return latent
        # A latent slope of 5 makes the scores scatter about as far as the latent sum does.
        rank = np.ceil(np.exp(1.5 - 5 * latent))
        return np.asarray(np.where(rank <= 10, 1 / np.maximum(rank, 1), 0.0))

    def oracle_variances(self) -> Floats:
        """[cells] true variance of each cell's mean, but for what all cells share."""
        noise = np.array(self.noise) * self.seed
        queries = self.taste**2 + self.interaction**2 / self.seeds
        return np.asarray(noise**2 / self.seeds + queries / self.queries)


def all_pairs(scores: Mapping[str, Floats]) -> list[tuple[str, str]]:
    """Every pair of cells."""
    return list(combinations(scores, 2))


def decide(scores: Mapping[str, Floats], pairs: Sequence[tuple[str, str]], seed: int) -> Floats:
    """Adjusted p-values as `compare` gives them, from fewer draws."""
    cells = reduce(scores)
    errors = Errors(cells, Contrasts.pairs(positions(cells, pairs)), seed, draws=1024, joint=2)
    return family(errors, 0.05).p_adjusted


def false_rate(
    world: World, studies: int, seed: int = 0, alpha: float = 0.05, gain: float = 0.0
) -> float:
    """Share of studies in which a pair of equal cells is called different.

    With a `gain` for the first cell, only the pairs without it are equal.
    """
    rng = np.random.default_rng(seed)
    wrong = 0
    for index in range(studies):
        scores = world.study(rng, gain)
        pairs = all_pairs(scores)
        called = decide(scores, pairs, index) <= alpha
        equal = np.array([gain == 0 or "cell 0" not in pair for pair in pairs])
        wrong += bool((called & equal).any())
    return wrong / studies


def power(
    world: World, studies: int, oracle: float, seed: int = 0, alpha: float = 0.05
) -> tuple[float, float]:
    """The gain at which the oracle sees (cell 0, cell 1) differ with power `oracle`, and ours.

    The oracle knows all variances and the correlation of the pairs, and corrects by max-T too.
    """
    rng = np.random.default_rng(seed)
    variances = world.oracle_variances()
    a, b = np.array(list(combinations(range(len(variances)), 2))).T
    errors = rng.standard_normal((200_000, len(variances))) * np.sqrt(variances)
    spread = np.sqrt(variances[a] + variances[b])
    limit = float(
        np.quantile((np.abs(errors[:, a] - errors[:, b]) / spread).max(axis=1), 1 - alpha)
    )
    gain = (limit + float(special.ndtri(oracle))) * float(spread[0])
    seen = 0
    for index in range(studies):
        scores = world.study(rng, gain)
        seen += bool(decide(scores, all_pairs(scores), index)[0] <= alpha)
    return gain, seen / studies


def null_table(world: World, studies: int) -> Iterator[str]:
    """Rates of false differences for seeds x queries x pattern of noise."""
    bound = 0.05 + 1.645 * np.sqrt(0.05 * 0.95 / studies)
    yield f"Family-wise rate of false differences, {studies} null studies of 5 cells, 10 pairs"
    yield f"(stated 0.050; one-sided 95 % binomial limit {bound:.3f}; ! = above it)"
    yield f"{'noise':8s} {'shape':7s} " + " ".join(
        f"{s:>2d}x{q:<5d}" for s in SEEDS for q in QUERIES
    )
    cases = [(name, "normal") for name in PATTERNS] + [("equal", "mrr"), ("one x2", "mrr")]
    for name, shape in cases:
        line = f"{name:8s} {shape:7s} "
        for seeds in SEEDS:
            for queries in QUERIES:
                here = replace(
                    world, seeds=seeds, queries=queries, noise=PATTERNS[name], shape=shape
                )
                rate = false_rate(here, studies)
                line += f"{rate:.3f}{'!' if rate > bound else ' '}   "
        yield line


def bound_table(world: World, studies: int) -> Iterator[str]:
    """What the best valid test could reach; a calculation, in which `studies` plays no part."""
    yield "Upper bound on power over the oracle's, for any test whose level holds for every seed"
    yield "variance, told that all cells are equally noisy (linear program)"
    yield f"{'oracle':8s} " + " ".join(f"{s:>2d}x{q:<5d}" for s in SEEDS for q in QUERIES)
    for oracle in (0.5, 0.8, 0.95):
        line = f"{oracle:<8.2f} "
        for seeds in SEEDS:
            for queries in QUERIES:
                best = best_power(replace(world, seeds=seeds, queries=queries), oracle)
                line += f"{best / oracle:.2f}     "
        yield line


def best_power(world: World, oracle: float, alpha: float = 0.05) -> float:
    """Most power that any level-alpha test has at the gain where the oracle's is `oracle`.

    One pair, seen through its difference and the pooled variance of the seeds' means, everything
    else known: a rejection region in that plane that maximises power at the true seed variance
    while its level holds on a grid of seed variances. The level is that of one pair under Tukey's
    range test of all cells with the pooled degrees of freedom. Units: the interaction's variance
    over the queries, so that the seeds' means scatter by 1 + excess.
    """
    cells = len(world.noise)
    freedom = cells * (world.seeds - 1)
    limit = stats.studentized_range.ppf(1 - alpha, cells, freedom) / np.sqrt(2)
    level = 2 * stats.t.sf(limit, freedom)
    known = 1 + world.seeds * (world.taste / world.interaction) ** 2
    truth = world.queries * (world.seed / world.interaction) ** 2
    logs = np.linspace(np.log(1e-3), np.log(3e3), 140)
    spreads = np.concatenate([[0], np.exp((logs[1:] + logs[:-1]) / 2), [np.inf]])
    far = 8 * np.exp(np.linspace(0, np.log(60), 60))
    edges = np.concatenate([np.linspace(0, 8, 120, endpoint=False), far, [np.inf]])

    def chances(excess: float, gain: float) -> Floats:
        sd = np.sqrt(excess + known)
        x = edges * np.sqrt(known)
        of_spread = np.diff(stats.chi2.cdf(spreads * freedom / (excess + 1), freedom))
        of_x = np.diff(stats.norm.cdf((x - gain) / sd) - stats.norm.cdf((-x - gain) / sd))
        return np.asarray(np.outer(of_spread, of_x).ravel())

    excesses = [0.0, *np.exp(np.linspace(np.log(0.03), np.log(300), 28))]
    levels = np.array([chances(excess, 0.0) for excess in excesses])
    wanted = stats.studentized_range.ppf(1 - alpha, cells, np.inf) / np.sqrt(2)
    gain = (wanted + special.ndtri(oracle)) * np.sqrt(truth + known)
    found = optimize.linprog(
        -chances(truth, gain), A_ub=levels / level, b_ub=np.ones(len(levels)), bounds=(0, 1)
    )
    return float(-found.fun)


def other_table(world: World, studies: int) -> Iterator[str]:
    """Rates of false differences under further departures."""
    cases = {
        "2 cells": (replace(world, noise=(1,) * 2), 0.0),
        "10 cells": (replace(world, noise=(1,) * 10), 0.0),
        "more seeds in later cells": (replace(world, uneven=True), 0.0),
        "seed effects t(3)": (replace(world, tail=3.0), 0.0),
        "first cell ahead by 0.02": (world, 0.02),
        "cells' tastes twice as strong": (replace(world, taste=2 * world.taste), 0.0),
        "no tastes of cells": (replace(world, taste=0.0), 0.0),
    }
    sizes = ((2, 300), (3, 300), (3, 7000), (5, 300))
    yield f"Family-wise rate of false differences, {studies} studies, further cases"
    yield f"{'case':32s} " + " ".join(f"{seeds:>2d}x{queries:<5d}" for seeds, queries in sizes)
    for name, (case, gain) in cases.items():
        rates = [
            false_rate(replace(case, seeds=seeds, queries=queries), studies, gain=gain)
            for seeds, queries in sizes
        ]
        yield f"{name:32s} " + "    ".join(f"{rate:.3f}" for rate in rates)


def speed_table(world: World, studies: int) -> Iterator[str]:
    """Time and memory for 10,000 trials over 1,000 queries; `studies` plays no part."""
    cells = replace(world, seeds=3, queries=1000, noise=(1.0,) * 3334)
    scores = cells.study(np.random.default_rng(0))
    names = list(scores)
    steps: dict[str, Callable[[], object]] = {
        "compare, 3333 pairs": lambda: compare(scores, [(names[0], name) for name in names[1:]]),
        "cell_summaries": lambda: cell_summaries(scores),
    }
    yield "10,002 trials (3,334 cells x 3 seeds) over 1,000 queries"
    for name, step in steps.items():
        start = time.time()
        step()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        yield f"{name}: {time.time() - start:.1f} s, {memory:.1f} GB at most so far"


def power_table(world: World, studies: int) -> Iterator[str]:
    """Power over that of the oracle."""
    yield f"Power over the oracle's, {studies} studies of 5 cells, 10 pairs, equal noise"
    yield f"{'oracle':8s} " + " ".join(f"{s:>2d}x{q:<5d}" for s in SEEDS for q in QUERIES)
    for oracle in (0.5, 0.8, 0.95):
        line = f"{oracle:<8.2f} "
        for seeds in SEEDS:
            for queries in QUERIES:
                _, ours = power(replace(world, seeds=seeds, queries=queries), studies, oracle)
                line += f"{ours / oracle:.2f}     "
        yield line


def world_of(ledger: Path, key: str) -> World:
    """A world with the variances of a run folder's finished trials, on metric key `key`."""
    from ablate.run.ledger import Ledger

    ref, _, metric = key.rpartition("/")
    found = Ledger(ledger)
    cells: dict[str, list[Floats]] = {}
    for record in found.records():
        if record.state == "finished" and ref in record.evaluated:
            spec = {name: value for name, value in record.spec.items() if name != "seed"}
            ids, columns = found.per_query(record.trial_id, ref)
            aligned = columns[metric][np.argsort(ids)]
            cells.setdefault(json.dumps(spec, sort_keys=True), []).append(aligned)
    scores = {name: np.stack(rows) for name, rows in cells.items() if len(rows) > 1}
    parts = variance_components(scores)
    return World(
        seeds=3,
        queries=300,
        seed=float(np.sqrt(parts.seed)),
        interaction=float(np.sqrt(parts.interaction)),
        taste=float(np.sqrt(parts.difference / 2)),
        query=float(np.sqrt(parts.query)),
    )


def main() -> None:
    """Print the tables that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", choices=("null", "other", "power", "bound", "speed"))
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--key", default="nfcorpus/test/mrr_at_10")
    asked = parser.parse_args()
    start = time.time()
    world = world_of(asked.ledger, asked.key) if asked.ledger else World(seeds=3, queries=300)
    sys.stdout.write(f"{world}\n")
    tables = {
        "null": null_table,
        "other": other_table,
        "power": power_table,
        "bound": bound_table,
        "speed": speed_table,
    }
    for name, table in tables.items():
        if asked.only in (None, name):
            for line in table(world, asked.studies):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{time.time() - start:.0f} s\n")


if __name__ == "__main__":
    main()
