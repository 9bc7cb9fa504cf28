"""`log_likelihood`: how probable given completions are, which is how multiple-choice benchmarks score a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError
from jaxft.generation import prompts as shapes
from jaxft.methods.bank import for_rows
from jaxft.models import T5
from jaxft.models.layers import Variables

CHUNK = 512  # tokens whose logits are alive at once


def log_likelihood(
    model: Any,
    variables: Variables,
    prompts: Sequence[str | Sequence[int]],
    completions: Sequence[str | Sequence[int]],
    *,
    batch_size: int = 16,
    adapter_ids: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each completion's summed log-probability `[B]` (float32) and whether greedy decoding would write it.

    `adapter_ids` names each row's member where `variables` are a bank.

    Texts are tokenised, completions without special tokens: no end token is scored unless it is given. Raises
    `UsageError`, with the index, for a prompt or completion that is empty or that does not fit.
    """
    if len(prompts) != len(completions):
        raise UsageError(f"completions: there are {len(completions)} for {len(prompts)} prompts; give one for each")
    given = shapes.token_ids(model, prompts, "prompt")
    wanted = shapes.token_ids(model, completions, "completion", special=False)
    encoder_decoder = isinstance(model.architecture, T5)
    shapes.check_lengths(model, variables, [len(p) for p in given], [len(c) - 1 for c in wanted])
    lengths = [len(p) + (0 if encoder_decoder else len(c)) for p, c in zip(given, wanted, strict=True)]
    count = shapes.padded_rows(len(given), batch_size)
    sums, greedy = np.zeros(len(given), np.float32), np.zeros(len(given), bool)
    members = shapes.member_ids(variables, adapter_ids, len(given))
    make = _seq2seq_batch if encoder_decoder else _decoder_batch
    for group in shapes.groups(lengths, batch_size):
        batch = make(model.config, [given[i] for i in group], [wanted[i] for i in group], count)
        batch |= shapes.member_rows(members, group, count)
        total, same = score(model.architecture, variables, batch)
        sums[group], greedy[group] = np.asarray(total)[: len(group)], np.asarray(same)[: len(group)]
    return sums, greedy


@functools.partial(jax.jit, static_argnames="architecture")
def score(architecture: Any, variables: Variables, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return per row of `batch` the sum of its targets' log-probabilities, and whether each is the most probable."""
    architecture = dataclasses.replace(architecture, numerics=architecture.numerics._replace(remat="none"))
    variables = for_rows(variables, batch.get("adapter_ids"))
    hidden = architecture.hidden(variables, batch)
    rows, length, _ = hidden.shape
    # What counts comes first, so that chunks of prompt alone are skipped.
    order = jnp.argsort(batch["weights"] <= 0, axis=1, stable=True)
    size = max(1, min(length, CHUNK // rows))

    def chunks(x):
        x = jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, ((0, 0), (0, -length % size), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    def body(carry, xs):
        hidden, targets, weights = xs

        def compute():
            logits = architecture.head(variables, hidden)
            chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
            log_probability = (chosen - jax.nn.logsumexp(logits, axis=-1)) * weights
            same = (jnp.argmax(logits, axis=-1) == targets) | (weights <= 0)
            return carry[0] + jnp.sum(log_probability, axis=1), carry[1] & jnp.all(same, axis=1)

        return jax.lax.cond(jnp.any(weights > 0), compute, lambda: carry), None

    start = jnp.zeros(rows, jnp.float32), jnp.ones(rows, bool)
    return jax.lax.scan(body, start, (chunks(hidden), chunks(batch["targets"]), chunks(batch["weights"])))[0]


def _decoder_batch(config, prompts, completions, count):
    rows = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    batch = shapes.pad([row[:-1] for row in rows], count)
    return batch | _targets(batch, [row[1:] for row in rows], [len(prompt) - 1 for prompt in prompts])


def _seq2seq_batch(config, prompts, completions, count):
    begin = config.decoder_start_token_id
    batch = shapes.pad([[begin, *completion[:-1]] for completion in completions], count)
    batch |= shapes.pad(prompts, count, "encoder_")
    return batch | _targets(batch, completions, [0] * len(completions))


def _targets(batch, rows, starts):
    targets, weights = np.zeros_like(batch["tokens"]), np.zeros(batch["tokens"].shape, np.float32)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        targets[i, : len(row)] = row
        weights[i, start : len(row)] = 1
    return {"targets": targets, "weights": weights}
