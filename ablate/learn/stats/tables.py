"""Results as tables: rows are frozen dataclasses, columns are arrays by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

Row = TypeVar("Row")


class Table(Sequence[Row], Generic[Row]):
    """Rows in order: `table[0].effect`, `table["effect"]` and `table.effect` all work.

    `table.columns` are the names; `to_frame()` is a pandas DataFrame with the same columns.
    """

    def __init__(self, kind: type[Row], rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        self.columns: tuple[str, ...] = tuple(
            item.name
            for item in fields(kind)  # type: ignore[arg-type]
        )

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Row, ...]: ...
    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Row | tuple[Row, ...] | NDArray[Any]:
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self.columns:
            raise KeyError(f"{key!r} is no column; columns: {', '.join(self.columns)}")
        return np.array([getattr(row, key) for row in self._rows])

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_") or name not in self.columns:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self[name]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"Table({len(self)} rows: {', '.join(self.columns)})"

    def to_frame(self) -> DataFrame:
        """The table as a pandas DataFrame, one row per row."""
        import pandas as pd

        rows = [asdict(row) for row in self._rows]  # type: ignore[call-overload]
        return pd.DataFrame(rows, columns=list(self.columns))
