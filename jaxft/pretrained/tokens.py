"""New tokens: a longer vocabulary, and rows of the embedding (and of the head) for it.

    model = add_tokens(model, ["<|tool|>", "<|result|>"])

A new row is the mean of the old ones. Then a new token's logit is near the mean of all logits, and the model's
distribution over the old tokens stays nearly what it was; a row drawn at random can take most of the probability
(Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.models import Model
from jaxft.pretrained.tokenizer import rows_needed


def add_tokens(model: Model, tokens: Sequence[str], *, special: bool = True, pad_to: int = 1) -> Model:
    """Return `model` with `tokens` in a copy of its tokenizer, and with rows for them; `model` stays as it is.

    `special` tokens are never cut and are left out where special tokens are skipped in decoding. Rows are appended only
    if the tokenizer outgrows the embedding (T5's, say, has rows to spare: those are used as they are), to a multiple of
    `pad_to`. They are trained as the method trains the embedding and the head: by `full`, by
    `selective("embeddings")`, not by LoRA. Adapters of the longer model do not fit the shorter one: save it, and load
    them on that.

    Raises `UsageError` for a model without tokenizer, an empty token, or a `pad_to` below 1.
    """
    from tokenizers import AddedToken

    if model.tokenizer is None:
        raise UsageError("add_tokens: the model has no tokenizer; load it with one")
    wanted = [tokens] if isinstance(tokens, str) else list(tokens)
    if not wanted or not all(isinstance(token, str) and token for token in wanted):
        raise UsageError(f"add_tokens: {tokens!r} is not a list of tokens, each of at least one character")
    if pad_to < 1:
        raise UsageError(f"add_tokens: pad_to = {pad_to!r} is not a multiple to pad to")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens([AddedToken(t, special=special, normalized=False) for t in wanted], special_tokens=special)
    needed = rows_needed(tokenizer)
    if needed <= model.config.vocab_size:
        return dataclasses.replace(model, tokenizer=tokenizer)
    config: Any = dataclasses.replace(model.config, vocab_size=-(-needed // pad_to) * pad_to)
    architecture = dataclasses.replace(model.architecture, config=config)
    return Model(architecture, _resized(model.params, config.vocab_size), tokenizer, model.source)


def _resized(params: Any, rows: int) -> Any:
    made = {**params, "embedding": _longer(params["embedding"], rows, axis=0)}
    if "head" in params:
        made["head"] = {**params["head"], "kernel": _longer(params["head"]["kernel"], rows, axis=1)}
    return made


def _longer(array: jax.Array, size: int, axis: int) -> jax.Array:
    mean = jnp.mean(array, axis, jnp.float32, keepdims=True).astype(array.dtype)
    shape = tuple(size - length if i == axis else length for i, length in enumerate(array.shape))
    return jnp.concatenate([array, jnp.broadcast_to(mean, shape)], axis)
