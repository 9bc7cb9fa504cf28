"""`generate`: texts for prompts, in the order they were given."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft.errors import UsageError
from jaxft.generation import prompts as shapes
from jaxft.generation.decode import decoding_variables, run
from jaxft.generation.planning import planned
from jaxft.generation.sampling import Sampling, check
from jaxft.models import T5


def generate(
    model: Any,
    variables: Any,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int = 64,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    key: jax.Array | None = None,
    batch_size: int = 16,
    return_tokens: bool = False,
    adapter_ids: Sequence[int] | None = None,
) -> list[Any]:
    """Continue each prompt; return the new texts without special tokens, or with `return_tokens` the new ids.

    Args:
        model: Its architecture and tokenizer are used, its params are not.
        variables: `{"params": ...}` and any other collection: what a method's `bind` gives.
        prompts: Texts, tokenised as they are, or token ids. An encoder-decoder reads them in its encoder.
        max_new_tokens: At most so many; a row ends earlier at one of `config.eos_token_ids`, the last id returned.
        num_beams: Above 1: beam search, as `transformers` with `early_stopping=False`.
        length_penalty: A finished beam scores `log p / length ** length_penalty`.
        temperature: 0 takes the most probable token; above, tokens are drawn and `key` is needed.
        top_k: Draw among the k most probable tokens; 0 for all.
        top_p: Draw among the most probable tokens that reach this probability together.
        repetition_penalty: Divide (or multiply, below 0) the logits of tokens that are in the text already.
        no_repeat_ngram: No sequence of so many tokens appears twice; 0 allows all.
        key: Row i draws with `fold_in(key, i)`: what it becomes does not depend on the other prompts.
        batch_size: Rows decoded together; of many prompts, up to four times as many of the shorter ones.
        adapter_ids: Where `variables` are a bank (see `jaxft.methods.bank`): the member that each prompt uses.

    Raises `UsageError` for settings out of range and, with its index, for a prompt that is empty or does not fit.
    """
    if model.tokenizer is None and not return_tokens:
        raise UsageError("the model has no tokenizer; load it with one, or ask for return_tokens")
    sampling = Sampling(num_beams, length_penalty, temperature, top_k, top_p, repetition_penalty, no_repeat_ngram)
    written: list[list[int]] = [[] for _ in prompts]
    batches = stream(
        model,
        variables,
        prompts,
        sampling,
        max_new_tokens=max_new_tokens,
        key=key,
        batch_size=batch_size,
        adapter_ids=adapter_ids,
    )
    for batch in batches:
        for i, tokens in zip(batch.prompts, batch.tokens, strict=True):
            written[i] = tokens
    return written if return_tokens else decoded(model, written)


class Written(NamedTuple):
    """A batch's results: the prompts that it answers and the new ids of each."""

    prompts: list[int]
    tokens: list[list[int]]


def stream(
    model: Any,
    variables: Any,
    prompts: Sequence[str | Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    key: jax.Array | None = None,
    batch_size: int = 16,
    adapter_ids: Sequence[int] | None = None,
    known: Container[int] = (),
) -> Iterator[Written]:
    """Yield what `generate` returns, a batch at a time as it is computed.

    Batches all of whose prompts are `known` are left out; the others are what they would be without it, to the bit.
    Raises what `generate` raises, before the first batch.
    """
    check(sampling)
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}: {value} is out of range; it must be 1 or more")
    if sampling.temperature > 0 and key is None:
        raise UsageError("key: drawing tokens at a temperature above 0 needs one; give jax.random.key(seed)")
    ids = shapes.token_ids(model, prompts, "prompt")
    lengths = [len(row) for row in ids]
    shapes.check_lengths(model, variables, lengths, [max_new_tokens] * len(ids))
    members = shapes.member_ids(variables, adapter_ids, len(ids))
    return _stream(model, variables, ids, sampling, max_new_tokens, key, batch_size, members, known)


def _stream(model, variables, ids, sampling, max_new_tokens, key, batch_size, members, known):
    room = shapes.bucket(max_new_tokens)
    plan = planned([len(row) for row in ids], batch_size, room)
    plan = [batch for batch in plan if not all(i in known for i in batch.prompts)]
    decoding = decoding_variables(model.architecture, variables) if plan else None
    limit = np.int32(max_new_tokens)
    for batch in plan:
        group, count, _ = batch
        arrays = _batch(model, ids, batch) | shapes.member_rows(members, group, count)
        keys, real = _row_keys(key, group, count), np.arange(count) < len(group)
        out = run(model.architecture, sampling, room, variables, decoding, arrays, real, limit, keys)
        starts = arrays["segments"].sum(axis=1)
        tokens, ends = np.asarray(out.tokens), np.asarray(out.length)
        yield Written(group, [tokens[row, starts[row] : ends[row]].tolist() for row in range(len(group))])


def _batch(model, ids, batch):
    rows = [ids[i] for i in batch.prompts]
    if not isinstance(model.architecture, T5):
        return shapes.pad(rows, batch.rows, size=batch.length)
    begin = [[model.config.decoder_start_token_id]] * batch.rows
    encoder = shapes.pad(rows, batch.rows, "encoder_", size=batch.length)
    return encoder | shapes.pad(begin, batch.rows, smallest=1)


def _row_keys(key, group, count):
    if key is None:
        return np.zeros((count,), np.uint32)  # unread
    indices = np.array([*group, *[0] * (count - len(group))], np.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def decoded(model: Any, written: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of new ids, without end and special tokens."""
    ends = model.config.eos_token_ids
    cut = [ids[:-1] if ids[-1] in ends else ids for ids in written]
    return [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in cut]
