"""Batches: fixed shapes, a pure function of (seed, step).

Each epoch has a plan drawn from (seed, epoch) alone: the examples are shuffled, grouped by length bucket, and cut into
batches whose order is shuffled again. What is left over in a bucket moves up to the next larger one, and the very last
batch is filled with rows of weight 0. So every example is seen exactly once an epoch, there are never more shapes
than buckets, and a resumed run needs nothing but the step. `plan_hash` tells whether the data is still the same.

    batches = Batches(examples, batch_size=8, seed=0, pad_token_id=tokenizer.pad_token_id)
    for step, batch in prefetch(batches, start=0, stop=batches.steps(epochs=3)):
        ...

With a `mixture` an epoch holds what it draws in place of every example. With `packing` a row holds several examples
(see `jaxft.data.packing`) and there is one shape. How many rows that takes, and so how many steps, differs a little
between epochs. None is cut short or filled up, which would lose examples or time: the epoch of a step is found by
planning, not making, the ones before it, once.

A batch maps names to `[B, T]` arrays (`[B, S]` for the encoder's): tokens, positions, segments, targets, weights; see
`collate`.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxft.data.buckets import Shape, assign, bucket_shapes
from jaxft.data.collating import Batch, collate, collate_rows
from jaxft.data.encoding import Encoded
from jaxft.data.mixture import Mixture
from jaxft.data.packing import as_array, first_fit, packed_shape
from jaxft.data.shuffling import permutation
from jaxft.errors import Error, UsageError

__all__ = ["Batch", "Batches", "collate", "collate_rows", "evaluation_batches", "example_lengths"]


class Batches:
    """The batches of a split. `shuffle=False` keeps the examples' order (for evaluation); only the tail is padded.

    An encoder-decoder's batches are made when `decoder_start_token_id` is given. `shapes` fixes the padded shapes
    (packed rows have the last); by default they are chosen from the lengths, at most `num_buckets`, and packed rows are
    as long as the longest example or `row_length`. With `tasks`, the names of the examples' tasks, a batch's `tasks`
    `[B, T]` says which of them each token belongs to.
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        batch_size: int,
        *,
        seed: int = 0,
        pad_token_id: int = 0,
        decoder_start_token_id: int | None = None,
        num_buckets: int = 4,
        multiple: int = 32,
        shapes: Sequence[Shape] | None = None,
        shuffle: bool = True,
        mixture: Mixture | None = None,
        packing: bool = False,
        row_length: int | None = None,
        tasks: Sequence[str] = (),
    ):
        if not examples:
            raise UsageError("there are no examples to make batches of")
        if batch_size < 1 or num_buckets < 1 or multiple < 1:
            raise UsageError(f"batch_size {batch_size}, num_buckets {num_buckets}, multiple {multiple}: use at least 1")
        if mixture is not None and sum(mixture.counts.values()) != len(examples):
            raise UsageError(f"mixture: it is of {sum(mixture.counts.values())} examples, there are {len(examples)}")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.mixture = mixture
        self.packing = packing
        self.tasks = tuple(tasks)
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id
        self._lengths = example_lengths(examples, decoder_start_token_id is not None)
        self.shapes = tuple(shapes) if shapes else bucket_shapes(self._lengths, num_buckets, multiple)
        if packing:
            self.shapes = (self.shapes[-1] if shapes else packed_shape(self._lengths, row_length, multiple),)
        self._buckets = assign(self._lengths, self.shapes)
        self._cached: tuple[int, np.ndarray] | None = None
        self._starts: tuple[int, ...] = (0,)  # the first step of each epoch, as far as they are planned

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch: with packing, in the first one."""
        if self.packing:
            return self._start(1)
        return -(-(len(self.examples) if self.mixture is None else self.mixture.size) // self.batch_size)

    def steps(self, epochs: float) -> int:
        """Return the number of batches in `epochs` epochs, rounded up."""
        if not self.packing:
            return math.ceil(epochs * self.steps_per_epoch)
        whole = math.floor(epochs)
        return self._start(whole) + math.ceil((epochs - whole) * (self._start(math.ceil(epochs)) - self._start(whole)))

    def plan(self, epoch: int) -> np.ndarray:
        """Return `[steps, B]` positions of examples, -1 for a row of padding; packed, `[steps, B, most in a row]`."""
        cached = self._cached
        if cached is None or cached[0] != epoch:
            self._cached = cached = (epoch, self._planned(epoch))
        return cached[1]

    def rows(self, step: int) -> np.ndarray:
        """Return the positions of the examples in the batch of a global step."""
        rows = self._rows(step)
        return rows[rows >= 0]

    def seen(self, steps: int) -> np.ndarray:
        """Return the positions of the examples in the batches before step `steps`, each as often as it was seen."""
        found, epoch = [np.zeros(0, np.int64)], 0
        while self._start(epoch) < steps:
            rows = self.plan(epoch)[: steps - self._start(epoch)]
            found.append(rows[rows >= 0])
            epoch += 1
        return np.concatenate(found)

    def ids(self, step: int) -> list[str]:
        """Return the names of the examples in the batch of a global step."""
        return [self.examples[i].id for i in self.rows(step)]

    def shape(self, step: int) -> Shape:
        """Return the padded lengths of the batch of a global step."""
        return self.shapes[self._buckets[self.rows(step)].max()]

    def batch(self, step: int, shape: Shape | None = None) -> Batch:
        """Return the arrays of a global step, padded to `shape` if given; Error if not one target token counts."""
        rows = [[self.examples[i] for i in row if i >= 0] for row in self._rows(step).reshape(self.batch_size, -1)]
        batch = collate_rows(rows, shape or self.shape(step), **self._options)
        if not batch["weights"].any():
            raise Error(f"the batch of step {step} has no target token; its examples: {', '.join(self.ids(step))}")
        return batch

    def padding_batch(self, rows: int, shape: Shape) -> Batch:
        """Return a batch of `rows` rows without an example."""
        return collate_rows([[]] * rows, shape, **self._options)

    def padding(self, epoch: int = 0) -> float:
        """Return the share of an epoch's positions (of both sides) that hold no token."""
        plan = self.plan(epoch)
        buckets = np.where(plan >= 0, self._buckets[plan], 0).reshape(len(plan), -1).max(axis=1)
        padded = self.batch_size * np.array(self.shapes)[buckets].sum()
        return float(1 - self._lengths[plan[plan >= 0]].sum() / padded)

    def plan_hash(self, epoch: int = 0) -> str:
        """Return a digest of the epoch's plan and of every example's tokens, to be kept in checkpoints."""
        digest = hashlib.sha256(repr((self.batch_size, self.shapes)).encode())
        if self.mixture is not None:
            digest.update(repr(self.mixture).encode())
        digest.update(self.plan(epoch).astype("<i8").tobytes())
        for example in self.examples:
            digest.update(np.array([len(example.prompt), len(example.completion)], "<i8").tobytes())
            digest.update(example.prompt.astype("<i4").tobytes() + example.completion.astype("<i4").tobytes())
            if example.counted is not None:
                digest.update(np.packbits(example.counted).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "pad_token_id": self.pad_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
            "tasks": self.tasks,
        }

    def _rows(self, step: int) -> np.ndarray:
        if not self.packing:
            epoch, offset = divmod(step, self.steps_per_epoch)
            return self.plan(epoch)[offset]
        starts = self._starts
        while starts[-1] <= step:
            starts = self._planned_on(starts)
        epoch = bisect.bisect_right(starts, step) - 1
        return self.plan(epoch)[step - starts[epoch]]

    def _start(self, epoch: int) -> int:
        if not self.packing:
            return epoch * self.steps_per_epoch
        starts = self._starts
        while len(starts) <= epoch:
            starts = self._planned_on(starts)
        return starts[epoch]

    def _planned_on(self, starts: tuple[int, ...]) -> tuple[int, ...]:
        # Set whole: of threads that plan the same epochs, each finds the same.
        self._starts = longer = (*starts, starts[-1] + len(self.plan(len(starts) - 1)))
        return longer

    def _planned(self, epoch: int) -> np.ndarray:
        order = np.arange(len(self.examples)) if self.mixture is None else self.mixture.draw(epoch)
        if self.shuffle:
            order = order[permutation(self.seed, len(order), epoch)]
        if self.packing:
            return self._packed(order, epoch)
        if not self.shuffle:
            return _padded(order, self.batch_size)
        return _bucketed(order, self._buckets, self.batch_size, self.seed, epoch)

    def _packed(self, order: np.ndarray, epoch: int) -> np.ndarray:
        rows = as_array(first_fit(self._lengths[order], self.shapes[0]))
        rows = np.where(rows >= 0, order[rows], -1)
        if self.shuffle:  # rows that closed early hold longer examples
            rows = rows[permutation(self.seed, len(rows), epoch, stream=1)]
        missing = -len(rows) % self.batch_size
        rows = np.concatenate([rows, np.full((missing, rows.shape[1]), -1)])
        return rows.reshape(-1, self.batch_size, rows.shape[1])


