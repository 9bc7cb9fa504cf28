"""Rows: examples as a source gives them, each with a name and a place.

A row is a plain dict. What is kept beside it is what an error or a prediction has to say later: the split, the row's
position in its source (an id that survives shuffling and limits), and the file and line it came from.

>>> rows = Rows([{"q": "1+1", "a": "2"}, {"q": "2+2", "a": "4"}], split="train")
>>> rows.take([1]).id(0), rows.place(0)
('train:1', 'train row 1')
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxft.errors import UsageError, nearest

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of one split; `indices` and `places` (both optional) say where in the source each one lies."""

    rows: Sequence[Row]
    split: str = "rows"
    indices: Sequence[int] | None = None
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.indices is None else len(self.indices)

    def __getitem__(self, i: int) -> Row:
        return self.rows[self.index(i)]

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the first row's fields."""
        return tuple(self[0]) if len(self) else ()

    def index(self, i: int) -> int:
        """Return the position of row `i` in its source."""
        return range(len(self.rows))[i] if self.indices is None else int(self.indices[i])

    def id(self, i: int) -> str:
        """Return the row's own `id` field, or `split:index`."""
        own = self[i].get("id")
        return f"{self.split}:{self.index(i)}" if own is None or own == "" else str(own)

    def place(self, i: int) -> str:
        """Return `file:line` of row `i`, or the split and its row number counted from 1."""
        index = self.index(i)
        return self.places[index] if self.places is not None else f"{self.split} row {index + 1}"

    def take(self, positions: Sequence[int]) -> Rows:
        """Return the rows at `positions`; ids and places stay those of the source."""
        return dataclasses.replace(self, indices=[self.index(i) for i in positions])

    def limit(self, count: int | None) -> Rows:
        """Return the first `count` rows (all of them for None)."""
        return self if count is None or count >= len(self) else self.take(range(count))


class Unusable(dict):
    """A row as its source has it that cannot be used, and the `reason`; it is counted where examples are made."""

    def __init__(self, row: Row, reason: str):
        super().__init__(row)
        self.reason = reason


def check_columns(rows: Rows, columns: Sequence[str], source: str) -> None:
    """Raise UsageError for the first of `columns` that no row has, naming the nearest column there is."""
    for column in columns:
        if column not in rows.columns and not any(column in row for row in rows):
            raise UsageError(f"{source}: no column {column!r}{nearest(column, rows.columns)}")
