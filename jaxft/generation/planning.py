"""Which prompts are decoded together, and in which few shapes, each of which is a compilation.

Prompts are taken in order of length, so that a batch pads little. Few are padded to powers of two, in batches of one
number of rows: what one set compiles, the next one finds. Of many, padding costs more than compiling: then lengths are
those, of a finer grid, that pad least (`jaxft.data.buckets`), and shorter prompts are decoded by twice or four times as
many, as far as a batch does not hold more tokens than one of the longest prompts does.

>>> [(batch.rows, batch.length, len(batch.prompts)) for batch in planned([30, 500] * 2, 2, room=32)]
[(2, 512, 2), (2, 32, 2)]
>>> plan = planned([30] * 900 + [500] * 300, 8, room=32)
>>> sorted({(batch.rows, batch.length) for batch in plan}), len(plan)
([(8, 512), (32, 32)], 66)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxft.data.buckets import assign, bucket_shapes
from jaxft.generation.prompts import bucket, groups, padded_rows

MANY = 1 << 17  # tokens, prompts and room: a compilation costs about as much as some ten thousand
SHAPES = 8
MOST = 4  # times the batch size


class Batch(NamedTuple):
    """Numbers of prompts, the longest batch first; the rows and the length that they are padded to."""

    prompts: list[int]
    rows: int
    length: int


def planned(lengths: Sequence[int], batch_size: int, room: int) -> list[Batch]:
    """Return the batches of prompts of these lengths, to each of which up to `room` tokens are added."""
    if sum(lengths) + room * len(lengths) < MANY:
        count = padded_rows(len(lengths), batch_size)
        return [Batch(one, count, bucket(max(lengths[i] for i in one))) for one in groups(lengths, batch_size)]
    rounded = np.array([[grid(length)] for length in lengths])
    shapes = bucket_shapes(rounded, SHAPES, 1)
    fitting = assign(rounded, shapes)
    held = batch_size * (shapes[-1][0] + room)
    plan: list[Batch] = []
    left: list[int] = []
    for which, (length,) in enumerate(shapes):
        count = batch_size * min(MOST, 1 << (held // (length + room) // batch_size).bit_length() - 1)
        members = sorted([*left, *np.flatnonzero(fitting == which).tolist()], key=lambda i: lengths[i])
        # What does not fill a batch goes up to the next length; only the very last batch has empty rows.
        whole = len(members) if length == shapes[-1][0] else len(members) // count * count
        plan += [Batch(members[i : min(i + count, whole)], count, length) for i in range(0, whole, count)]
        left = members[whole:]
    return plan[::-1]


def grid(length: int) -> int:
    """Return the padded length of the finer grid: a multiple of 16, of 32 above 256, of 64 above 512 and so on.

    >>> [grid(n) for n in (5, 130, 300, 500, 600, 1030)]
    [16, 144, 320, 512, 640, 1152]
    """
    step = max(16, bucket(length) // 16)
    return -(-length // step) * step
