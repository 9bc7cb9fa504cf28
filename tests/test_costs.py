"""What a method costs: operations by XLA's own count, bytes by what lies on disk."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import LLAMA, make_batch

from jaxft import methods
from jaxft.models import Decoder, Model
from jaxft.models.stack import Numerics
from jaxft.training.checkpoint import Checkpoints
from jaxft.training.state import init_state
from jaxft.training.step import loss_step, train_step

CONFIG = dataclasses.replace(
    LLAMA, num_layers=4, width=512, num_heads=8, num_kv_heads=4, head_dim=64, mlp_width=1024, vocab_size=64
)


@pytest.fixture(scope="module")
def model():
    # Unrolled and without remat: XLA counts a scanned layer once, and recomputation is no part of the claim.
    architecture = Decoder(CONFIG, Numerics(remat="none", unroll=True))
    return Model(architecture, jax.eval_shape(architecture.init, jax.random.key(0)), None)


@pytest.fixture(scope="module")
def flops(model):
    batch = make_batch(CONFIG, rows=2, length=64)

    def of(method):
        trainable, frozen = jax.eval_shape(lambda p: method.init(jax.random.key(0), {"params": p}), model.params)
        optimizer = optax.sgd(0.1)
        state = jax.eval_shape(lambda t: init_state(t, optimizer), trainable)
        step = train_step(model, method, optimizer).jitted
        return step.lower(state, frozen, batch, jax.random.key(0)).compile().cost_analysis()["flops"]

    full = methods.full()
    forward = loss_step(model, full).lower(*_shapes(full, model), batch).compile().cost_analysis()["flops"]
    named = {"full": full, "lora": methods.lora(8, 16, "all")} | {
        n: methods.selective("layers", last=n) for n in (1, 2, 3)
    }
    return {"forward": forward, **{name: of(method) for name, method in named.items()}}


def _shapes(method, model):
    return jax.eval_shape(lambda p: method.init(jax.random.key(0), {"params": p}), model.params)


def test_lora_saves_a_quarter_of_the_operations_of_full_tuning(flops):
    assert flops["lora"] <= 0.75 * flops["full"]


def test_tuning_the_last_layers_costs_their_backward_pass_alone(flops):
    layer = flops[3] - flops[2]
    assert layer == pytest.approx(flops[2] - flops[1], rel=0.02)
    # The backward pass of a layer is about twice its forward pass, a quarter of the whole one here.
    assert layer == pytest.approx(2 * flops["forward"] / 4, rel=0.1)
    assert flops[1] - flops["forward"] <= 1.1 * layer


def test_optimizer_state_and_checkpoint_scale_with_what_is_trained(tmp_path):
    architecture = Decoder(CONFIG)
    params = architecture.init(jax.random.key(0))
    base = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    for method in (methods.lora(8, 16), methods.selective("norms"), methods.ia3()):
        trainable, _ = method.init(jax.random.key(0), {"params": params})
        state = init_state(trainable, optax.adamw(1e-3))
        trained = sum(leaf.nbytes for leaf in jax.tree.leaves(trainable))
        moments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))
        assert moments <= 2 * trained + 64
        folder = tmp_path / method.config["name"]
        checkpoints = Checkpoints(folder, identity={"method": dict(method.config)})
        checkpoints.save(1, state)
        checkpoints.close()
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        # Beside the numbers, a checkpoint has some tens of kB of names and shapes.
        assert written <= 3 * trained + 200_000 < base / 4, method.config["name"]
    assert jnp.isfinite(params["embedding"]).all()
