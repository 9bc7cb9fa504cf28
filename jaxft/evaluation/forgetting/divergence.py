"""How far a tuned model is from its base: KL per token on given texts, and the loss on plain text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.data import Encoded, evaluation_batches
from jaxft.errors import UsageError
from jaxft.evaluation.metrics import Score, measure
from jaxft.generation import log_likelihood
from jaxft.methods.bank import for_rows
from jaxft.training.loss import kl_divergence

CHUNK = 512  # tokens whose logits are alive at once

Texts = Sequence[tuple[Sequence[int], Sequence[int]]]  # ids that are given, and ids that count


def per_token(sums: np.ndarray, n: int) -> np.ndarray:
    """Return sums of the first statistic over sums of the second: what is per token, over texts [N, 2]."""
    return sums[:, 0] / sums[:, 1]


def text_loss(model: Any, variables: Any, texts: Texts, *, batch_size: int = 16) -> Score:
    """Return the mean of -log p per token that counts, in nats; its rows are the texts' sums and numbers of tokens."""
    given, counted = [list(one) for one, _ in texts], [list(one) for _, one in texts]
    sums, _ = log_likelihood(model, variables, given, counted, batch_size=batch_size)
    rows = np.stack([-np.asarray(sums, np.float64), [len(ids) for ids in counted]], axis=1)
    return measure(rows, "-log p|nats per token", per_token)


def kl_to_base(model: Any, base: Any, variables: Any, texts: Texts, *, batch_size: int = 16) -> Score:
    """Return the mean KL(base || tuned) per token that counts, in nats, over `texts`.

    `base` and `variables` may share arrays, as those of every method do that leaves the base as it is: nothing is held
    twice. Rows are the texts' sums and numbers of tokens.
    """
    if not texts:
        raise UsageError("there are no texts to compare the models on")
    examples = [Encoded(str(i), np.array(a, np.int32), np.array(b, np.int32)) for i, (a, b) in enumerate(texts)]
    start = getattr(model.config, "decoder_start_token_id", None)
    batches = evaluation_batches(examples, min(batch_size, len(examples)), pad_token_id=model.config.pad_token_id,
                                 decoder_start_token_id=start, num_buckets=1)  # fmt: skip
    rows = [divergences(model.architecture, base, variables, batches.batch(i)) for i in range(batches.steps_per_epoch)]
    found = np.concatenate([np.stack(one, axis=1) for one in rows])[: len(examples)]
    return measure(found, "KL(base || tuned)|nats per token", per_token)


@functools.partial(jax.jit, static_argnames="architecture")
def divergences(architecture: Any, base: Any, variables: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Return the sums `[B]` of KL(base || tuned) over each row's target tokens, and the numbers `[B]` of these.

    Of the logits at most one chunk of `[chunk, V]` of each model is there at a time.
    """
    hidden = architecture.hidden(for_rows(variables, batch.get("adapter_ids")), batch)
    both = hidden, architecture.hidden(base, batch), batch["weights"]
    rows, length, _ = hidden.shape
    size = max(1, min(length, CHUNK // rows))

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, -length % size), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    def body(total, xs):
        hidden, base_hidden, weights = xs

        def compute():
            each = kl_divergence(architecture.head(base, base_hidden), architecture.head(variables, hidden))
            return total + jnp.sum(each * weights, axis=1)

        return jax.lax.cond(jnp.any(weights > 0), compute, lambda: total), None

    total, _ = jax.lax.scan(body, jnp.zeros(rows, jnp.float32), tuple(map(chunks, both)))
    return total, jnp.sum(batch["weights"], axis=1)
