"""A run folder between executions: how a study stands, what failed, what is no longer needed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.study import read_study
from ablate.run.lease import DRIVERS, alive, claims, dead
from ablate.run.ledger import Ledger, Record, cache_root
from ablate.run.resume import PLACES
from ablate.run.store import MARK, TEMPORARY
from trainables.data.cache import Cache
from trainables.errors import InvalidInput, Problem, nearest
from trainables.looks import Looks
from trainables.scratch import host

INTERRUPTED = "interrupted"
"""What a trial is called that is recorded as running while no living driver has it."""
STALE_SECONDS = 86_400.0
"""Age at which scratch of another host, whose processes are not to be seen, is left over."""


@dataclass(frozen=True)
class TrialStatus:
    """A planned trial and how it stands: its record's state, or `interrupted`."""

    trial: PlannedTrial
    state: str
    record: Record | None


@dataclass(frozen=True)
class Leftover:
    """What nothing needs any more: why, where below the run folder or on disk, and bytes."""

    kind: str
    path: str
    size: int


def known_plan(ledger: Ledger, study: str) -> Plan:
    """The plan of a study, by name or file, as the run folder last ran it.

    Raises InvalidInput, with the nearest name, when the run folder does not know it.
    """
    ledger.store.require()
    name = Path(study).stem if study.endswith((".yaml", ".yml")) else study
    folder = ledger.study(name)
    text, plan = ledger.store.read(f"{folder.path}/study.yaml"), folder.read("plan.json")
    if text is None or plan is None:
        known = list(ledger.store.children("studies"))
        rule = f"has not been run in {ledger.store.shown}; known: {', '.join(known) or 'none'}"
        raise InvalidInput([Problem("STUDY", rule, name, nearest(name, known))])
    read = read_study(text.decode(), name, f"{folder.path}/study.yaml")
    made = make_plan(read, lambda collection: str(plan["fingerprints"][collection]))
    return made.resumed(folder.search)


def statuses(plan: Plan, ledger: Ledger) -> list[TrialStatus]:
    """Every trial that the study has so far: those to choose from, and the chosen ones' repeats."""
    planned = {trial.trial_id: trial for trial in plan.trials()}
    chosen = plan.repeat(plan.possible(ledger.study(plan.study.name).choices()))
    planned |= {trial.trial_id: trial for trial in chosen if trial.trial_id not in planned}
    busy = claims(ledger.store)
    found = []
    for trial in planned.values():
        record = ledger.record(trial.trial_id)
        state: str = "planned" if record is None else record.state
        if state == "running" and trial.trial_id not in busy:
            state = INTERRUPTED
        found.append(TrialStatus(trial, state, record))
    return found


def find_trial(ledger: Ledger, prefix: str) -> Record:
    """The record of the only trial whose id begins so; InvalidInput when none or several do."""
    known = list(ledger.store.children("trials"))
    found = [trial_id for trial_id in known if trial_id.startswith(prefix)]
    if len(found) > 1:
        rule = f"begins the id of {len(found)} trials: {', '.join(found[:5])}"
        raise InvalidInput([Problem("TRIAL", rule, prefix)])
    record = ledger.record(found[0]) if found else None
    if record is None:
        rule = f"is no trial of {ledger.store.shown}, which has {len(known)}"
        raise InvalidInput([Problem("TRIAL", rule, prefix, nearest(prefix, known))])
    return record


def put_back(ledger: Ledger, records: Sequence[Record]) -> None:
    """Make failed and stopped trials planned ones; what they left to go on from stays.

    A trial that was stopped will not be stopped again. Raises InvalidInput for trials that neither
    failed nor were stopped, and changes none then.
    """
    busy = claims(ledger.store)
    problems = []
    for record in records:
        if record.trial_id in busy:
            problems.append(Problem("TRIAL", "is running", record.trial_id))
        elif record.state not in ("failed", "stopped"):
            rule = f"did not fail and was not stopped: it is {record.state}"
            problems.append(Problem("TRIAL", rule, record.trial_id))
    if problems:
        raise InvalidInput(problems)
    for record in records:
        if record.state == "stopped":
            home = f"trials/{record.trial_id}/looks"
            for name in ledger.store.children(home):
                Looks(ledger.store.uri_of(f"{home}/{name}")).spare()
        ledger.write(
            replace(
                record, state="planned", reason=None, own_fault=False, log_tail=(), finished=None
            )
        )


def leftovers(ledger: Ledger, unchosen: bool = False) -> Iterator[Leftover]:
    """What can go: nothing that a finished record, or a trial that is to go on, needs.

    With `unchosen` also the encoders of draws that no study chose, which no test will score.
    """
    store, busy = ledger.store, claims(ledger.store)
    for path in [*store.abandoned(), *_stale(ledger)]:
        yield Leftover("scratch of a process that died", path, store.size(path))
    for path in dead(store):
        yield Leftover("lease of a driver that died", path, 0)
    for trial_id in store.children("trials"):
        record = ledger.record(trial_id)
        for path in (f"trials/{trial_id}/{name}" for name in PLACES):
            if record is not None and record.state == "finished" and store.exists(path):
                yield Leftover("training state of a finished trial", path, store.size(path))
    for name in store.children(".train"):
        record, path = ledger.record(name), f".train/{name}"
        over = not _drivers(ledger) if record is None else record.state == "finished"
        if over and name not in busy:
            yield Leftover("training state of a finished trial", path, store.size(path))
    for folder in Cache(Path(cache_root(ledger))).abandoned():
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield Leftover("cache entry whose maker died", str(folder), size)
    if unchosen:
        yield from _unchosen(ledger)


def _stale(ledger: Ledger) -> Iterator[str]:
    """What processes of other hosts left long ago: of sweeps without a driver, and on a disk that
    hosts share, where trials have their scratch too, of all when no driver is alive."""
    store = ledger.store
    living = [owner for owner in store.children(DRIVERS) if alive(store, owner)]
    if store.local is not None and living:
        return
    drivers = {owner.rpartition(".")[0] for owner in living}
    for name in store.children(TEMPORARY):
        path = f"{TEMPORARY}/{name}"
        if name.startswith(f"{host()}.") or name.rpartition(".")[0] in drivers:
            continue
        made = store.modified(path if store.local else f"{path}/{MARK}")
        if made is not None and time.time() - made > STALE_SECONDS:
            yield path


def _drivers(ledger: Ledger) -> bool:
    return any(alive(ledger.store, owner) for owner in ledger.store.children(DRIVERS))


def _unchosen(ledger: Ledger) -> Iterator[Leftover]:
    """Checkpoints of trials that only studies with a finished choice planned, and none opened."""
    kept: set[str] = set()
    losers: set[str] = set()
    for name in ledger.store.children("studies"):
        folder = ledger.study(name)
        plan = folder.read("plan.json") or {"trials": []}
        planned = {trial["trial_id"] for trial in plan["trials"]} | set(folder.searched())
        opened = {trial for opening in folder.openings() for trial in opening["trials"]}
        kept |= opened if opened else planned
        losers |= planned
    for trial_id in sorted(losers - kept):
        path = f"trials/{trial_id}/checkpoint"
        if ledger.store.exists(path):
            yield Leftover("encoder of a draw that was not chosen", path, ledger.store.size(path))
