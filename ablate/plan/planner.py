"""Plan: every trial of a study, in order, each with its identity, before anything runs.

Under an adaptive search the trials are those of the first draws and of what has been chosen so far;
`Plan.to_come` counts the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ablate.plan.draws import Draw, first_draws, make_draws
from ablate.plan.identity import Identities
from ablate.plan.keys import complete, without_foreign
from ablate.plan.known import is_dev
from ablate.plan.parts import Cell, Study
from ablate.plan.search import Search
from ablate.plan.space import Random
from trainables.data.collections import Ref, parse_ref
from trainables.data.collections import fingerprint as collection_fingerprint
from trainables.errors import InvalidInput, Problem, unknown
from trainables.spec import Scalar


@dataclass(frozen=True)
class PlannedTrial:
    """One trial: who it is, where it stands in the study, and its complete flat spec.

    `fingerprints` is what else its identity is made of: the content of the collection it trains on,
    and of its backbone where that is a local folder.
    """

    trial_id: str
    cell: str
    draw: int
    seed: int
    flat: Mapping[str, Scalar]
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The trials of a study. The iterators make trials as they are asked for and keep none.

    `fingerprints` maps every collection that the study reads to the identity of its content.
    `searches` are the adaptive searches that have begun, by the name of their cell.
    """

    study: Study
    cells: tuple[Cell, ...]
    draws: tuple[Draw, ...]
    """As random search makes them; of these an adaptive one shares the first."""
    fingerprints: Mapping[str, str]
    searches: Mapping[str, Search] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that chosen trials are repeated with; choices are made with the first."""
        return self.study.seeds

    @property
    def frozen_by_design(self) -> bool:
        """Whether nothing is tuned, so that there is nothing to choose before the test."""
        return not self.study.tune

    @cached_property
    def dev_refs(self) -> tuple[Ref, ...]:
        """The splits that may be looked at while choosing: the one that selects, and dev splits."""
        return tuple(ref for ref in self.study.references if is_dev(ref))

    @cached_property
    def test_refs(self) -> tuple[Ref, ...]:
        """The splits that are opened once, when every choice is frozen."""
        return tuple(ref for ref in self.study.references if not is_dev(ref))

    @cached_property
    def trial_count(self) -> int:
        """How many trials there are: those to choose from, and the chosen under further seeds."""
        to_choose_from = sum(self.wanted(cell) for cell in self.cells)
        return to_choose_from + len(self.cells) * (len(self.seeds) - 1)

    @cached_property
    def to_come(self) -> int:
        """How many of the trials to choose from an adaptive search has yet to name."""
        return sum(self.wanted(cell) - len(self.settings(cell)) for cell in self.cells)

    @cached_property
    def shared_draws(self) -> int:
        """How many draws, the first ones, all cells have in common."""
        if not self.study.adaptive:
            return len(self.draws)
        return min((self.first(cell) for cell in self.cells), default=0)

    def choose(self) -> Iterator[PlannedTrial]:
        """Every cell with every draw, under the first seed."""
        for cell in self.cells:
            for index, values in self.settings(cell).items():
                yield self.candidate(cell, index, values)

    def candidate(self, cell: Cell, index: int, values: Mapping[str, Scalar]) -> PlannedTrial:
        """A cell with the values of a draw, under the first seed."""
        return next(self._trials(cell, index, values, self.seeds[:1]))

    def repeat(self, choices: Mapping[str, int] | None = None) -> Iterator[PlannedTrial]:
        """Every cell with its chosen draw, under every seed.

        `choices` maps names of cells to indices of draws; a cell without a choice is left out. None
        takes the only draw there is. Raises InvalidInput for a cell or a draw that the plan does
        not have, and for None where something is tuned.
        """
        if choices is not None:
            self._check(choices)
            return self._repeat(choices)
        if self.frozen_by_design:
            return self._repeat({cell.name: 0 for cell in self.cells})
        rule = "are needed: the study tunes, and its winners are not known"
        raise InvalidInput([Problem("choices", rule)])

    def tuned(self, cell: Cell, index: int) -> Mapping[str, Scalar]:
        """The values of a draw of `cell`, by its index."""
        return self._values(cell)[index]

    def marks(self, refs: Sequence[Ref]) -> dict[str, str]:
        """Label -> identity of the data, for everything that a trial scored on `refs` must have."""
        found: dict[str, str] = {}
        for ref in refs:
            found |= ref.marks(self.fingerprints[ref.collection])
        return found

    def possible(self, choices: Mapping[str, int]) -> dict[str, int]:
        """Those of the choices that name a cell and a draw of the plan."""
        draws = {cell.name: self._values(cell) for cell in self.cells}
        return {cell: draw for cell, draw in choices.items() if draw in draws.get(cell, ())}

    def trials(self) -> Iterator[PlannedTrial]:
        """The trials that are known before anything ran: all of them when nothing is tuned."""
        return self.repeat() if self.frozen_by_design else self.choose()

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values: cells, draws, trials, references and fingerprints."""
        study, watch = self.study, self.study.watch
        return {
            "study": study.name,
            "question": study.question,
            "fixed": dict(study.fixed),
            "tune": {key: space.to_yaml() for key, space in study.tune.items()},
            "cells": [{"name": cell.name, "values": dict(cell.values)} for cell in self.cells],
            "excluded": [
                {"name": cell.name, "values": dict(cell.values), "reason": reason}
                for cell, reason in study.excluded()
            ],
            "draws": [dict(draw.values) for draw in self.draws[: self.shared_draws]],
            "seeds": list(self.seeds),
            "select": study.select.key if study.select else None,
            "dev": [str(ref) for ref in self.dev_refs],
            "test": [str(ref) for ref in self.test_refs],
            "watch": watch and {**asdict(watch), "ref": str(watch.ref)},
            "resources": asdict(study.resources),
            "fingerprints": dict(self.fingerprints),
            "trial_count": self.trial_count,
            **({"to_come": self.to_come} if study.adaptive else {}),
            "trials": [
                {"trial_id": t.trial_id, "cell": t.cell, "draw": t.draw, "seed": t.seed}
                for t in self.trials()
            ],
        }

    def settings(self, cell: Cell) -> Mapping[int, Mapping[str, Scalar]]:
        """By index, what every draw sets in `cell`, as far as the draws are known.

        Parameters of another loss are dropped; a draw that is then like an earlier one is left out.
        """
        if not self.study.adaptive:
            return self.drawn(cell)
        if cell.name not in self._searched:
            first = self.first(cell)
            begun = self.searches.get(cell.name)
            found = [(i, values) for i, values in self.drawn(cell).items() if i < first]
            found += enumerate(begun.draws if begun else (), start=first)
            self._searched[cell.name] = dict(found[: self.wanted(cell)])
        return self._searched[cell.name]

    def wanted(self, cell: Cell) -> int:
        """How many draws `cell` gets, whichever way they are made."""
        return len(self.drawn(cell))

    def first(self, cell: Cell) -> int:
        """How many of the plan's draws an adaptive search of `cell` begins with."""
        begun = self.searches.get(cell.name)
        return first_draws(len(self.draws)) if begun is None else begun.first

    def spaces(self, cell: Cell) -> dict[str, Random]:
        """What an adaptive search of `cell` draws from: the tuned keys that act in it."""
        own = {key for values in self.drawn(cell).values() for key in values}
        return {key: space for key, space in self.study.random.items() if key in own}

    def search_id(self, cell: Cell) -> str:
        """Identity of the adaptive search of `cell`: of all that its draws follow from."""
        index, values = next(iter(self.drawn(cell).items()))
        select = self.study.select
        content = {
            "began": self.candidate(cell, index, values).trial_id,
            "spaces": {key: space.to_yaml() for key, space in self.study.tune.items()},
            "seed": self.study.budget.seed,
            "select": [select.key, self.fingerprints[select.ref.collection]] if select else None,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def resumed(self, read: Callable[[str], Mapping[str, Any] | None]) -> Plan:
        """The plan with the searches that `read` knows by their identity."""
        if not self.study.adaptive:
            return self
        kept = {cell.name: read(self.search_id(cell)) for cell in self.cells}
        begun = {name: Search.from_json(found) for name, found in kept.items() if found}
        return replace(self, searches=begun)

    def drawn(self, cell: Cell) -> Mapping[int, Mapping[str, Scalar]]:
        """By index, what each of the plan's draws sets in `cell`."""
        loss = {**self.study.fixed, **cell.values}.get("loss.name")
        if loss not in self._settings:
            distinct: dict[tuple[Scalar, ...], int] = {}
            found = {}
            for draw in self.draws:
                own = without_foreign(draw.values, draw.values.get("loss.name", loss))
                if distinct.setdefault((*own, *own.values()), draw.index) == draw.index:
                    found[draw.index] = own
            self._settings[loss] = found
        return self._settings[loss]

    @cached_property
    def _settings(self) -> dict[Scalar, Mapping[int, Mapping[str, Scalar]]]:
        return {}

    @cached_property
    def _searched(self) -> dict[str, Mapping[int, Mapping[str, Scalar]]]:
        return {}

    def _values(self, cell: Cell) -> Mapping[int, Mapping[str, Scalar]]:
        """By index, the values of every draw that may be chosen for `cell`."""
        return self.settings(cell) if self.study.adaptive else self._by_index

    @cached_property
    def _by_index(self) -> Mapping[int, Mapping[str, Scalar]]:
        return {draw.index: draw.values for draw in self.draws}

    @cached_property
    def _identities(self) -> Identities:
        return Identities(self.fingerprints)

    def _repeat(self, choices: Mapping[str, int]) -> Iterator[PlannedTrial]:
        for cell in self.cells:
            if cell.name in choices:
                index = choices[cell.name]
                yield from self._trials(cell, index, self.tuned(cell, index), self.seeds)

    def _trials(
        self, cell: Cell, index: int, values: Mapping[str, Scalar], seeds: tuple[int, ...]
    ) -> Iterator[PlannedTrial]:
        flat = complete({**self.study.fixed, **cell.values, **values})
        fingerprints = self._identities.fingerprints(flat)
        for seed in seeds:
            own = {**flat, "seed": seed}
            trial_id = self._identities.trial_id(own)
            yield PlannedTrial(trial_id, cell.name, index, seed, own, fingerprints)

    def _check(self, choices: Mapping[str, int]) -> None:
        draws = {cell.name: self._values(cell) for cell in self.cells}
        problems = [unknown("cell", name, list(draws)) for name in choices if name not in draws]
        for name, index in choices.items():
            if name in draws and index not in draws[name]:
                rule = f"must be the index of one of the {len(draws[name])} draws"
                problems.append(Problem(f"choice of {name}", rule, index))
        if problems:
            raise InvalidInput(problems)


def make_plan(study: Study, fingerprint: Callable[[str], str] = collection_fingerprint) -> Plan:
    """The plan of a study. `fingerprint` gives the identity of a collection's content.

    Raises InvalidInput when a collection's files cannot be found.
    """
    trained = [parse_ref(str(text), "train") for text in study.listed("data.train")]
    names = dict.fromkeys(ref.collection for ref in (*trained, *study.references))
    fingerprints = {name: fingerprint(name) for name in names}
    return Plan(study, study.cells(), make_draws(study), fingerprints)
