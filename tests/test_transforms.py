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
def method(request):
    return KINDS[request.param]


def started(method, model):
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


def with_numerics(model, **settings):
    architecture = model.architecture
    numerics = architecture.numerics._replace(**settings)
    return Model(dataclasses.replace(architecture, numerics=numerics), model.params, None)


def test_unrolled_rematerialised_sharded_and_accumulated_it_takes_the_same_step(method, model):
    batch = make_batch(model.config, rows=8)
    steps = []
    for settings in ({}, {"accumulate": 2, "mesh": make_mesh(data=2, fsdp=2)}):
        changed = with_numerics(model, remat="full", unroll=True) if settings else with_numerics(model, remat="none")
        trainable, frozen = started(method, changed)
        mesh = settings.get("mesh")
        start = init_state(shard(trainable, mesh), optax.sgd(1.0), mesh)
        before = jax.tree.map(np.array, trainable)
        state, _ = train_step(changed, method, optax.sgd(1.0), **settings)(
            start, shard(frozen, mesh), batch, jax.random.key(0)
        )
        steps.append(jax.tree.map(lambda new, old: np.asarray(new) - old, state.trainable, before))
    assert_close(*steps, tolerance=1e-4)


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
