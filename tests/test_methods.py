"""Laws that every method obeys, whatever it trains."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import apply, assert_close, make_batch
from every_method import KINDS, METHODS

from jaxft import methods
from jaxft.errors import UsageError

MERGEABLE = [name for name in METHODS if not name.startswith(("adapter", "prompt", "prefix"))]
BEGIN_ELSEWHERE = ("prompt", "prompt-network", "prefix", "prefix-network")


@pytest.fixture(params=list(METHODS))
def name(request):
    return request.param


@pytest.fixture
def method(name):
    return METHODS[name]


def started(method, model, seed=1):
    trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
    # LoRA's b is 0 at first, and a then has no gradient: from here everything has one.
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BEGIN_ELSEWHERE], indirect=True)
def test_training_starts_from_the_base(method, model):
    batch = make_batch(model.config)
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    assert_close(apply(model, method.bind(trainable, frozen), batch), apply(model, {"params": model.params}, batch))


def test_gradients_and_moments_are_as_small_as_the_trainable_tree(method, model):
    trainable, frozen = started(method, model)
    moments = optax.adamw(1e-3).init(trainable)[0]
    for moment in (moments.mu, moments.nu):
        assert jax.tree.map(jnp.shape, moment) == jax.tree.map(jnp.shape, trainable)
    batch = make_batch(model.config)
    gradient = jax.eval_shape(jax.grad(lambda t: jnp.sum(model.apply(method.bind(t, frozen), batch))), trainable)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, trainable)
    assert {leaf.dtype for leaf in jax.tree.leaves(trainable)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", list(KINDS), indirect=True)
def test_vmap_over_members_equals_a_loop(method, model):
    batch = make_batch(model.config, rows=2)
    members = [started(method, model, seed) for seed in (1, 2)]
    frozen = members[0][1]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trainable for trainable, _ in members))
    together = jax.jit(jax.vmap(lambda t: model.apply(method.bind(t, frozen), batch)))(stacked)
    for i, (trainable, _) in enumerate(members):
        assert_close(together[i], apply(model, method.bind(trainable, frozen), batch))


def test_config_is_json_and_makes_the_method_again(method, model):
    again = methods.from_config(json.loads(json.dumps(method.config)))
    assert again.config == method.config
    one, _ = method.init(jax.random.key(3), {"params": model.params})
    two, _ = again.init(jax.random.key(3), {"params": model.params})
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("name", MERGEABLE, indirect=True)
def test_merged_weights_compute_the_same(method, model):
    batch = make_batch(model.config)
    trainable, frozen = started(method, model)
    variables = method.bind(trainable, frozen)
    merged = {"params": methods.merge(variables)}
    assert jax.tree.structure(merged["params"]) == jax.tree.structure(model.params)
    assert_close(apply(model, merged, batch), apply(model, variables, batch))
    assert np.abs(apply(model, merged, batch) - apply(model, {"params": model.params}, batch)).max() > 0.01


def test_alpha_over_rank_scales_the_update(llama):
    batch = make_batch(llama.config)
    base = apply(llama, {"params": llama.params}, batch)

    def update(alpha):
        method = methods.lora(4, alpha, "o")
        trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
        small = jax.tree.map(lambda leaf: leaf + 1e-3, trainable)
        return apply(llama, method.bind(small, frozen), batch) - base

    assert_close(update(2.0), 2 * update(1.0), tolerance=2e-2)


def test_dropout_acts_in_training_only(llama):
    batch = make_batch(llama.config)
    method, plain = methods.lora(4, 8, "all", dropout=0.5), METHODS["lora"]
    trainable, frozen = started(method, llama)
    variables = method.bind(trainable, frozen)
    hidden = jax.jit(llama.architecture.hidden)
    quiet = hidden(variables, batch)
    assert_close(quiet, hidden(plain.bind(trainable, frozen), batch))
    one, two = (hidden(variables, batch, jax.random.key(i)) for i in range(2))
    assert np.abs(one - quiet).max() > 1e-3 and np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, hidden(variables, batch, jax.random.key(0)))


def test_prompt_starts_from_what_it_is_told(flan_t5, llama):
    table = llama.params["embedding"]
    rows, _ = methods.prompt(4, [7, 9]).init(jax.random.key(0), {"params": llama.params})
    np.testing.assert_array_equal(rows["embedding"], table[np.array([7, 9, 7, 9])])
    drawn, _ = methods.prompt(6).init(jax.random.key(0), {"params": flan_t5.params})
    drawn = drawn["encoder"]["embedding"]
    assert all((row == np.asarray(flan_t5.params["embedding"])).all(1).any() for row in np.asarray(drawn))
    random, _ = methods.prompt(6, "random").init(jax.random.key(0), {"params": llama.params})
    assert np.abs(random["embedding"]).max() <= 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "lora", "rank": 0}, "method.rank"),
        ({"name": "lora", "rank": 49}, "exceeds the 48 x"),
        ({"name": "lora", "targets": "attn"}, "matches no kernel; did you mean"),
        ({"name": "lora", "targets": "attention["}, "not a regular expression"),
        ({"name": "lora", "dropout": 1.0}, "method.dropout"),
        ({"name": "lora", "rnak": 4}, "did you mean 'rank'"),
        ({"name": "lroa"}, "did you mean 'lora'"),
        ({}, "unknown method None"),
        ({"name": "prompt", "length": 0}, "method.length"),
        ({"name": "prompt", "initialise": "vocab"}, "did you mean 'vocabulary'"),
        ({"name": "prompt", "initialise": [999]}, "outside the vocabulary"),
    ],
)
def test_bad_settings_are_refused(llama, config, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        methods.from_config(config).init(jax.random.key(0), {"params": llama.params})


def test_a_prompt_is_not_merged(llama):
    trainable, frozen = started(METHODS["prompt"], llama)
    with pytest.raises(UsageError, match="prompt cannot be folded"):
        methods.merge(METHODS["prompt"].bind(trainable, frozen))