def evaluation_batches(examples: Sequence[Encoded], batch_size: int, **options) -> Batches:
    """Return the examples' batches in order, each seen once; options as for `Batches`."""
    return Batches(examples, batch_size, shuffle=False, **options)


def example_lengths(examples: Sequence[Encoded], encoder_decoder: bool) -> np.ndarray:
    """Return `[examples, 1]` lengths of a decoder's inputs, or `[examples, 2]` of encoder and decoder inputs."""
    if encoder_decoder:
        return np.array([[len(example.prompt), len(example.completion)] for example in examples])
    # The last token is only ever a target.
    return np.array([[len(example.prompt) + len(example.completion) - 1] for example in examples])


def _bucketed(order: np.ndarray, buckets: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    batches, left = [], order[:0]
    for bucket in range(int(buckets.max()) + 1):
        members = np.concatenate([left, order[buckets[order] == bucket]])
        whole = len(members) // batch_size * batch_size
        batches.append(members[:whole].reshape(-1, batch_size))
        left = members[whole:]
    rows = np.concatenate([*batches, _padded(left, batch_size)])
    return rows[permutation(seed, len(rows), epoch, stream=1)]


def _padded(rows: np.ndarray, batch_size: int) -> np.ndarray:
    missing = -len(rows) % batch_size
    return np.concatenate([rows, np.full(missing, -1)]).reshape(-1, batch_size)
