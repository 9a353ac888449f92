"""Who does what when several drivers share a run folder.

.leases/drivers/<owner>         kept fresh by a living driver
.leases/claims/<name>@<owner>   what that driver does at the moment: a trial, a study's baselines

Object stores lack atomic renames and creation of absent files only, so a claim needs neither: a
driver writes its own claim, then lists. Of two drivers that write before they list, at least one
sees the other; whoever sees another's living claim steps back and asks again later.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from ablate.run.store import Store, StoreUnreachable
from trainables.scratch import host, process_lives

LEASE_SECONDS = 60.0
"""A driver that kept its file fresh no later than so long ago is alive."""
BEAT_SECONDS = 10.0
WAIT_SECONDS = 1.0
"""Mean time between two looks at what another driver has claimed."""

DRIVERS, CLAIMS = ".leases/drivers", ".leases/claims"


class Leases(AbstractContextManager["Leases"]):
    """One driver's claims on a run folder; they end with the block.

    `say` is told, once a wait, which driver is waited for and at its end how long that took.
    """

    def __init__(self, store: Store, say: Callable[[str], None] = lambda text: None) -> None:
        self.store, self.say = store, say
        self.owner = f"{host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._held: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Leases:
        self.store.write(self._file, b"")
        for file in dead(self.store, self._file):
            self.store.delete(file)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)
        self.store.delete(self._file)

    def claim(self, name: str) -> bool:
        """Whether `name` is now this driver's alone; False while another living driver has it."""
        if name in self._held:
            return True
        self.store.write(self.place(name), b"")
        if any(claimed == name for claimed in self.elsewhere()):
            self.store.delete(self.place(name))
            return False
        self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Let others have `name`."""
        self._held.discard(name)
        self.store.delete(self.place(name))

    def elsewhere(self) -> set[str]:
        """What other living drivers have claimed. Claims of dead ones are removed."""
        found = set()
        for file in self.store.children(CLAIMS):
            name, _, owner = file.rpartition("@")
            if owner == self.owner:
                continue
            if alive(self.store, owner, self._file):
                found.add(name)
            else:
                self.store.delete(f"{CLAIMS}/{file}")
        return found

    @contextlib.contextmanager
    def holding(self, *names: str, doing: str) -> Iterator[None]:
        """The block runs while no other driver holds any of `names`, all of which are for `doing`
        the same; waits for them."""
        wait, held = Wait(self.say), []
        try:
            # All drivers ask in one order, so no two wait for each other.
            for name in sorted(set(names)):
                while not self.claim(name):
                    wait.on(f"{self.holders([name])}, which is {doing}")
                    time.sleep(WAIT_SECONDS * random.uniform(0.5, 1.5))
                held.append(name)
            wait.over()
            yield
        finally:
            for name in held:
                self.release(name)

    def holders(self, names: Iterable[str]) -> str:
        """The other living drivers that have claimed one of `names`, for a person."""
        known, wanted = claims(self.store), set(names)
        owners = sorted({known[name] for name in wanted & known.keys()} - {self.owner})
        places = [owner.rsplit(".", 2)[:2] for owner in owners]
        said = " and ".join(f"process {number} on {place}" for place, number in places)
        return f"another driver ({said})" if said else "another driver"

    def place(self, name: str) -> str:
        """The file of this driver's claim on `name`; when it is gone, another took over."""
        return f"{CLAIMS}/{name}@{self.owner}"

    @property
    def _file(self) -> str:
        return f"{DRIVERS}/{self.owner}"

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            # A store that is away for a moment costs at worst the claims, never the sweep.
            with contextlib.suppress(OSError, StoreUnreachable):
                self.store.touch(self._file)


class Wait:
    """Says what is waited for, once, and at the end how long it took."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None

    def on(self, what: str) -> None:
        """The wait goes on."""
        if self._since is None:
            self._since = time.monotonic()
            self._say(f"Waiting for {what}")

    def over(self) -> None:
        """The wait is over, if there was one."""
        if self._since is not None:
            self._say(f"Waited {time.monotonic() - self._since:.0f} s")
            self._since = None


def claims(store: Store) -> dict[str, str]:
    """What living drivers have claimed -> the driver."""
    pairs = (file.rpartition("@")[::2] for file in store.children(CLAIMS))
    return {name: owner for name, owner in pairs if alive(store, owner)}


def dead(store: Store, now_file: str | None = None) -> list[str]:
    """The files of drivers that no longer live."""
    files = [f"{CLAIMS}/{file}" for file in store.children(CLAIMS)]
    files += [f"{DRIVERS}/{file}" for file in store.children(DRIVERS)]
    owners = {file: file.rpartition("/")[2].rpartition("@")[2] for file in files}
    living = {owner: alive(store, owner, now_file) for owner in set(owners.values())}
    return [file for file in files if not living[owners[file]]]


def alive(store: Store, owner: str, now_file: str | None = None) -> bool:
    """Whether a driver lives: its process, on this host, and its file is fresh.

    Ages are by the store's clock, which `now_file` tells when it has just been kept fresh.
    """
    fresh = store.modified(f"{DRIVERS}/{owner}")
    if fresh is None or not process_lives(owner):
        return False
    now = time.time()
    if now_file is not None:
        now = store.modified(now_file) or now
    return now - fresh <= LEASE_SECONDS
