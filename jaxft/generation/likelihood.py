"""`log_likelihood`: how probable given completions are, which is how multiple-choice benchmarks score a model.

What requests have in common is computed once, and changes nothing beyond rounding:

- completions of one prompt are branches of one row: each sees the prompt and itself. All whose first token is asked
  for are answered by the hidden state at the prompt's end, so that one-token completions cost nothing more;
- a decoder-only model reads a header that many prompts share (few-shot examples) once; its keys and values stand
  before theirs in every layer, as a prefix does (`jaxft.generation.sharing` finds the headers);
- an encoder reads a prompt once for all its completions.

Only where a target is predicted are logits computed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError
from jaxft.generation import prompts as shapes
from jaxft.generation.likelihood_rows import Row, pack, planned, rows_of
from jaxft.generation.sharing import header_bucket
from jaxft.methods.bank import for_rows
from jaxft.models import T5
from jaxft.models.decoder import LOCAL
from jaxft.models.layers import Variables

CHUNK = 128  # positions whose logits are alive at once


class Scored(NamedTuple):
    """A batch's results: the requests that it answers, their log-probabilities, and whether each is greedy."""

    requests: list[int]
    sums: np.ndarray
    greedy: np.ndarray


def log_likelihood(
    model: Any,
    variables: Variables,
    prompts: Sequence[str | Sequence[int]],
    completions: Sequence[str | Sequence[int]],
    *,
    batch_size: int = 16,
    adapter_ids: Sequence[int] | None = None,
    share: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each completion's summed log-probability `[B]` (float32) and whether greedy decoding would write it.

    `adapter_ids` names each row's member where `variables` are a bank. `share=False` computes every request alone.

    Texts are tokenised, completions without special tokens: no end token is scored unless it is given. Raises
    `UsageError`, with the index, for a prompt or completion that is empty or that does not fit.
    """
    if len(prompts) != len(completions):
        raise UsageError(f"completions: there are {len(completions)} for {len(prompts)} prompts; give one for each")
    given = shapes.token_ids(model, prompts, "prompt")
    wanted = shapes.token_ids(model, completions, "completion", special=False)
    sums, greedy = np.zeros(len(given), np.float32), np.zeros(len(given), bool)
    for scored in stream(model, variables, given, wanted, batch_size=batch_size, adapter_ids=adapter_ids, share=share):
        sums[scored.requests], greedy[scored.requests] = scored.sums, scored.greedy
    return sums, greedy


def stream(
    model: Any,
    variables: Variables,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
    adapter_ids: Sequence[int] | None = None,
    share: bool = True,
    known: Container[int] = (),
) -> Iterator[Scored]:
    """Yield what `log_likelihood` returns, of token ids, a batch at a time as it is computed.

    Batches all of whose requests are `known` are left out; the others are what they would be without it, to the bit.
    """
    shapes.check_lengths(model, variables, [len(p) for p in prompts], [len(c) - 1 for c in completions])
    members = shapes.member_ids(variables, adapter_ids, len(prompts))
    start = model.config.decoder_start_token_id if isinstance(model.architecture, T5) else None
    rows = rows_of(prompts, completions, members, start, share)
    headers = share and start is None and members is None and _header_changes_nothing(model, rows)
    devices = max(1, jax.sharding.get_abstract_mesh().size)
    for group in planned(rows, batch_size, headers, devices):
        read, batches = None, [one for one in group.batches if not _is_known(rows, one, known)]
        if group.header and batches:
            tokens = rows[group.batches[0].rows[0]].tokens[: group.header]
            read = _read(model.architecture, variables, tokens, devices)
        for batch in batches:
            taken = [rows[i] for i in batch.rows]
            packed, places = pack(taken, batch, group.header, read.offset if read else 0)
            if members is not None:
                packed["adapter_ids"] = np.resize(np.array([row.member for row in taken], np.int32), batch.size)
            seen = _behind(variables, read, batch.size) if read else variables
            yield _collected(taken, places, score(model.architecture, seen, packed))


def _is_known(rows, batch, known):
    return all(i in known for row in batch.rows for completion in rows[row].completions for i in completion.requests)


def _header_changes_nothing(model: Any, rows: Sequence[Row]) -> bool:
    """Say whether every layer sees all of what is before a token: a prefix has no place that a window could pass."""
    config = model.config
    if LOCAL not in config.kinds or config.window is None:
        return True
    return max((len(row.tokens) for row in rows), default=0) < config.window


def _collected(rows, places, results):
    log_probability, same = (np.asarray(array) for array in results)
    requests: list[int] = []
    sums, greedy = [], []
    for row, own in zip(rows, places, strict=True):
        for completion, (at, which) in zip(row.completions, own, strict=True):
            requests += completion.requests
            sums += [log_probability[at, which].sum(dtype=np.float64)] * len(completion.requests)
            greedy += [same[at, which].all()] * len(completion.requests)
    return Scored(requests, np.array(sums, np.float32), np.array(greedy, bool))


@functools.partial(jax.jit, static_argnames="architecture")
def score(architecture: Any, variables: Variables, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return the log-probabilities `[U, G]` of `batch["targets"]`, and whether each is the most probable token.

    `batch["at"]` `[U]` are the positions that predict them, counted through all rows; the first `used` are asked for.
    """
    variables = for_rows(variables, batch.get("adapter_ids"))
    hidden = _plain(architecture).hidden(variables, batch)
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch["at"]]
    size = math.gcd(len(hidden), CHUNK)

    def compute(hidden, targets):
        logits = architecture.head(variables, hidden)
        chosen = jnp.take_along_axis(logits, targets, axis=-1)
        log_probability = chosen - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return log_probability, jnp.argmax(logits, axis=-1, keepdims=True) == targets

    def skip(hidden, targets):
        return jnp.zeros(targets.shape, jnp.float32), jnp.zeros(targets.shape, bool)

    def chunk(xs):
        start, hidden, targets = xs
        return jax.lax.cond(start < batch["used"], compute, skip, hidden, targets)

    parts = jax.tree.map(lambda x: x.reshape(-1, size, x.shape[-1]), (hidden, batch["targets"]))
    starts = jnp.arange(0, len(hidden), size, dtype=jnp.int32)
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), jax.lax.map(chunk, (starts, *parts)))


