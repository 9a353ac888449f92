"""What a watched trial leaves at each look, score by score, and what it is told: to stop.

A folder in the run folder, on local disk or on an object store, that the trial and the driver of
the sweep both reach. What a running trial reports are a few means; a paired test needs the scores
per query, and a driver that starts again needs the looks of those before it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainables.patience import PATIENCE_SECONDS, Patience

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STOPPED = "stop/"
"""How the names of a stopped trial's metrics begin: they are not those of a trial at its end."""

STOP = "stop.json"
SPARED = "spared"


class Looks:
    """The looks of one trial, in a folder given by a local path or a URI that pyarrow knows."""

    def __init__(self, place: str) -> None:
        from pyarrow import fs

        self._files, self._folder = fs.FileSystem.from_uri(place)
        self._local = isinstance(self._files, fs.LocalFileSystem)
        self._patience = Patience(0.0 if self._local else PATIENCE_SECONDS)

    def write(self, step: int, scores: NDArray[np.float64]) -> None:
        """Keep the scores per query [queries] of the look at `step`."""
        import numpy as np

        stream = io.BytesIO()
        np.save(stream, scores)
        self._put(f"{step}.npy", stream.getvalue())

    def read(self, step: int) -> NDArray[np.float64] | None:
        """The scores per query [queries] of the look at `step`, or None without one."""
        import numpy as np

        content = self._get(f"{step}.npy")
        if content is None:
            return None
        scores: NDArray[np.float64] = np.load(io.BytesIO(content), allow_pickle=False)
        return scores

    def steps(self) -> list[int]:
        """The steps of the looks that are kept, ascending."""
        names = [name.removesuffix(".npy") for name in self._names() if name.endswith(".npy")]
        return sorted(int(name) for name in names)

    def stop(self, step: int, reason: str) -> None:
        """Tell the trial to stop: at `step`, or as soon after it as it hears of it."""
        self._put(STOP, json.dumps({"step": step, "reason": reason}).encode())

    def told(self, step: int) -> str | None:
        """Why a trial that has done `step` steps is to stop; None to go on."""
        content = self._get(STOP)
        if content is None:
            return None
        found: dict[str, Any] = json.loads(content)
        return str(found["reason"]) if step >= found["step"] else None

    def spare(self) -> None:
        """Take back that the trial is to stop; no rule will stop it again."""
        self._put(SPARED, b"")
        if self._get(STOP) is not None:
            self._patience.ask(lambda: self._files.delete_file(self._path(STOP)))

    @property
    def spared(self) -> bool:
        """Whether the trial is to go to its end whatever a rule says."""
        return self._get(SPARED) is not None

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _put(self, name: str, content: bytes) -> None:
        """In one step: a file is there whole or not at all."""
        # An object store puts a file whole; a local one is moved into place.
        draft = self._path(f".{name}" if self._local else name)
        if self._local:
            self._files.create_dir(self._folder, recursive=True)

        def put() -> None:
            with self._files.open_output_stream(draft) as stream:
                stream.write(content)

        self._patience.ask(put)
        if self._local:
            self._files.move(draft, self._path(name))

    def _get(self, name: str) -> bytes | None:
        def get() -> bytes:
            with self._files.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
            return content

        try:
            return self._patience.ask(get)
        except FileNotFoundError:
            return None

    def _names(self) -> Iterator[str]:
        from pyarrow import fs

        selector = fs.FileSelector(self._folder, allow_not_found=True)
        for info in self._patience.ask(lambda: self._files.get_file_info(selector)):
            if not info.base_name.startswith("."):
                yield info.base_name
