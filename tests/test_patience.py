"""A store that is away for a moment is asked again; one that stays away is given up once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trainables import patience
from trainables.patience import Patience


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def answering_after(failures: int, error: OSError) -> Callable[[], int]:
    """A call that fails so often before it returns how often it was made."""
    calls = [0]

    def call() -> int:
        calls[0] += 1
        if calls[0] <= failures:
            raise error
        return calls[0]

    return call


AWAY = OSError("AWS Error NETWORK_CONNECTION")


def test_a_call_is_made_again_until_it_is_answered(clock: Clock) -> None:
    assert Patience(60.0).ask(answering_after(3, AWAY)) == 4
    assert clock.now == 100.0 + 3 * patience.RETRY_SECONDS


def test_time_counts_over_all_calls_of_one_outage_and_anew_after_an_answer(clock: Clock) -> None:
    asked = Patience(10.0)
    for _ in range(3):
        assert asked.ask(answering_after(4, AWAY)) == 5
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        asked.ask(answering_after(100, AWAY))
    given_up = clock.now
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        asked.ask(answering_after(100, AWAY))
    assert clock.now == given_up
    assert asked.ask(answering_after(0, AWAY)) == 1
    assert asked.ask(answering_after(4, AWAY)) == 5


def test_what_is_missing_is_an_answer(clock: Clock) -> None:
    with pytest.raises(FileNotFoundError):
        Patience(60.0).ask(answering_after(1, FileNotFoundError("no such key")))
    assert clock.now == 100.0


def test_without_patience_a_failure_is_one(clock: Clock) -> None:
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        Patience(0.0).ask(answering_after(1, AWAY))
    assert clock.now == 100.0
