"""What a one-worker trial goes on from when its process or node is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from ablate.run.store import Store
from trainables.whole import SEAL, is_whole

PLACES = ("resume", "resume-other")
"""Folders of a trial. An object store, where a folder cannot be put in place in one step, has both
by turns: while one is being replaced the other is whole."""


class Resume:
    """The state of an unfinished training in its run folder."""

    def __init__(self, store: Store, trial_id: str) -> None:
        self._store = store
        names = PLACES if store.local is None else PLACES[:1]
        self._places = [f"trials/{trial_id}/{name}" for name in names]

    def keep(self, folder: Path) -> None:
        """Move a sealed folder here; what is kept so far stays until that is done."""
        self._store.publish(folder, self._places[0])
        self._places.reverse()

    def newest(self, copies: Path) -> Path | None:
        """A local folder with what was kept last and is whole, or None; copies go below `copies`.

        What is kept next replaces another.
        """
        ages = {place: self._store.modified(f"{place}/{SEAL}") or 0.0 for place in self._places}
        for place in sorted(self._places, key=lambda place: -ages[place]):
            copy = copies / Path(place).name
            folder = self._store.fetch(place, copy)
            if folder is not None and is_whole(folder, sealed=True):
                self._places.sort(key=lambda other: other == place)
                return folder
            shutil.rmtree(copy, ignore_errors=True)
        return None

    def delete(self) -> None:
        """Remove all of it."""
        for place in self._places:
            self._store.delete(place)
