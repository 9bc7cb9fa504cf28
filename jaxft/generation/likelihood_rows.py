"""From requests (prompt, completion) to rows and batches of few shapes, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxft.data.buckets import assign, bucket_shapes
from jaxft.generation.prompts import bucket, pad
from jaxft.generation.sharing import shared_headers

ROOM = 256  # tokens of branches that a row may have beside as many as its prompt
BATCH = 64  # tokens: what a batch costs beside them
MUCH = 1024  # tokens: above, shapes of their own are worth their compilations
VERY_MUCH = 1 << 19  # and above, half as many again


class Completion(NamedTuple):
    """A completion's tokens, and the requests that ask for it."""

    tokens: Sequence[int]
    requests: list[int]


class Row(NamedTuple):
    """What is computed together: a trunk `tokens` and the completions that may follow it, each a branch.

    The trunk is the prompt; an encoder-decoder's is the start token, and `encoder` holds the prompt.
    """

    tokens: Sequence[int]
    completions: list[Completion]
    encoder: Sequence[int] | None
    member: int | None

    @property
    def length(self) -> int:
        # The last token of a completion is only ever a target.
        return len(self.tokens) + sum(len(completion.tokens) - 1 for completion in self.completions)


class Batch(NamedTuple):
    """Row numbers, the rows and tokens `T` that they are padded to, and the tokens `S` of the encoder."""

    rows: list[int]
    size: int
    length: int
    encoder_length: int


class Group(NamedTuple):
    """Batches whose rows begin with the same `header` tokens; 0: with nothing in common."""

    header: int
    batches: list[Batch]


Places = list[list[tuple[list[int], list[int]]]]  # of each row's completions: positions and which target, in the batch


def rows_of(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    members: np.ndarray | None,
    start: int | None,
    share: bool,
) -> list[Row]:
    """Return the rows that answer all requests; `share=False`: a row each. `start` begins a decoder's trunk."""
    asked: dict[tuple, dict[tuple, list[int]]] = {}
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        member = None if members is None else int(members[i])
        key = (tuple(prompt), member, None if share else i)
        asked.setdefault(key, {}).setdefault(tuple(completion), []).append(i)
    rows = []
    for (prompt, member, _), wanted in asked.items():
        trunk = prompt if start is None else (start,)
        row = Row(trunk, [], None if start is None else prompt, member)
        room = len(prompt) + ROOM
        for tokens, requests in wanted.items():
            if row.completions and row.length - len(trunk) + len(tokens) > room:
                rows.append(row)
                row = row._replace(completions=[])
            row.completions.append(Completion(tokens, requests))
        rows.append(row)
    return rows


