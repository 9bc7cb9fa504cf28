"""Prompt tuning: learned embeddings before the input, and nothing else (Lester et al. 2021, arXiv:2104.08691)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest
from jaxft.methods.method import Method, fresh


def prompt(length: int = 20, initialise: str | Sequence[int] = "vocabulary") -> Method:
    """Train `length` embeddings that stand before the input (before the encoder's, in an encoder-decoder).

    Args:
        length: The number P of soft tokens; 20 to 100 suffice in the paper.
        initialise: "vocabulary" draws rows of the embedding table among its first 5,000 tokens, the most common ones;
            "random" is uniform in ±0.5; a list of token ids (repeated or cut to `length`) starts from a text.

    Raises `UsageError` for a length below 1, an unknown initialisation or a token id outside the vocabulary.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise UsageError(f"method.length: {length!r} is not a whole number of at least 1")
    if isinstance(initialise, str) and initialise not in ("vocabulary", "random"):
        raise UsageError(f"method.initialise: {initialise!r}{nearest(initialise, ('vocabulary', 'random'))}")
    if not isinstance(initialise, str) and not len(initialise):
        raise UsageError("method.initialise: the list of token ids is empty")

    def init(key, variables):
        table = variables["params"]["embedding"]
        embedding = _initial(key, table, length, initialise)
        encoder_decoder = "encoder" in variables["params"]
        return {"encoder": {"embedding": embedding}} if encoder_decoder else {"embedding": embedding}, dict(variables)

    def bind(trainable, frozen):
        return {**frozen, "prompt": trainable}

    saved = initialise if isinstance(initialise, str) else [int(token) for token in initialise]
    return Method(init, bind, {"name": "prompt", "length": length, "initialise": saved})


def _initial(key, table, length, initialise):
    vocabulary, width = table.shape
    if initialise == "random":
        return jax.random.uniform(key, (length, width), minval=-0.5, maxval=0.5)
    if initialise == "vocabulary":
        common = min(5000, vocabulary)
        tokens = jax.random.choice(key, common, (length,), replace=length > common)
    else:
        outside = [token for token in initialise if not 0 <= token < vocabulary]
        if outside:
            raise UsageError(f"method.initialise: token {outside[0]} is outside the vocabulary of {vocabulary}")
        tokens = jnp.resize(jnp.asarray(initialise, jnp.int32), (length,))
    return fresh(table[tokens])
