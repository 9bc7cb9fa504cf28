"""The token-exact loss of a model on encoded examples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from jaxft.data import prefetch


def batch_losses(
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    trainable: Any,
    frozen: Any,
    batches: Any,
    place: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Return Σ token losses and Σ target tokens of each batch of a pass, `[batches, 2]`.

    `loss` is what `loss_step` returns. The mean loss is the quotient of the sums; its interval comes of resampling the
    batches.
    """
    with contextlib.closing(cast(Any, prefetch(batches, 0, batches.steps_per_epoch, place=place))) as ready:
        sums = [loss(trainable, frozen, batch) for _, batch in ready]  # read only when all have been started
    return np.array([[float(total), float(tokens)] for total, tokens in sums], np.float64).reshape(-1, 2)
