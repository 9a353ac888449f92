"""Waiting for a store of files that is away for a moment: a restart, a network that broke."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 60.0
"""How long a sweep waits for its run folder's object store: as long as other drivers wait for this
one before they take over."""
RETRY_SECONDS = 2.0

T = TypeVar("T")


class Patience:
    """Calls that are made again while the store they ask is away, for `seconds` in all.

    The time counts from the first failure on, over all calls, and anew after a call that gets an
    answer: once it is up, no further call waits.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: float | None = None

    def ask(self, call: Callable[[], T]) -> T:
        """What the call returns. It must do no harm when made twice.

        Raises its OSError when the time is up; FileNotFoundError, which is an answer, at once.
        """
        while True:
            try:
                found = call()
            except FileNotFoundError:
                self._since = None
                raise
            except OSError:
                since = self._since = self._since or time.monotonic()
                if time.monotonic() - since >= self.seconds:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                self._since = None
                return found
