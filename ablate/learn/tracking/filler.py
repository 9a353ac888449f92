"""MLflow filled beside a running study, by a process of its own.

It shares nothing with the trials but the ledger, which is also its queue: while a server is down
nothing piles up, and whatever a pass missed the next one finds. A process rather than a thread: its
imports and passes take no turns from the driver, the system gives it what the trials leave, and
one that hangs can be ended at any moment without harm.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ablate.learn.tracking.files import default_uri
from ablate.run.ledger import Ledger

if TYPE_CHECKING:
    from ablate.learn.tracking.sync import Progress, SyncSummary
    from ablate.plan.planner import Plan

REST, LEAST_REST = 30.0, 5.0
"""A pass is followed by a rest of so many times its own CPU time, and of so many seconds at least:
the passes cost about 3 % of one core, however many trials there are."""
NICENESS = 10
FINISH_SECONDS, LAST_SECONDS = 180.0, 2.0
PATIENCE_SECONDS, RETRY_SECONDS = 30.0, 2.0
"""At the end, how long a server that is away is waited for: it may be starting again."""
TOLD_SECONDS = 0.5
"""How often whoever waits for the end is told how far it is."""
CHANGED = b"c"


@dataclass(frozen=True)
class Behind:
    """MLflow does not hold everything yet: why, and how many runs are as they should be.

    `total` is 0 when no pass has got as far as counting.
    """

    reason: str
    done: int
    total: int


class Filler:
    """The driver's end: says when something has changed, and at the end asks for the rest.

    Neither blocks a study nor fails it. The process starts with the first change, so that its
    imports do not stand in the way of the first trial.
    """

    def __init__(
        self, plan: Plan, runs: str, uri: str | None, patience: float = PATIENCE_SECONDS
    ) -> None:
        """`patience` is how many seconds the last pass waits for a server that is away."""
        ledger = Ledger(runs)
        self._plan, self._runs, self._patience = plan, runs, patience
        self._uri = uri or (default_uri(ledger) if ledger.store.local else None)
        self._context = multiprocessing.get_context("spawn")
        self._counts = self._context.RawArray("q", 2)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._orders: Connection | None = None
        self._answers: Connection | None = None

    def __enter__(self) -> Filler:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def changed(self) -> None:
        """The ledger holds something new."""
        if self._uri is None:
            return
        if self._process is None:
            self._start(self._uri)
        # A full pipe means that the process knows already; a broken one, that `finish` will tell.
        with contextlib.suppress(OSError):
            if self._orders is not None:
                self._orders.send_bytes(CHANGED)

    def finish(
        self, seconds: float = FINISH_SECONDS, progress: Progress | None = None
    ) -> SyncSummary | Behind:
        """Everything sent, or after `seconds` what is left; the process has ended then.

        `progress` is told on the way how many runs are as they should be, and of how many.
        """
        if self._uri is None:
            return Behind(
                "the run folder is not on local disk and no --tracking-uri is given", 0, 0
            )
        if self._process is None:
            self._start(self._uri)
        if self._orders is not None:
            self._orders.close()
        found: SyncSummary | str = f"it takes longer than {seconds:g} s"
        with contextlib.suppress(EOFError, OSError):
            if self._answers is not None and self._answered(self._answers, seconds, progress):
                found = "the process that fills it has ended"
                found = self._answers.recv()
        self.close()
        return Behind(found, *self._counts) if isinstance(found, str) else found

    def _answered(self, answers: Connection, seconds: float, progress: Progress | None) -> bool:
        until = time.monotonic() + seconds
        while not answers.poll(max(0.0, min(TOLD_SECONDS, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
            if progress is not None:
                progress(*self._counts)
        return True

    def close(self) -> None:
        """End the process, wherever it is: the next pass, of any process, takes up from there."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(LAST_SECONDS)
            self._process.kill()
            self._process.join()
            self._process = None
        for end in (self._orders, self._answers):
            if end is not None:
                end.close()
        self._orders = self._answers = None

    def _start(self, uri: str) -> None:
        one_pass = partial(_pass, self._plan, self._runs, uri, self._counts)
        orders, self._orders = self._context.Pipe(duplex=False)
        self._answers, answers = self._context.Pipe(duplex=False)
        os.set_blocking(self._orders.fileno(), False)
        self._process = self._context.Process(
            target=fill,
            args=(one_pass, self._patience, orders, answers),
            daemon=True,
        )
        self._process.start()
        orders.close()
        answers.close()


def fill(
    one_pass: Callable[[bool], SyncSummary | str],
    patience: float,
    orders: Connection,
    answers: Connection,
) -> None:
    """The process: a pass after every change, with rests between them; at the end, the last one.

    The end is that of `orders`, whether the driver closed it or is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.nice(NICENESS)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    try:
        _until_the_end(lambda: one_pass(True), orders)
        found = _last_pass(lambda: one_pass(False), patience)
    except Exception as error:  # noqa: BLE001 - whatever breaks here, the study's end tells it
        found = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        answers.send(found)


def _until_the_end(attempt: Callable[[], object], orders: Connection) -> None:
    """An attempt after each change, until `orders` ends."""
    changed, due = False, 0.0
    with contextlib.suppress(EOFError):
        while True:
            if orders.poll(max(0.0, due - time.monotonic()) if changed else None):
                orders.recv_bytes()
                changed = True
                continue
            changed, before = False, time.process_time()
            attempt()
            due = time.monotonic() + max(LEAST_REST, REST * (time.process_time() - before))


def _last_pass(attempt: Callable[[], SyncSummary | str], patience: float) -> SyncSummary | str:
    """What the first attempt that gets through says, or the last one before the patience ends."""
    until = time.monotonic() + patience
    while isinstance(found := attempt(), str) and time.monotonic() < until:
        time.sleep(RETRY_SECONDS)
    return found


def _pass(plan: Plan, runs: str, uri: str, counts: Any, on_the_way: bool) -> SyncSummary | str:
    """What a pass did, or why it did not get through."""
    from ablate.learn.results import collect
    from ablate.learn.tracking.door import TrackingUnavailable
    from ablate.learn.tracking.sync import sync
    from ablate.run.store import StoreUnreachable

    def progress(done: int, total: int) -> None:
        counts[0], counts[1] = done, total

    ledger = Ledger(runs)
    try:
        return sync(collect(plan, ledger), ledger, uri, on_the_way, progress)
    except (TrackingUnavailable, StoreUnreachable) as error:
        return str(error)
