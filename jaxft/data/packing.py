"""Packing: several examples in one row, each a segment of its own that sees nothing of the others.

Instruction examples are short and rows are as long as the longest; what is left of a row is computed all the same. So
the next example goes into the first of a few open rows that has room for it on every side (encoder and decoder of an
encoder-decoder). Where none has, a new row is opened, and of too many open ones the fullest is closed: the work is
linear in the number of examples.

>>> first_fit(np.array([[60], [50], [30], [45]]), (100,))
[[0, 2], [1, 3]]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.data.buckets import Shape


def first_fit(lengths: np.ndarray, shape: Shape, open_rows: int = 16) -> list[list[int]]:
    """Return the rows, each a list of positions in order, that examples of `lengths` `[examples, 1 or 2]` go into.

    Rows hold `shape` tokens on each side. Every example is in exactly one row; ValueError for one that fits into none.
    """
    too_long = (lengths > np.array(shape)).any(axis=1)
    if too_long.any():
        longest = lengths[too_long][0].tolist()
        raise ValueError(f"an example of {longest} tokens is longer than a row of {list(shape)}")
    rows: list[list[int]] = []
    free: list[list[int]] = []  # room in the open rows, oldest first; plain numbers: arrays would be ten times slower
    number: list[int] = []
    for i, size in enumerate(lengths.tolist()):
        first, last = size[0], size[-1]
        for place, room in enumerate(free):
            if room[0] >= first and room[-1] >= last:
                rows[number[place]].append(i)
                free[place] = [have - used for have, used in zip(room, size, strict=True)]
                break
        else:
            if len(free) == open_rows:
                shares = [min(have / whole for have, whole in zip(room, shape, strict=True)) for room in free]
                fullest = shares.index(min(shares))
                del free[fullest], number[fullest]
            free.append([whole - used for whole, used in zip(shape, size, strict=True)])
            number.append(len(rows))
            rows.append([i])
    return rows


def packed_shape(lengths: np.ndarray, length: int | None = None, multiple: int = 32) -> Shape:
    """Return the row that examples of `lengths` `[examples, columns]` are packed in: multiples of `multiple`.

    The first column is `length`, or as much as the longest example takes. The decoder of an encoder-decoder gets as
    much as its share of all tokens asks for, and a tenth more, so that neither side is full long before the other.
    """
    longest = lengths.max(axis=0)
    first = max(int(longest[0]), length or 0)
    others = np.maximum(longest[1:], 1.1 * first * lengths[:, 1:].sum(axis=0) / max(lengths[:, 0].sum(), 1))
    return tuple(int(-(-max(size, 1) // multiple) * multiple) for size in (first, *others))


def as_array(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return `[rows, most]` positions, -1 where a row has fewer."""
    filled = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return filled
