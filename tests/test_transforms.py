"""Every method crossed with jit, scan, remat, sharding, accumulation, cached decoding and lowering for accelerators."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close, make_batch
from every_method import KINDS

from jaxft.methods.merge import join
from jaxft.models import T5, Model
from jaxft.training.sharding import make_mesh, shard
from jaxft.training.state import init_state
from jaxft.training.step import train_step


@pytest.fixture(params=list(KINDS))
def name(request):
    return request.param


@pytest.fixture
def method(name):
    return KINDS[name]


def started(method, model):
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


def with_numerics(model, **settings):
    architecture = model.architecture
    numerics = architecture.numerics._replace(**settings)
    return Model(dataclasses.replace(architecture, numerics=numerics), model.params, None)


def step_of(method, model, **settings):
    """Take a step of plain descent; return how the trainable tree moved."""
    mesh = settings.get("mesh")
    trainable, frozen = started(method, model)
    before = jax.tree.map(np.array, trainable)
    state = init_state(shard(trainable, mesh), optax.sgd(1.0), mesh)
    step = train_step(model, method, optax.sgd(1.0), **settings)
    state, metrics = step(state, shard(frozen, mesh), make_batch(model.config, rows=8), jax.random.key(0))
    assert np.isfinite(metrics["loss"]) and int(state.step) == 1
    return jax.tree.map(lambda new, old: np.asarray(new) - old, state.trainable, before)


ON_T5 = ("lora", "union")


def test_a_step_moves_the_trainable_tree_alone_however_it_is_run(name, method, model):
    """All of it moves, the base survives, and unrolled, rematerialised, sharded and accumulated it is the same."""
    base = jax.tree.map(np.array, model.params)
    moved = step_of(method, with_numerics(model, remat="none"))
    # Relative bias buckets that no distance here falls into have no gradient; everything else moves.
    assert all(change.any() for change in jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, base, model.params)  # raises if a leaf was donated
    if name not in ON_T5 and isinstance(model.architecture, T5):
        return  # the transformed step is what takes long to compile: the others are below
    assert_close(transformed(method, model), moved, tolerance=1e-4)


def transformed(method, model):
    changed = with_numerics(model, remat="full", unroll=True)
    return step_of(method, changed, accumulate=2, mesh=make_mesh(data=2, fsdp=2))


@pytest.mark.slow
def test_on_t5_the_other_methods_steps_are_the_same_however_they_are_run(name, method, model):
    if name not in ON_T5 and isinstance(model.architecture, T5):
        moved = step_of(method, with_numerics(model, remat="none"))
        assert_close(transformed(method, model), moved, tolerance=1e-4)


def test_cached_decoding_equals_the_full_forward(method, model):
    trainable, frozen = started(method, model)
    variables, batch = method.bind(trainable, frozen), make_batch(model.config, rows=2, length=8)
    batch["segments"][:] = 1
    batch["positions"] = np.tile(np.arange(8, dtype=np.int32), (2, 1))
    architecture = model.architecture

    @jax.jit
    def decoded(variables, batch):
        side = "encoder_" if isinstance(architecture, T5) else " "
        first = {name: x if name.startswith(side) else x[:, :5] for name, x in batch.items()}
        hidden, cache = architecture.prefill(variables, first, 3)
        parts = [hidden]
        for t in range(5, 8):
            hidden, cache = architecture.decode(variables, batch["tokens"][:, t : t + 1], cache)
            parts.append(hidden)
        return jnp.concatenate(parts, axis=1), architecture.hidden(variables, batch)

    assert_close(*decoded(variables, batch))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_accelerators(method, model, platform):
    trainable, frozen = jax.eval_shape(lambda: method.init(jax.random.key(0), {"params": model.params}))
    optimizer = optax.adamw(1e-3)
    state = jax.eval_shape(lambda t: init_state(t, optimizer), trainable)
    step = train_step(model, method, optimizer).jitted
    lowered = step.trace(state, frozen, make_batch(model.config), jax.random.key(0)).lower(
        lowering_platforms=(platform,)
    )
    assert "dot_general" in lowered.as_text()


def test_join_undoes_a_split(model):
    trainable, frozen = KINDS["selective-last"].init(jax.random.key(0), {"params": model.params})
    params = KINDS["selective-last"].bind(trainable, frozen)["params"]
    assert jax.tree.structure(params) != jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, join(params), model.params)
