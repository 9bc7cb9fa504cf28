"""From texts or token ids to the few padded shapes that are compiled.

Prompts are taken in order of length, a batch at a time, so that a batch pads little. Lengths are padded to powers of
two and rows to one number, so that a set of prompts meets few shapes, each of which is a compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.methods.bank import check_ids, members_of
from jaxft.models import T5

SMALLEST = 32


def bucket(length: int, smallest: int = SMALLEST) -> int:
    """Return the padded length: `smallest` times a power of two.

    >>> [bucket(n) for n in (1, 32, 33, 500)]
    [32, 32, 64, 512]
    """
    return max(smallest, 1 << max(length - 1, 0).bit_length())


def token_ids(model: Any, texts: Sequence[str | Sequence[int]], what: str, special: bool = True) -> list[list[int]]:
    """Return the token ids of `texts`, each a text or ids already.

    Raises `UsageError` naming `what` and the index of one that is empty, that needs a tokenizer where there is none,
    or that holds an id outside the vocabulary.
    """
    if isinstance(texts, str):
        raise UsageError(f"{what}s: give a list of texts, not one text")
    strings = [i for i, text in enumerate(texts) if isinstance(text, str)]
    if strings and model.tokenizer is None:
        raise UsageError(f"{what} {strings[0]}: the model has no tokenizer; load it with one, or give token ids")
    encoded = {}
    if strings:
        batch = model.tokenizer([texts[i] for i in strings], add_special_tokens=special, verbose=False)
        encoded = dict(zip(strings, batch["input_ids"], strict=True))
    ids = [list(map(int, encoded.get(i, text))) for i, text in enumerate(texts)]
    for i, row in enumerate(ids):
        if not row or (i in encoded and not str(texts[i])):
            raise UsageError(f"{what} {i}: it is empty; give at least one token")
        if min(row) < 0 or max(row) >= model.config.vocab_size:
            raise UsageError(f"{what} {i}: a token id is outside the vocabulary of {model.config.vocab_size}")
    return ids


def check_lengths(model: Any, variables: Any, lengths: Sequence[int], more: Sequence[int]) -> None:
    """Raise `UsageError` naming the first prompt that with `more` tokens exceeds a decoder-only model's context."""
    if isinstance(model.architecture, T5):
        return  # relative positions: no end
    soft = variables.get("bank", variables).get("prompt", {}).get("embedding")
    extra = 0 if soft is None else soft.shape[-2]
    limit = model.config.max_length
    for i, (length, new) in enumerate(zip(lengths, more, strict=True)):
        if extra + length + new > limit:
            parts = f"{length} tokens" + (f" behind a soft prompt of {extra}" if extra else "")
            raise UsageError(
                f"prompt {i}: {parts} and {new} new ones exceed the model's context of {limit}; shorten one of them"
            )


def member_ids(variables: Any, adapter_ids: Sequence[int] | None, rows: int) -> np.ndarray | None:
    """Return the checked member of each row, None where there is no bank; raise `UsageError` if only one is there."""
    if adapter_ids is None and "bank" not in variables:
        return None
    if adapter_ids is None or "bank" not in variables:
        raise UsageError("adapter_ids: give them where, and only where, the variables are a bank")
    check_ids(adapter_ids, rows, members_of(variables))
    return np.asarray(adapter_ids, np.int32)


def member_rows(members: np.ndarray | None, group: Sequence[int], count: int) -> dict[str, np.ndarray]:
    """Return what a batch of `count` rows, the first of which are `group`, says of its members."""
    return {} if members is None else {"adapter_ids": np.resize(members[list(group)], count)}


def groups(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the indices of each batch, the longest prompts first, so that memory fails at the start or never."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padded_rows(count: int, batch_size: int) -> int:
    """Return how many rows each batch of `count` examples has: a power of two where they are fewer than a batch."""
    return min(batch_size, bucket(count, 1))


def pad(
    rows: Sequence[Sequence[int]], count: int, prefix: str = "", smallest: int = SMALLEST, size: int | None = None
) -> dict[str, np.ndarray]:
    """Return `tokens`, `positions` and `segments` `[count, T]`, right-padded; missing rows hold one token 0.

    T is `size`, by default the bucket of the longest row.
    """
    shape = count, size or bucket(max(len(row) for row in rows), smallest)
    tokens, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments[:, 0] = 1
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        segments[i, : len(row)] = 1
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    return {f"{prefix}tokens": tokens, f"{prefix}positions": positions, f"{prefix}segments": segments}
