"""Scores of a model on encoded examples: the token-exact loss, generated texts, and what the metrics say of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from jaxft.data import Encoded, prefetch


def mean_loss(
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    trainable: Any,
    frozen: Any,
    batches: Any,
    place: Callable[[Any], Any] | None = None,
) -> float:
    """Return Σ token losses / Σ target tokens over one pass of `batches`; `loss` is what `loss_step` returns."""
    total, count = total_loss(loss, trainable, frozen, batches, place)
    return total / count


def total_loss(
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    trainable: Any,
    frozen: Any,
    batches: Any,
    place: Callable[[Any], Any] | None = None,
) -> tuple[float, float]:
    """Return the two sums of `mean_loss`."""
    total, count = batch_losses(loss, trainable, frozen, batches, place).sum(axis=0)
    return float(total), float(count)


def batch_losses(
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    trainable: Any,
    frozen: Any,
    batches: Any,
    place: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Return what `total_loss` sums, batch by batch, [B, 2]: an interval comes of resampling them."""
    with contextlib.closing(cast(Any, prefetch(batches, 0, batches.steps_per_epoch, place=place))) as ready:
        sums = [loss(trainable, frozen, batch) for _, batch in ready]  # read only when all have been started
    return np.array([[float(total), float(tokens)] for total, tokens in sums], np.float64).reshape(-1, 2)


def predict(
    model: Any, variables: Any, examples: Sequence[Encoded], settings: Mapping[str, Any], key: Any
) -> list[str]:
    """Return the texts that the model writes after the examples' prompts; `settings` are `generate`'s."""
    from jaxft.generation import generate

    texts = generate(model, variables, [example.prompt.tolist() for example in examples], key=key, **settings)
    return [text.strip() for text in texts]
