"""The compiled loop: read the prompts, then one token of every row per turn until all have ended.

`run` is one program per architecture, settings and shapes. The variables are its argument, twice: stacked, for the
prefill, whose layers run rolled, and as `decoding_variables` gives them, for the loop.

On CPU those are unstacked: every layer a segment of its own, because a rolled loop would copy each layer's weights out
of the stack for every token; and kernels are held as `[F, D]`, with which XLA multiplies few rows in about half the
time (quantised ones stay as they are, and are made dense for every token). Elsewhere they are the same stacked tree.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.generation import beam, sample
from jaxft.generation.sampling import History, Sampling
from jaxft.methods.bank import for_rows, rows_of
from jaxft.methods.method import bound
from jaxft.models.layers import Transposed, Variables
from jaxft.models.quantised import is_quantised


def decoding_variables(architecture: Any, variables: Variables) -> Variables:
    """Return `variables` as the loop wants them on this backend; once per call of `generate`, not per batch."""
    variables = {name: tree for name, tree in variables.items() if name != "bank"}
    cpu = jax.default_backend() == "cpu"
    if not cpu and not architecture.numerics.unroll:
        return variables
    single = unstack(dict(variables))
    if cpu:
        params = _turned(single["params"])
        head = params["head"]["kernel"].T if "head" in params else params["embedding"]
        single["params"] = params | {"head": {"kernel": Transposed(head)}}
    return single


def unstack(tree: Any) -> Any:
    """Turn every segment `[n, ...]` of layers in `tree` into n segments `[1, ...]`."""
    if not isinstance(tree, dict):
        return tree
    return {name: _singles(branch) if name == "layers" else unstack(branch) for name, branch in tree.items()}


def _singles(segments):
    singles: list = []
    for segment in segments:
        leaves, structure = jax.tree.flatten(segment)
        singles += [structure.unflatten(layer) for layer in zip(*map(_layers, leaves), strict=True)]
    return tuple(singles)


@jax.jit  # a small program for each shape: one for the whole tree takes ten times as long to compile
def _layers(leaf):
    return jnp.split(leaf, leaf.shape[0])


def _own_caches(cache):
    return cache | {"layers": tuple(layer for segment in cache["layers"] for layer in _layers_of(segment))}


def _layers_of(segment):
    kept = segment["own"][0]
    return [segment] if kept.ndim == 4 else [jax.tree.map(lambda x, i=i: x[i], segment) for i in range(len(kept))]


def _segments(variables):
    return len(variables["params"].get("decoder", variables["params"])["layers"])


def _with_members(variables, decoding, ids, beams):
    """Return both sets of variables with each row's own member joined to them."""
    if ids is None:
        return variables, decoding
    own = rows_of(variables["bank"], jnp.repeat(ids, beams))
    single = unstack(own) if _segments(decoding) != _segments(variables) else own
    return for_rows(variables, ids), bound(decoding, **single)


def _turned(params):
    def turned(path, leaf):
        is_kernel = path[-1].key == "kernel" and leaf.ndim == 3 and not is_quantised(leaf)
        return Transposed(_swapped(leaf)) if is_kernel else leaf

    return jax.tree_util.tree_map_with_path(turned, params, is_leaf=is_quantised)


@jax.jit
def _swapped(kernel):
    return kernel.swapaxes(1, 2)


@functools.partial(jax.jit, static_argnames=("architecture", "sampling", "room"))
def run(
    architecture: Any,
    sampling: Sampling,
    room: int,
    variables: Variables,
    decoding: Variables,
    batch: dict[str, jax.Array],
    real: jax.Array,
    limit: jax.Array,
    keys: jax.Array,
) -> History:
    """Continue each row of `batch` by at most `limit` tokens; return what is read and written, `[B, T + room]`.

    `batch` is right-padded; `real` `[B]` says which rows are prompts and not filling; `keys` `[B]` are for sampling.
    `limit` is at most `room`.
    """
    c = architecture.config
    architecture = dataclasses.replace(architecture, numerics=architecture.numerics._replace(remat="none"))
    search: Any = beam if sampling.num_beams > 1 else sample
    advance = functools.partial(search.advance, sampling, c.eos_token_ids, c.pad_token_id, limit)

    single = _segments(decoding) != _segments(variables)
    variables, decoding = _with_members(variables, decoding, batch.get("adapter_ids"), sampling.num_beams)
    hidden, cache = architecture.prefill(variables, batch, room)
    if single:
        cache = _own_caches(cache)
    length = jnp.sum(batch["segments"], axis=1)
    last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)
    if sampling.num_beams > 1:
        last = jnp.repeat(last, sampling.num_beams, axis=0)
        cache = repeat_rows(cache, sampling.num_beams)
    history = History(jnp.pad(batch["tokens"], ((0, 0), (0, room))), length)
    state = search.start(sampling, history, real, keys)
    state = advance(state, architecture.head(decoding, last[:, 0]))

    def going(carry):
        return (carry[0].step < limit) & search.unfinished(carry[0])

    def body(carry):
        state, cache = carry
        if sampling.num_beams > 1:
            cache = reorder(cache, state.parent)
        hidden, cache = architecture.decode(decoding, state.token[:, None], cache)
        return advance(state, architecture.head(decoding, hidden[:, 0])), cache

    state, _ = jax.lax.while_loop(going, body, (state, cache))
    return search.result(state)


def repeat_rows(cache: dict, times: int) -> dict:
    """Repeat every row of `cache` for its beams."""
    layers = jax.tree.map(lambda x: jnp.repeat(x, times, axis=x.ndim - 4), cache["layers"])  # [B, K, S, H] at the end
    rest = {name: x if x.ndim == 0 else jnp.repeat(x, times, axis=0) for name, x in cache.items() if name != "layers"}
    return {"layers": layers, **rest}


def reorder(cache: dict, rows: jax.Array) -> dict:
    """Give each row the keys and values of the row it goes on from; what beams share (the encoder's) stays."""

    def take(x):
        return jnp.take(x, rows, axis=x.ndim - 4)

    layers = tuple(segment | {"own": tuple(map(take, segment["own"]))} for segment in cache["layers"])
    return cache | {"layers": layers}
