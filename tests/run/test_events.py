"""What becomes of a trial's end in the driver: recorded and told, or handed to another driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate.run.events import Events
from ablate.run.ledger import Ledger, Record
from ablate.run.trial import Job

CLAIM = ".leases/claims/a@host.1.x"
ENDS = ("on_trial_complete", "on_trial_error")


class Seen:
    """A watcher that keeps what it is told, and raises at an end if it has an error to raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[tuple[str, str]] = []
        self.error = error

    def started(self, trial_id: str) -> None:
        self.told.append(("started", trial_id))

    def lost(self, trial_id: str) -> None:
        self.told.append(("lost", trial_id))

    def progress(self, trial_id: str, metrics: Any) -> None:
        self.told.append(("progress", trial_id))

    def ended(self, record: Record) -> None:
        if self.error is not None:
            raise self.error
        self.told.append((record.state, record.trial_id))


class Handed:
    """A supply that keeps what comes back to it."""

    def __init__(self) -> None:
        self.back: list[tuple[str, str]] = []

    def end(self, trial_id: str) -> None:
        self.back.append(("end", trial_id))

    def taken_over(self, trial_id: str) -> None:
        self.back.append(("taken over", trial_id))

    def never_ran(self, trial_id: str) -> bool:
        return False


def as_tune_shows(claim: str | None = CLAIM) -> Any:
    job = Job("a", "01 joint_lh", 0, {}, {}, {}, (), claim=claim)
    return SimpleNamespace(
        config={"job": SimpleNamespace(job=job)},
        last_result={},
        max_failures=-1,
        get_error=lambda: None,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def made(ledger: Ledger, watcher: Seen, supply: Handed) -> Events:
    """The events of a sweep in which the trial runs."""
    events = Events(ledger, watcher, supply)  # type: ignore[arg-type]
    events.on_step_begin(0, [])
    events.on_trial_start(0, [], as_tune_shows())
    return events


def content(ledger: Ledger) -> bytes | None:
    return ledger.store.read("trials/a/record.json")


@pytest.mark.parametrize("error", [ValueError("no such cell"), OSError("disk is full")])
def test_a_watchers_error_ends_the_sweep_and_spares_the_record(
    ledger: Ledger, error: Exception
) -> None:
    """Raised at the end of a trial Tune would call it the trial's own, and run it again."""
    ledger.write(Record("a", {}, {}, state="finished", metrics={"m": 1.0}))
    before, supply = content(ledger), Handed()
    events = made(ledger, Seen(error), supply)
    events.on_trial_complete(1, [], as_tune_shows())
    assert content(ledger) == before is not None
    assert supply.back == [("end", "a")]
    with pytest.raises(type(error), match=str(error)) as caught:
        events.on_step_begin(2, [])
    assert caught.value is error


def test_a_watchers_error_at_a_loss_ends_the_sweep_too(ledger: Ledger) -> None:
    ledger.store.write(CLAIM, b"")
    error = ValueError("no such cell")
    events = made(ledger, Seen(error), Handed())
    events.on_trial_error(1, [], as_tune_shows())
    record = ledger.record("a")
    assert record is not None and record.state == "failed"
    with pytest.raises(ValueError, match="no such cell"):
        events.on_step_begin(2, [])


def running(ledger: Ledger) -> None:
    ledger.write(Record("a", {}, {}, state="running", attempts=1))


def finished_by_another(ledger: Ledger) -> None:
    ledger.write(Record("a", {}, {}, state="finished", metrics={"m": 1.0}))


@pytest.mark.parametrize(
    ("end", "stands"),
    [(ENDS[0], running), (ENDS[1], running), (ENDS[1], finished_by_another)],
    ids=["ended without a result", "lost", "lost, and done by another"],
)
def test_a_lost_trial_that_another_driver_has_is_left_to_it(
    ledger: Ledger, end: str, stands: Callable[[Ledger], None]
) -> None:
    stands(ledger)
    before, watcher, supply = content(ledger), Seen(), Handed()
    events = made(ledger, watcher, supply)
    getattr(events, end)(1, [], as_tune_shows())
    events.on_step_begin(2, [])
    assert content(ledger) == before is not None
    assert supply.back == [("taken over", "a")]
    assert watcher.told == [("started", "a")] and events.records == []


@pytest.mark.parametrize("claimed", [False, True])
def test_a_trial_that_never_began_is_failed_only_by_who_has_it(
    ledger: Ledger, claimed: bool
) -> None:
    finished_by_another(ledger)
    if claimed:
        ledger.store.write(CLAIM, b"")
    before, watcher, supply = content(ledger), Seen(), Handed()
    events = Events(ledger, watcher, supply)  # type: ignore[arg-type]
    events.on_trial_error(1, [], as_tune_shows())
    events.on_step_begin(2, [])
    assert (content(ledger) == before) is not claimed
    assert watcher.told == ([("failed", "a")] if claimed else [])
    assert supply.back == ([] if claimed else [("taken over", "a")])


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("claim", [CLAIM, None], ids=["claimed", "nobody claims"])
def test_a_lost_trial_of_this_driver_is_one_that_failed(
    ledger: Ledger, end: str, claim: str | None
) -> None:
    running(ledger)
    ledger.store.write(CLAIM, b"")
    watcher, supply = Seen(), Handed()
    events = made(ledger, watcher, supply)
    getattr(events, end)(1, [], as_tune_shows(claim))
    events.on_step_begin(2, [])
    record = ledger.record("a")
    assert record is not None and (record.state, record.own_fault) == ("failed", False)
    assert supply.back == [("end", "a")] and events.records == [record]
    assert watcher.told == [("started", "a"), ("failed", "a")]


def test_the_watcher_is_told_of_a_loss(ledger: Ledger) -> None:
    watcher = Seen()
    events = made(ledger, watcher, Handed())
    events.on_trial_recover(1, [], as_tune_shows())
    events.on_trial_start(2, [], as_tune_shows())
    assert watcher.told == [("started", "a"), ("lost", "a"), ("started", "a")]
