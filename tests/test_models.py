"""Laws of the architectures: what must not change the result, and what must not be looked at."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, make_batch

from jaxft.methods import lora, prompt
from jaxft.models import T5Config
from jaxft.models.attention import Keys, attend, attention_mask


def logits(model, variables, batch):
    return jax.jit(lambda v, b: model.architecture.head(v, model.architecture.hidden(v, b)))(variables, batch)


def with_numerics(model, **changes):
    numerics = model.architecture.numerics._replace(**changes)
    return dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, numerics=numerics))


def split_layers(tree, sizes):
    """Cut every stack in `tree` into segments of the given sizes (the last takes the rest)."""
    if isinstance(tree, tuple):
        (segment,) = tree
        depth = jax.tree.leaves(segment)[0].shape[0]
        edges = [0, *np.cumsum(sizes), depth]
        return tuple(
            jax.tree.map(lambda leaf, start=start, end=end: leaf[start:end], segment)
            for start, end in itertools.pairwise(edges)
            if end > start
        )
    return {k: split_layers(v, sizes) for k, v in tree.items()} if isinstance(tree, dict) else tree


def real(batch):
    return np.asarray(batch["segments"] != 0)


@pytest.mark.parametrize("numerics", [{"remat": "none"}, {"remat": "full", "unroll": True}])
def test_how_layers_run_changes_neither_logits_nor_gradients(model, numerics):
    batch, other = make_batch(model.config), with_numerics(model, **numerics)

    def summed(m):
        def total(params):
            return jnp.sum(jnp.sin(m.apply({"params": params}, batch)) * real(batch)[..., None])

        return jax.jit(jax.value_and_grad(total))(model.params)

    assert_close(summed(other), summed(model))


def test_segments_equal_one_stack(model):
    batch = make_batch(model.config)
    segmented = split_layers(model.params, [1])
    assert_close(logits(model, {"params": model.params}, batch), logits(model, {"params": segmented}, batch))


def test_a_later_token_is_never_looked_at(model):
    batch = make_batch(model.config)
    at = 5

    def earlier(embedded):
        params = {**model.params, "embedding": embedded}
        return jnp.sum(model.architecture.hidden({"params": params}, batch)[0, : at + 1])

    # Token ids of row 0 after `at`, which nothing before them shares.
    tokens = np.asarray(batch["tokens"])
    later = sorted(set(tokens[0, at + 1 :]) - set(tokens[0, : at + 1]))
    if "encoder_tokens" in batch:
        later = sorted(set(later) - set(batch["encoder_tokens"][0]))
    gradient = jax.jit(jax.grad(earlier))(model.params["embedding"])
    assert later and not np.any(gradient[np.array(later)])
    assert np.any(gradient[tokens[0, at]])


def test_padding_on_either_side_changes_nothing(model):
    batch = make_batch(model.config)
    plain = logits(model, {"params": model.params}, batch)

    def padded(left, right):
        return {k: np.pad(v, ((0, 0), (left, right))) for k, v in batch.items()}

    for left, right in ((0, 5), (5, 0)):
        shifted = logits(model, {"params": model.params}, padded(left, right))[:, left : left + plain.shape[1]]
        assert_close(shifted[real(batch)], plain[real(batch)])


def test_packed_rows_equal_separate_ones(model):
    batch = make_batch(model.config, rows=2)
    plain = logits(model, {"params": model.params}, batch)

    def pack(name, value):
        row = np.concatenate([value[0], value[1]])[None]
        if name.endswith("segments"):  # the second example is segment 2
            row = row * np.concatenate([np.ones_like(value[0]), 2 * np.ones_like(value[0])])[None]
        return row

    packed = logits(model, {"params": model.params}, {k: pack(k, v) for k, v in batch.items()})
    flat = real(batch).reshape(-1)
    assert_close(packed[0][flat], plain.reshape(-1, plain.shape[-1])[flat])


@pytest.mark.parametrize("collection", ["none", "lora", "prompt"])
def test_cached_decoding_equals_the_full_forward(model, collection):
    variables = {"params": model.params}
    if collection != "none":
        method = {"lora": lora(4, 8, "all"), "prompt": prompt(3)}[collection]
        trainable, frozen = method.init(jax.random.key(1), variables)
        trainable = jax.tree.map(lambda leaf: leaf + 0.1, trainable)
        variables = method.bind(trainable, frozen)
    batch = make_batch(model.config, rows=2)
    # Rows of one length: decoding appends to all of them.
    batch["segments"][:], batch["positions"][:] = 1, np.arange(batch["tokens"].shape[1])
    full = logits(model, variables, batch)
    start = 1 if isinstance(model.config, T5Config) else 7
    first = {k: v if k.startswith("encoder") else v[:, :start] for k, v in batch.items()}
    prefill = jax.jit(model.architecture.prefill, static_argnums=2)
    hidden, cache = prefill(variables, first, full.shape[1])
    parts = [model.architecture.head(variables, hidden)]
    decode = jax.jit(model.architecture.decode)
    for t in range(start, full.shape[1]):
        hidden, cache = decode(variables, batch["tokens"][:, t : t + 1], cache)
        parts.append(model.architecture.head(variables, hidden))
    assert_close(jnp.concatenate(parts, axis=1), full)


def test_a_padding_query_stays_finite():
    mask = attention_mask(jnp.array([[1, 0]]), jnp.array([[0, 0]]), jnp.array([[1, 0]]), jnp.array([[0, 0]]), True)
    keys = Keys(jnp.ones((1, 1, 4, 2)), jnp.ones((1, 1, 2, 4)), mask)
    assert np.isfinite(attend(jnp.ones((1, 2, 1, 4)), [keys], 1.0)).all()


def test_each_example_may_have_its_own_lora(model):
    """A leading batch axis on the collection equals one run per example with its own pair."""
    batch = make_batch(model.config, rows=3)
    method = lora(4, 8, "all")
    banks = []
    for seed in range(3):
        trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
        banks.append(jax.tree.map(lambda leaf, seed=seed: leaf + 0.03 * (seed + 1), trainable))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *banks)  # [L, B, in, R]
    mixed = logits(model, method.bind(stacked, frozen), batch)
    for i, trainable in enumerate(banks):
        alone = logits(model, method.bind(trainable, frozen), {k: v[i : i + 1] for k, v in batch.items()})
        assert_close(mixed[i : i + 1][real(batch)[i : i + 1]], alone[real(batch)[i : i + 1]])


def test_bfloat16_computes_close_to_float32(llama):
    batch = make_batch(llama.config)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), llama.params)
    other = with_numerics(llama, dtype=jnp.bfloat16)
    assert other.architecture.hidden({"params": half}, batch).dtype == jnp.bfloat16
    one, two = logits(llama, {"params": llama.params}, batch), logits(other, {"params": half}, batch)
    assert two.dtype == jnp.float32
    assert np.abs(one - two)[real(batch)].max() < 0.05 * np.abs(one).max()