def planned(rows: Sequence[Row], batch_size: int, headers: bool, devices: int = 1) -> list[Group]:
    """Return the batches of all rows, the longest first; rows of a batch are a multiple of `devices`."""
    if not rows:
        return []
    groups = shared_headers([row.tokens for row in rows]) if headers else [(0, list(range(len(rows))))]
    header_of = {i: header for header, members in groups for i in members}
    lengths = np.array([[row.length - header_of[i], len(row.encoder or ())] for i, row in enumerate(rows)])
    first = int(lengths.sum(axis=0).argmax())  # of an encoder-decoder, the side where the tokens are
    columns = [first, 1 - first] if lengths[:, 1].any() else [first]
    much = lengths.sum() > MUCH
    shapes = _shapes(lengths[:, columns], much)
    fitting = assign(lengths[:, columns], shapes)
    full = -(-batch_size // devices) * devices
    small = max(devices, full // 4 // devices * devices)
    plan = []
    for header, members in groups:
        ordered = sorted(members, key=lambda i: (fitting[i], lengths[i, first]))
        batches = []
        most = min(full, -(-bucket(len(members), 1) // devices) * devices)
        sizes = sorted({most, min(most, small)} if much else {most})
        for taken, count in _cut(ordered, [shapes[fitting[i]] for i in ordered], sizes):
            shape = dict(zip(columns, shapes[fitting[taken[-1]]], strict=True))
            batches.append(Batch(taken, count, shape[0], shape.get(1, 0)))
        plan.append(Group(header, batches[::-1]))
    return plan


def _cut(rows, shapes, sizes):
    """Return consecutive batches of `rows`, each padded to its last row's shape and to one of `sizes`.

    The cuts are those that pad least, by dynamic programming from the shortest rows on.
    """
    least, cuts = [0.0], [(0, 0)]
    for end in range(1, len(rows) + 1):
        tokens = sum(shapes[end - 1])
        costs = [(least[max(0, end - size)] + size * tokens + BATCH, max(0, end - size), size) for size in sizes]
        cost, start, size = min(costs)
        least.append(cost)
        cuts.append((start, size))
    batches, end = [], len(rows)
    while end:
        start, size = cuts[end]
        batches.append((rows[start:end], size))
        end = start
    return batches[::-1]


def pack(rows: Sequence[Row], shape: Batch, header: int, offset: int) -> tuple[dict[str, np.ndarray], Places]:
    """Return the arrays of a batch and where each completion's log-probabilities will be.

    `header` tokens of every trunk are left out; what follows them begins at position `offset`.
    """
    tokens, positions, branches = ([] for _ in range(3))
    for row in rows:
        trunk = row.tokens[header:]
        written, steps, branch = [*trunk], list(range(offset, offset + len(trunk))), [0] * len(trunk)
        for number, completion in enumerate(row.completions, 1):
            inner = completion.tokens[:-1]
            written += inner
            steps += range(offset + len(trunk), offset + len(trunk) + len(inner))
            branch += [number] * len(inner)
        tokens.append(written)
        positions.append(steps)
        branches.append(branch)
    batch = pad(tokens, shape.size, size=shape.length)
    batch["positions"] = _filled(positions, batch["tokens"])
    if any(any(branch) for branch in branches):
        batch["branches"] = _filled(branches, batch["tokens"])
    if shape.encoder_length:
        batch |= pad([row.encoder or () for row in rows], shape.size, "encoder_", size=shape.encoder_length)
    targets, places = _targets(rows, header, shape)
    return batch | targets, places


def _targets(rows, header, shape):
    index: dict[int, list[int]] = {}  # position in the batch -> the targets that it predicts
    places: Places = []
    for i, row in enumerate(rows):
        end = i * shape.length + len(row.tokens) - header
        start, own = end, []
        for completion in row.completions:
            inner = len(completion.tokens) - 1
            at = [end - 1, *range(start, start + inner)]
            start += inner
            which = []
            for position, target in zip(at, completion.tokens, strict=True):
                wanted = index.setdefault(position, [])
                wanted.append(target)
                which.append(len(wanted) - 1)
            own.append((at, which))
        places.append(own)
    order = {position: u for u, position in enumerate(index)}
    # One position a row, or as many as there are: what is not asked for is skipped.
    size = bucket(shape.size, 1)
    size = size if len(index) <= size else size * shape.length
    targets = np.zeros((size, _power(max(map(len, index.values())))), np.int32)
    for u, wanted in enumerate(index.values()):
        targets[u, : len(wanted)] = wanted
    flat = np.zeros(size, np.int32)
    flat[: len(index)] = list(index)
    found = [[([order[position] for position in at], which) for at, which in own] for own in places]
    return {"at": flat, "targets": targets, "used": np.int32(len(index))}, found


def _shapes(lengths, much):
    """Return the padded shapes that pad least; of little work powers of two, which the next call will meet too."""
    if not much:
        powers = np.array(sorted({tuple(map(bucket, row)) for row in lengths.tolist()}))
        return tuple(map(tuple, np.unique(np.maximum.accumulate(powers), axis=0).tolist()))  # the last holds all
    shapes = bucket_shapes(lengths, num_buckets=8 if lengths.sum() < VERY_MUCH else 12, multiple=16)
    return tuple(dict.fromkeys(tuple(map(_rounded, shape)) for shape in shapes))


def _rounded(length):
    """Return `length` up to the next multiple of 16, of 32 above 256, of 64 above 512 and so on."""
    step = max(16, bucket(length, 16) // 16)
    return -(-length // step) * step


def _power(least):
    size = 4
    while size < least:
        size *= 4
    return size


def _filled(rows, like):
    array = np.zeros_like(like)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array
