"""Collating: examples as the arrays of one right-padded batch.

Examples of one row are segments 1, 2, ... whose positions start at 0; attention keeps to a segment, and in an
encoder-decoder the segments of both sides have the same numbers. `targets[t]` is the token that follows `tokens[t]` in
the same example: an example's last token is only ever a target and its first is none, so rows never learn across.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.data.buckets import Shape
from jaxft.data.encoding import Encoded

Batch = dict[str, np.ndarray]


def collate(
    examples: Sequence[Encoded],
    batch_size: int,
    shape: Shape,
    pad_token_id: int = 0,
    decoder_start_token_id: int | None = None,
    tasks: Sequence[str] = (),
) -> Batch:
    """Return a batch of `batch_size` rows with an example each; missing rows are padding (segment 0, weight 0).

    Otherwise as `collate_rows`.
    """
    rows = [[example] for example in examples] + [[]] * (batch_size - len(examples))
    return collate_rows(rows, shape, pad_token_id, decoder_start_token_id, tasks)


def collate_rows(
    rows: Sequence[Sequence[Encoded]],
    shape: Shape,
    pad_token_id: int = 0,
    decoder_start_token_id: int | None = None,
    tasks: Sequence[str] = (),
) -> Batch:
    """Return a batch of rows that hold any number of examples each, `shape` tokens long.

    `weights` is 1.0 where the target belongs to the completion (and, where an example says which of it count, counts).
    With `decoder_start_token_id` the prompt goes to `encoder_*` and tokens are the completion shifted right. With
    `tasks` there is `tasks` too: the position of the example's task among them.
    """
    batch = _empty("", len(rows), shape[-1], pad_token_id)
    batch["targets"] = np.full((len(rows), shape[-1]), pad_token_id, np.int32)
    batch["weights"] = np.zeros((len(rows), shape[-1]), np.float32)
    encoder_decoder = decoder_start_token_id is not None
    encoder = _empty("encoder_", len(rows), shape[0], pad_token_id) if encoder_decoder else {}
    number = {name: i for i, name in enumerate(tasks)}
    if tasks:
        batch["tasks"] = np.zeros((len(rows), shape[-1]), np.int32)
    for row, examples in enumerate(rows):
        start = encoder_start = 0
        for segment, example in enumerate(examples, start=1):
            if decoder_start_token_id is None:
                tokens = np.concatenate([example.prompt, example.completion])
                first = max(len(example.prompt) - 1, 0)
            else:
                tokens = np.concatenate([np.array([decoder_start_token_id], np.int32), example.completion])
                first = 0
                encoder_start = _write(encoder, "encoder_", row, encoder_start, segment, example.prompt)
            end = _write(batch, "", row, start, segment, tokens[:-1])
            batch["targets"][row, start:end] = tokens[1:]
            batch["weights"][row, start + first : end] = _counted(example, end - start - first)
            if tasks:
                batch["tasks"][row, start:end] = number[example.task]
            start = end
    return batch | encoder


def _empty(prefix: str, rows: int, length: int, pad_token_id: int) -> Batch:
    zeros = {f"{prefix}{name}": np.zeros((rows, length), np.int32) for name in ("positions", "segments")}
    return {f"{prefix}tokens": np.full((rows, length), pad_token_id, np.int32), **zeros}


def _write(batch: Batch, prefix: str, row: int, start: int, segment: int, tokens: np.ndarray) -> int:
    end = start + len(tokens)
    batch[f"{prefix}tokens"][row, start:end] = tokens
    batch[f"{prefix}positions"][row, start:end] = np.arange(len(tokens))
    batch[f"{prefix}segments"][row, start:end] = segment
    return end


def _counted(example: Encoded, targets: int) -> np.ndarray | float:
    # Without a prompt the completion's first token is no target.
    return 1.0 if example.counted is None else example.counted[len(example.counted) - targets :]
