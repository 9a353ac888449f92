"""The adaptive searches of a study: one per cell, each with as many draws as the others.

A cell begins with draws that all cells share. Each further draw is chosen, by what the cell's
earlier draws scored on dev, when a trial can start; the cell with the fewest draws comes first.

studies/<name>/searches/<search_id>.json   what was chosen in one cell, written before it is tried

A draw follows from the study, from its place in the cell, and from how those draws ended that it
waits for (`Search`). So it does not matter which trial ends first, which driver chooses, or whether
one died in between: the same study comes to the same draws. What they still depend on: how many
trials fit at once when a cell's search begins, which settles how many of its draws run together
and is kept with them (so that towards the end of a sweep some slots stand idle); trials lost with
their process or node, from which nothing is learnt; and the version of Optuna.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import chain

from ablate.plan.parts import Cell
from ablate.plan.planner import Plan, PlannedTrial
from ablate.plan.search import Search
from ablate.run.adaptive import Told, suggest
from ablate.run.lease import Leases
from ablate.run.ledger import Ledger
from ablate.run.trial import Job
from trainables.spec import Scalar

ATTEMPTS = 16
"""How often a draw is asked for that the cell has not had, before a random one is taken."""


class Searches:
    """The jobs that follow from the results of others, for whoever has room for one.

    `jobs` are those handed out so far.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        leases: Leases,
        job: Callable[[PlannedTrial], Job],
        slots: Callable[[], int],
    ) -> None:
        """`job` makes a trial's job; `slots` says how many trials fit at once."""
        self.jobs: list[Job] = []
        self._plan, self._begun = plan, dict(plan.searches)
        self._ledger, self._folder = ledger, ledger.study(plan.study.name)
        self._leases, self._job, self._slots = leases, job, slots
        searched = plan.cells if plan.to_come else ()
        self._cells = {cell.name: cell for cell in searched}
        self._wanted = {cell.name: plan.wanted(cell) for cell in searched}
        self._tried = {cell.name: self._candidates(cell) for cell in searched}
        self._chosen: deque[PlannedTrial] = deque()

    @property
    def plan(self) -> Plan:
        """The plan with every draw that has been chosen."""
        return replace(self._plan, searches=dict(self._begun))

    @property
    def to_come(self) -> int:
        """How many jobs have yet to be handed out."""
        return sum(self._wanted.values()) - sum(map(len, self._tried.values())) + len(self._chosen)

    def next(self, busy: Collection[str]) -> Job | None:
        """One more job, while the trials of `busy` have not ended; None when there is none yet."""
        if not self._chosen:
            self._look(busy)
        if not self._chosen:
            return None
        self.jobs.append(self._job(self._chosen.popleft()))
        return self.jobs[-1]

    def _look(self, busy: Collection[str]) -> None:
        """Choose a draw in the first cell where one can be chosen."""
        for name in sorted(self._tried, key=lambda name: len(self._tried[name])):
            tried, cell = self._tried[name], self._cells[name]
            if len(tried) == self._wanted[name]:
                continue
            known = tried[: self._known(cell, self._search(cell))]
            if any(trial.trial_id in busy for trial in known):
                continue
            self._advance(cell)
            if self._chosen:
                return

    def _advance(self, cell: Cell) -> None:
        """Choose the cell's next draw and keep it, unless another driver has or is about to."""
        search_id = self._plan.search_id(cell)
        claim = f"search {search_id}"
        if not self._leases.claim(claim):
            return
        try:
            # Read under the claim: the driver that had it may just have chosen.
            kept = self._folder.search(search_id)
            search = self._search(cell) if kept is None else Search.from_json(kept)
            self._adopt(cell, search)
            if not self._chosen:
                search = replace(search, draws=(*search.draws, self._choose(cell, search)))
                ids = [trial.trial_id for trial in self._trials(cell, search)]
                self._folder.write_search(search_id, search.to_json(cell.name, ids))
                self._adopt(cell, search)
        finally:
            self._leases.release(claim)

    def _adopt(self, cell: Cell, search: Search) -> None:
        """Take over the draws of `search` that have not been tried here."""
        self._begun[cell.name] = search
        tried = self._tried[cell.name]
        known = {trial.trial_id for trial in tried}
        fresh = [trial for trial in self._trials(cell, search) if trial.trial_id not in known]
        fresh = fresh[: self._wanted[cell.name] - len(tried)]
        tried += fresh
        self._chosen += fresh

    def _candidates(self, cell: Cell) -> list[PlannedTrial]:
        settings = self._plan.settings(cell)
        return [self._plan.candidate(cell, index, values) for index, values in settings.items()]

    def _trials(self, cell: Cell, search: Search) -> list[PlannedTrial]:
        places = enumerate(search.draws, start=search.first)
        return [self._plan.candidate(cell, index, values) for index, values in places]

    def _search(self, cell: Cell) -> Search:
        """The search of the cell, which may only be about to begin."""
        if cell.name in self._begun:
            return self._begun[cell.name]
        return Search(self._plan.first(cell), math.ceil(self._slots() / len(self._cells)))

    def _known(self, cell: Cell, search: Search) -> int:
        """By how many of the cell's draws, in their order, the next one is chosen."""
        tried = self._tried[cell.name]
        first = sum(trial.draw < search.first for trial in tried)
        return max(first, len(tried) - search.together + 1)

    def _choose(self, cell: Cell, search: Search) -> dict[str, Scalar]:
        """What the cell's next draw sets, different from every draw before it."""
        tried, spaces = self._tried[cell.name], self._plan.spaces(cell)
        known = self._known(cell, search)
        told = [self._tell(trial, place < known) for place, trial in enumerate(tried)]
        heard = [one for one in told if one is not None]
        before = {trial.trial_id for trial in tried}
        name = f"{self._plan.search_id(cell)} {len(tried)}"
        suggested = (suggest(spaces, heard, _seed(name, i)) for i in range(ATTEMPTS))
        # The plan has as many draws as the cell gets, so that one of them is left.
        for values in chain(suggested, self._plan.drawn(cell).values()):
            trial = self._plan.candidate(cell, len(tried), values)
            if trial.trial_id not in before:
                break
        return {key: value for key, value in values.items() if key in trial.flat}

    def _tell(self, trial: PlannedTrial, ended: bool) -> Told | None:
        """A trial as the search is told of it; None where nothing is learnt from it."""
        study = self._plan.study
        values = {key: trial.flat[key] for key in study.random if key in trial.flat}
        if not ended:
            return Told(values, None, running=True)
        record = self._ledger.record(trial.trial_id)
        if record is None or study.select is None:
            return None
        if record.own_fault or record.state == "stopped":
            return Told(values, None)
        score = record.metrics.get(study.select.key)
        return None if score is None else Told(values, score)


def _seed(name: str, attempt: int) -> int:
    """A seed of 32 bits."""
    return int.from_bytes(hashlib.sha256(f"{name} {attempt}".encode()).digest()[:4], "big")