class Header(NamedTuple):
    """Keys and values `[n, P, K*H]` of a header in every segment, how many count, and the next token's position."""

    segments: tuple[Mapping[str, Any], ...]
    length: int
    offset: int


@functools.partial(jax.jit, static_argnames="architecture")
def read(architecture: Any, variables: Variables, batch: dict[str, jax.Array]) -> tuple[dict[str, Any], ...]:
    """Return the keys and values of the first row of `batch`, behind those of a prefix that `variables` have."""
    _, cache = _plain(architecture).prefill(variables, batch, 0)
    own = variables.get("prefix", {}).get("layers", ())
    segments = []
    for i, segment in enumerate(cache["layers"]):
        key, value = segment["own"]  # [n, B, K, H, S] and [n, B, K, S, H]; no n where it is 1
        key, value = (x if x.ndim == 5 else x[None] for x in (key, value))
        made = {"key": key[:, 0].transpose(0, 3, 1, 2), "value": value[:, 0].transpose(0, 2, 1, 3)}
        made = {name: x.reshape(*x.shape[:2], -1) for name, x in made.items()}
        if i < len(own):
            made = {name: jnp.concatenate([own[i]["attention"][name].astype(x.dtype), x], 1)
                    for name, x in made.items()}  # fmt: skip
        segments.append(made)
    return tuple(segments)


def _read(architecture, variables, tokens, devices):
    soft = variables.get("prompt", {}).get("embedding")
    soft = 0 if soft is None else soft.shape[-2]
    own = variables.get("prefix", {}).get("layers", ())
    own = own[0]["attention"]["key"].shape[-2] if own else 0
    batch = shapes.pad([tokens] * devices, devices, size=header_bucket(len(tokens)))
    segments = read(architecture, variables, batch)
    return Header(segments, own + soft + len(tokens), soft + len(tokens))


def _behind(variables, header, rows):
    """Return `variables` with `header` in the place of their soft prompt and their prefix, which it has read."""
    layers = []
    for segment in header.segments:
        length = np.full((len(segment["key"]), rows), header.length, np.int32)
        layers.append({"attention": {**segment, "length": length}})
    rest = {name: tree for name, tree in variables.items() if name != "prompt"}
    return {**rest, "prefix": {"layers": tuple(layers)}}


def _plain(architecture):
    return dataclasses.replace(architecture, numerics=architecture.numerics._replace(remat="none"))
