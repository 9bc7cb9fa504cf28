"""Batches: fixed shapes, a pure function of (seed, step).

Each epoch has a plan drawn from (seed, epoch) alone: the examples are shuffled, grouped by length bucket, and cut into
batches whose order is shuffled again. What is left over in a bucket moves up to the next larger one, and the very last
batch is filled with rows of weight 0. So every example is seen exactly once an epoch, there are never more shapes
than buckets, and a resumed run needs nothing but the step. `plan_hash` tells whether the data is still the same.

    batches = Batches(examples, batch_size=8, seed=0, pad_token_id=tokenizer.pad_token_id)
    for step, batch in prefetch(batches, start=0, stop=3 * batches.steps_per_epoch):
        ...

A batch maps names to `[B, T]` arrays (`[B, S]` for the encoder's): tokens, positions, segments, targets, weights; see
`collate`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from jaxft.data.buckets import Shape, assign, bucket_shapes
from jaxft.data.encoding import Encoded
from jaxft.data.shuffling import permutation
from jaxft.errors import Error, UsageError

Batch = dict[str, np.ndarray]


class Batches:
    """The batches of a split. `shuffle=False` keeps the examples' order (for evaluation); only the tail is padded.

    An encoder-decoder's batches are made when `decoder_start_token_id` is given. `shapes` fixes the padded shapes;
    by default they are chosen from the lengths, at most `num_buckets`.
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
    ):
        if not examples:
            raise UsageError("there are no examples to make batches of")
        if batch_size < 1 or num_buckets < 1 or multiple < 1:
            raise UsageError(f"batch_size {batch_size}, num_buckets {num_buckets}, multiple {multiple}: use at least 1")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id
        lengths = example_lengths(examples, decoder_start_token_id is not None)
        self.shapes = tuple(shapes) if shapes else bucket_shapes(lengths, num_buckets, multiple)
        self._buckets = assign(lengths, self.shapes)
        self._cached: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in which every example is seen once."""
        return -(-len(self.examples) // self.batch_size)

    def plan(self, epoch: int) -> np.ndarray:
        """Return `[steps, B]` positions of examples, -1 for a row of padding."""
        cached = self._cached
        if cached is None or cached[0] != epoch:
            rows = _shuffled(self._buckets, self.batch_size, self.seed, epoch) if self.shuffle else _in_order(self)
            self._cached = cached = (epoch, rows)
        return cached[1]

    def rows(self, step: int) -> np.ndarray:
        """Return the positions of the examples in the batch of a global step."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        rows = self.plan(epoch)[offset]
        return rows[rows >= 0]

    def ids(self, step: int) -> list[str]:
        """Return the names of the examples in the batch of a global step."""
        return [self.examples[i].id for i in self.rows(step)]

    def shape(self, step: int) -> Shape:
        """Return the padded lengths of the batch of a global step."""
        return self.shapes[self._buckets[self.rows(step)].max()]

    def batch(self, step: int) -> Batch:
        """Return the arrays of a global step; Error if not one target token counts."""
        examples = [self.examples[i] for i in self.rows(step)]
        batch = collate(examples, self.batch_size, self.shape(step), self.pad_token_id, self.decoder_start_token_id)
        if not batch["weights"].any():
            raise Error(f"the batch of step {step} has no target token; its examples: {', '.join(self.ids(step))}")
        return batch

    def plan_hash(self, epoch: int = 0) -> str:
        """Return a digest of the epoch's plan and of every example's tokens, to be kept in checkpoints."""
        digest = hashlib.sha256(repr((self.batch_size, self.shapes)).encode())
        digest.update(self.plan(epoch).astype("<i8").tobytes())
        for example in self.examples:
            digest.update(np.array([len(example.prompt), len(example.completion)], "<i8").tobytes())
            digest.update(example.prompt.astype("<i4").tobytes() + example.completion.astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def evaluation_batches(examples: Sequence[Encoded], batch_size: int, **options) -> Batches:
    """Return the examples' batches in order, each seen once; options as for `Batches`."""
    return Batches(examples, batch_size, shuffle=False, **options)


def example_lengths(examples: Sequence[Encoded], encoder_decoder: bool) -> np.ndarray:
    """Return `[examples, 1]` lengths of a decoder's inputs, or `[examples, 2]` of encoder and decoder inputs."""
    if encoder_decoder:
        return np.array([[len(example.prompt), len(example.completion)] for example in examples])
    # The last token is only ever a target.
    return np.array([[len(example.prompt) + len(example.completion) - 1] for example in examples])


def collate(
    examples: Sequence[Encoded],
    batch_size: int,
    shape: Shape,
    pad_token_id: int = 0,
    decoder_start_token_id: int | None = None,
) -> Batch:
    """Return examples as one right-padded batch of `batch_size` rows; missing rows are padding (segment 0, weight 0).

    `targets[t]` is the token that follows `tokens[t]`; `weights` is 1.0 where it belongs to the completion. With
    `decoder_start_token_id` the prompt goes to `encoder_*` and tokens are the completion shifted right.
    """
    batch = _empty("", batch_size, shape[-1], pad_token_id)
    batch["targets"] = np.full((batch_size, shape[-1]), pad_token_id, np.int32)
    batch["weights"] = np.zeros((batch_size, shape[-1]), np.float32)
    encoder = _empty("encoder_", batch_size, shape[0], pad_token_id) if decoder_start_token_id is not None else {}
    for row, example in enumerate(examples):
        if decoder_start_token_id is None:
            tokens = np.concatenate([example.prompt, example.completion])
            first = max(len(example.prompt) - 1, 0)
        else:
            tokens = np.concatenate([np.array([decoder_start_token_id], np.int32), example.completion])
            first = 0
            _write(encoder, "encoder_", row, example.prompt)
        _write(batch, "", row, tokens[:-1])
        batch["targets"][row, : len(tokens) - 1] = tokens[1:]
        batch["weights"][row, first : len(tokens) - 1] = 1.0
    return batch | encoder


def _empty(prefix: str, rows: int, length: int, pad_token_id: int) -> Batch:
    zeros = {f"{prefix}{name}": np.zeros((rows, length), np.int32) for name in ("positions", "segments")}
    return {f"{prefix}tokens": np.full((rows, length), pad_token_id, np.int32), **zeros}


def _write(batch: Batch, prefix: str, row: int, tokens: np.ndarray) -> None:
    batch[f"{prefix}tokens"][row, : len(tokens)] = tokens
    batch[f"{prefix}positions"][row, : len(tokens)] = np.arange(len(tokens))
    batch[f"{prefix}segments"][row, : len(tokens)] = 1


def _shuffled(buckets: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    order = permutation(seed, len(buckets), epoch)
    batches, left = [], order[:0]
    for bucket in range(int(buckets.max()) + 1):
        members = np.concatenate([left, order[buckets[order] == bucket]])
        whole = len(members) // batch_size * batch_size
        batches.append(members[:whole].reshape(-1, batch_size))
        left = members[whole:]
    rows = np.concatenate([*batches, _padded(left, batch_size)])
    return rows[permutation(seed, len(rows), epoch, stream=1)]


def _in_order(batches: Batches) -> np.ndarray:
    return _padded(np.arange(len(batches.examples)), batches.batch_size)


def _padded(rows: np.ndarray, batch_size: int) -> np.ndarray:
    missing = -len(rows) % batch_size
    return np.concatenate([rows, np.full(missing, -1)]).reshape(-1, batch_size)
