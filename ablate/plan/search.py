"""What an adaptive search of one cell has come to: a value that the study's folder keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.spec import Scalar


@dataclass(frozen=True)
class Search:
    """The draws of a cell after its first ones, which are the study's and shared by all cells.

    A draw is chosen once all but the last `together - 1` draws before it have ended, and by those
    scores alone, so that it does not depend on which of them end first.
    """

    first: int
    """How many of the study's draws it began with."""
    together: int
    """How many of its draws may run at once."""
    draws: tuple[Mapping[str, Scalar], ...] = ()

    def to_json(self, cell: str, trial_ids: Sequence[str]) -> dict[str, Any]:
        """The search as JSON values; `trial_ids` are those of `draws`."""
        pairs = zip(trial_ids, self.draws, strict=True)
        rows = [{"trial_id": trial_id, "values": dict(values)} for trial_id, values in pairs]
        return {"cell": cell, "first": self.first, "together": self.together, "draws": rows}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Search:
        """The search written by `to_json`."""
        draws = tuple(row["values"] for row in content["draws"])
        return cls(content["first"], content["together"], draws)
