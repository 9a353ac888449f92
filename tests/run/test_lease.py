"""Drivers that share a run folder: never two at one trial, and the dead hold nothing up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.run import lease
from ablate.run.lease import CLAIMS, DRIVERS, Leases, claims, dead
from ablate.run.ledger import Ledger, Record
from ablate.run.store import Store
from ablate.run.supply import STARTS, Supply
from ablate.run.trial import Job, TakenOver, execute
from trainables.scratch import host

WANTED = {"tiny/dev": "f"}


def jobs(count: int) -> list[Job]:
    return [Job(f"t{i}", "cell", i, {}, {}, {}, (), WANTED) for i in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def two(store: Store) -> Iterator[tuple[Leases, Leases]]:
    with Leases(store) as one, Leases(store) as other:
        yield one, other


def test_a_claim_is_one_drivers_until_it_is_released(two: tuple[Leases, Leases]) -> None:
    one, other = two
    assert one.claim("t1") and one.claim("t1")
    assert not other.claim("t1")
    assert other.claim("t2")
    assert one.elsewhere() == {"t2"}
    one.release("t1")
    assert other.claim("t1")
    assert not one.claim("t1")


def test_nothing_is_left_when_drivers_have_ended(store: Store) -> None:
    with Leases(store) as one:
        assert one.claim("t1")
        assert claims(store) == {"t1": one.owner}
    assert list(store.children(CLAIMS)) == list(store.children(DRIVERS)) == []


def test_of_drivers_that_ask_at_once_none_shares(store: Store) -> None:
    """Many rounds of threads that claim together; at no time do two hold the name."""
    holders: list[int] = []
    rounds = 30
    with Leases(store) as a, Leases(store) as b, Leases(store) as c:
        for turn in range(rounds):
            gate, held = threading.Barrier(3), []

            def ask(
                leases: Leases,
                name: str = f"t{turn}",
                gate: threading.Barrier = gate,
                held: list[str] = held,
            ) -> None:
                gate.wait()
                if leases.claim(name):
                    held.append(leases.owner)

            threads = [threading.Thread(target=ask, args=(leases,)) for leases in (a, b, c)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            holders.append(len(held))
    assert len(holders) == rounds and set(holders) <= {0, 1}


def test_the_claims_of_a_dead_process_are_free_at_once(store: Store) -> None:
    code = (
        "import os, sys; from ablate.run.lease import Leases; from ablate.run.store import Store\n"
        "leases = Leases(Store(sys.argv[1])).__enter__(); print(leases.claim('t1'), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.uri], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert len(dead(store)) == 2 and claims(store) == {}
    with Leases(store) as leases:
        assert dead(store) == []
        assert leases.claim("t1")


def test_a_driver_elsewhere_that_is_silent_too_long_is_dead(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 5.0)
    owner = "another-host.1.abcd"
    store.write(f"{DRIVERS}/{owner}", b"")
    store.write(f"{CLAIMS}/t1@{owner}", b"")
    with Leases(store) as leases:
        assert not leases.claim("t1")
        old = time.time() - 60
        os.utime(Path(store.uri) / DRIVERS / owner, (old, old))
        assert leases.claim("t1")
        assert claims(store) == {"t1": leases.owner}


def test_a_living_driver_keeps_its_file_fresh(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    with Leases(store) as leases:
        file = f"{DRIVERS}/{leases.owner}"
        first = store.modified(file)
        deadline = time.monotonic() + 30
        while store.modified(file) == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first is not None and (store.modified(file) or 0) > first


def test_holding_waits_for_the_other_driver(two: tuple[Leases, Leases]) -> None:
    one, other = two
    order: list[str] = []
    said: list[str] = []
    other.say = said.append

    def wait() -> None:
        with other.holding("b", "a", doing="scoring the baselines"):
            order.append("other")

    with one.holding("b", doing="scoring the baselines"):
        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
        order.append("one")
    thread.join()
    assert order == ["one", "other"]
    where = f"process {os.getpid()} on {host()}"
    assert said[0] == f"Waiting for another driver ({where}), which is scoring the baselines"
    assert len(said) == 2 and said[1].startswith("Waited ")


def test_nobody_says_that_he_waits_who_does_not(store: Store) -> None:
    said: list[str] = []
    with Leases(store, said.append) as leases:
        with leases.holding("a", "b", doing="preparing the data"):
            assert claims(store).keys() == {"a", "b"}
        supply = Supply(jobs(2), Ledger(store.uri), leases, lambda record: None)
        first, second = supply.next(), supply.next()
        assert first is not None and second is not None and supply.next() is None
    assert said == []


def test_a_supply_that_has_nothing_but_others_trials_says_whose(
    store: Store, two: tuple[Leases, Leases], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.run.supply.WAIT_SECONDS", 0.0)
    one, other = two
    said: list[str] = []
    other.say = said.append
    ledger = Ledger(store.uri)
    assert one.claim("t0") and one.claim("t1")
    supply = Supply(jobs(3), ledger, other, lambda record: None)
    own = supply.next()
    assert own is not None and supply.next() is None and said == []
    supply.end(own.trial_id)
    assert supply.next() is supply.next() is None
    where = f"process {os.getpid()} on {host()}"
    assert said == [f"Waiting for another driver ({where}), which has 2 trials"]
    for name in ("t0", "t1"):
        ledger.write(Record(name, {}, {}, state="finished", evaluated=WANTED))
        one.release(name)
    assert supply.next() is None and supply.empty
    assert len(said) == 2 and said[1].startswith("Waited ")


def test_two_supplies_share_the_jobs_and_see_each_others_ends(
    store: Store, two: tuple[Leases, Leases], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.run.supply.WAIT_SECONDS", 0.0)
    ledger, ran, seen = Ledger(store.uri), Counter[str](), Counter[str]()
    supplies = [
        Supply(jobs(5), ledger, leases, lambda record: seen.update([record.trial_id]))
        for leases in two
    ]
    while not all(supply.empty for supply in supplies):
        out = [(supply, supply.next()) for supply in supplies]
        for supply, job in out:
            if job is not None:
                ran[job.trial_id] += 1
                ledger.write(Record(job.trial_id, {}, {}, state="finished", evaluated=WANTED))
                supply.end(job.trial_id)
    assert ran == Counter(f"t{i}" for i in range(5))
    assert seen == Counter(f"t{i}" for i in range(5))


def test_a_job_that_never_comes_to_run_is_handed_out_so_often(store: Store) -> None:
    with Leases(store) as leases:
        supply = Supply(jobs(1), Ledger(store.uri), leases, lambda record: None)
        for _ in range(STARTS - 1):
            assert supply.next() is not None and supply.all_out
            assert supply.never_ran("t0") and not supply.all_out
        assert supply.next() is not None
        assert not supply.never_ran("t0") and supply.empty


def test_a_trial_whose_claim_is_gone_writes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.run import trial

    def overtaken(*_: object) -> None:
        store.delete(f"{CLAIMS}/t0@me")
        raise ValueError("too late to matter")

    monkeypatch.setattr(trial, "_run", overtaken)
    store.write(f"{CLAIMS}/t0@me", b"")
    job = Job("t0", "cell", 0, {}, {}, {}, (), WANTED, claim=f"{CLAIMS}/t0@me")
    with pytest.raises(TakenOver):
        execute(job, trial.Resources(store.uri, store.uri), lambda metrics: None)
    record = Ledger(store.uri).record("t0")
    assert record is not None and record.state == "running"
