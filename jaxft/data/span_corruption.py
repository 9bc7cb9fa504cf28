"""Span corruption: the text-to-text objective of T5 (Raffel et al. 2020, arXiv:1910.10683, section 3.3.4).

Spans of a text are left out, each replaced by a sentinel, and the completion says what they were:

    prompt       Thank you <extra_id_0> me to your party <extra_id_1> week. </s>
    completion   <extra_id_0> for inviting <extra_id_1> last <extra_id_2> </s>

How many tokens and spans that are follows from the length alone, so a text has the same lengths however it is
corrupted; where the spans lie is drawn from (seed, example, epoch) alone.

    pieces = cut(token_ids, 256)
    examples = span_corruption(pieces, tokenizer, seed=0, epochs=range(4))   # four different corruptions of each
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxft.data.encoding import Encoded
from jaxft.data.shuffling import permutation
from jaxft.errors import UsageError

DENSITY, MEAN_SPAN = 0.15, 3.0
_STREAM = 16  # small streams are other uses of chance


def sentinels(tokenizer: Any) -> np.ndarray:
    """Return int32 ids of `<extra_id_0>`, `<extra_id_1>` and so on; UsageError for a tokenizer without them."""
    found = {
        int(m[1]): i for token, i in tokenizer.get_vocab().items() if (m := re.fullmatch(r"<extra_id_(\d+)>", token))
    }
    ids = [found[n] for n in range(len(found)) if n in found]
    if len(ids) < 2:
        raise UsageError("span corruption: the tokenizer has no sentinels <extra_id_0>, <extra_id_1> ...; use a T5's")
    return np.array(ids, np.int32)


def noise(length: int, density: float = DENSITY, mean_span: float = MEAN_SPAN) -> tuple[int, int]:
    """Return how many of `length` tokens are left out, and in how many spans; both at least 1, never all tokens."""
    if length < 2 or not 0 < density < 1 or mean_span < 1:
        raise UsageError(
            f"span corruption: length {length}, density {density}, mean span {mean_span}: use at least 2 tokens, a "
            "density between 0 and 1 and spans of at least 1"
        )
    tokens = min(max(round(length * density), 1), length - 1)
    return tokens, min(max(round(tokens / mean_span), 1), tokens, length - tokens + 1)


def noise_mask(
    length: int, *, seed: int, example: int, epoch: int = 0, density: float = DENSITY, mean_span: float = MEAN_SPAN
) -> np.ndarray:
    """Return bool `[length]`, True where a token is left out; every arrangement of the spans is as likely."""
    tokens, spans = noise(length, density, mean_span)
    stream = _STREAM + 2 * example
    left_out = _parts(tokens, spans, permutation(seed, tokens - 1, epoch, stream))
    # What stays lies around the spans: only before the first and after the last may it be nothing.
    stays = _parts(length - tokens + 2, spans + 1, permutation(seed, length - tokens + 1, epoch, stream + 1))
    stays[[0, -1]] -= 1
    runs = np.stack([stays, np.append(left_out, 0)], axis=1).reshape(-1)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def corrupt(tokens: np.ndarray, mask: np.ndarray, sentinel_ids: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompt and the completion of `tokens` `[length]` without those of `mask`; `end` closes both."""
    starts = mask & ~np.insert(mask[:-1], 0, False)
    spans = int(starts.sum())
    if spans >= len(sentinel_ids):
        raise UsageError(f"span corruption: {spans} spans and {len(sentinel_ids)} sentinels; cut the text in pieces")
    marked = np.where(starts, sentinel_ids[np.cumsum(starts) - 1], tokens)
    prompt = np.append(marked[~mask | starts], end)
    completion = np.insert(tokens[mask], np.flatnonzero(starts[mask]), sentinel_ids[:spans])
    return prompt.astype(np.int32), np.concatenate([completion, [sentinel_ids[spans], end]]).astype(np.int32)


def span_corruption(
    pieces: Sequence[np.ndarray],
    tokenizer: Any,
    *,
    seed: int,
    epochs: Iterable[int] = (0,),
    density: float = DENSITY,
    mean_span: float = MEAN_SPAN,
    task: str = "span_corruption",
) -> list[Encoded]:
    """Return an example of each piece (ids without an end token) for each epoch, one epoch after another.

    Raises UsageError for a tokenizer without sentinels and for a piece with more spans than sentinels.
    """
    ids, end = sentinels(tokenizer), tokenizer.eos_token_id
    return [
        Encoded(
            f"{task}:{i}:{epoch}",
            *corrupt(
                tokens,
                noise_mask(len(tokens), seed=seed, example=i, epoch=epoch, density=density, mean_span=mean_span),
                ids,
                end,
            ),
            task=task,
        )
        for epoch in epochs
        for i, tokens in enumerate(pieces)
    ]


def cut(tokens: Sequence[int], length: int, least: int = 8) -> list[np.ndarray]:
    """Return int32 pieces of `tokens`, as equal as can be, of at most `length`; none of a text of under `least`."""
    if len(tokens) < least:
        return []
    return [np.asarray(piece, np.int32) for piece in np.array_split(np.asarray(tokens), -(-len(tokens) // length))]


def _parts(total: int, count: int, order: np.ndarray) -> np.ndarray:
    # A random composition: `total` things in a row, cut at `count - 1` of the places between them.
    cuts = np.sort(order[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
