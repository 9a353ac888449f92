"""Plan: every trial of a study, in order, each with its identity, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ablate.plan.draws import Draw, make_draws
from ablate.plan.identity import Identities
from ablate.plan.keys import complete, without_foreign
from ablate.plan.known import is_dev
from ablate.plan.parts import Cell, Study
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
    """

    study: Study
    cells: tuple[Cell, ...]
    draws: tuple[Draw, ...]
    fingerprints: Mapping[str, str]

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
        to_choose_from = sum(len(self.settings(cell)) for cell in self.cells)
        return to_choose_from + len(self.cells) * (len(self.seeds) - 1)

    def choose(self) -> Iterator[PlannedTrial]:
        """Every cell with every draw, under the first seed."""
        for cell in self.cells:
            for index, values in self.settings(cell).items():
                yield from self._trials(cell, index, values, self.seeds[:1])

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
            "draws": [dict(draw.values) for draw in self.draws],
            "seeds": list(self.seeds),
            "select": study.select.key if study.select else None,
            "dev": [str(ref) for ref in self.dev_refs],
            "test": [str(ref) for ref in self.test_refs],
            "watch": watch and {**asdict(watch), "ref": str(watch.ref)},
            "resources": asdict(study.resources),
            "fingerprints": dict(self.fingerprints),
            "trial_count": self.trial_count,
            "trials": [
                {"trial_id": t.trial_id, "cell": t.cell, "draw": t.draw, "seed": t.seed}
                for t in self.trials()
            ],
        }

    def settings(self, cell: Cell) -> Mapping[int, Mapping[str, Scalar]]:
        """By index, what every draw sets in `cell`.

        Parameters of another loss are dropped; a draw that is then like an earlier one is left out.
        """
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
    def _identities(self) -> Identities:
        return Identities(self.fingerprints)

    def _repeat(self, choices: Mapping[str, int]) -> Iterator[PlannedTrial]:
        for cell in self.cells:
            if cell.name in choices:
                index = choices[cell.name]
                yield from self._trials(cell, index, self.draws[index].values, self.seeds)

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
        names = [cell.name for cell in self.cells]
        problems = [unknown("cell", name, names) for name in choices if name not in names]
        for name, index in choices.items():
            if not 0 <= index < len(self.draws):
                rule = f"must be the index of one of the {len(self.draws)} draws"
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
