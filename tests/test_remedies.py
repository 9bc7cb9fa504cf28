"""What holds training back: KL and L2 to the base, and replay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from conftest import apply, assert_close, make_batch
from test_no_frozen_gradient import dot_shapes

from jaxft.data import Encoded
from jaxft.data.grouping import by_task
from jaxft.errors import UsageError
from jaxft.methods import bank, full, lora, prompt
from jaxft.recipe import ReplayRecipe, make_recipe, to_dict
from jaxft.runs.parts import read_rows
from jaxft.runs.replay import SOURCE, with_replay
from jaxft.sweep.grid import members_of
from jaxft.training.anchors import Anchored
from jaxft.training.loss import cross_entropy, kl_divergence, token_loss
from jaxft.training.members import per_member
from jaxft.training.sharding import make_mesh, shard
from jaxft.training.state import init_state
from jaxft.training.step import train_step

GRADIENT = optax.sgd(1.0)  # the update is the gradient's negative
METHODS = {"full": full(), "lora": lora(4, 8, "all"), "prompt": prompt(3)}


def started(method, model):
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


def update(model, method, batch, start=None, mesh=None, **settings):
    """One step of SGD at rate 1: its metrics and the new trainable tree, on the host."""
    trainable, frozen = started(method, model)
    anchors = shard(Anchored(frozen, {"params": model.params}, start), mesh)
    step = train_step(model, method, GRADIENT, mesh=mesh, **settings)
    state, metrics = step(init_state(shard(trainable, mesh), GRADIENT, mesh), anchors, batch, jax.random.key(0))
    return jax.device_get((metrics, state.trainable))


def plain(model, method, batch, coefficient):
    """The same from whole logits, by automatic differentiation."""
    trainable, frozen = started(method, model)
    logits_of = model.architecture

    def loss(trainable):
        variables = method.bind(trainable, frozen)
        logits = logits_of.head(variables, logits_of.hidden(variables, batch))
        base = logits_of.head({"params": model.params}, logits_of.hidden({"params": model.params}, batch))
        p = jax.nn.softmax(base)
        kl = jnp.sum(p * (jnp.log(p) - jax.nn.log_softmax(logits)), axis=-1)
        weights = batch["weights"]
        sums = jnp.sum(cross_entropy(logits, batch["targets"]) * weights), jnp.sum(kl * weights)
        return (sums[0] + coefficient * sums[1]) / weights.sum(), (sums[0] / weights.sum(), sums[1] / weights.sum())

    gradient, (loss, kl) = jax.jit(jax.grad(loss, has_aux=True))(trainable)
    return loss, kl, jax.tree.map(lambda leaf, g: leaf - g, trainable, gradient)


def test_the_divergence_of_known_distributions():
    base, tuned = np.log([0.5, 0.25, 0.25]), np.log([0.25, 0.5, 0.25])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    np.testing.assert_allclose(kl_divergence(jnp.array(base) + 3, jnp.array(tuned)), expected, rtol=1e-6)
    assert abs(kl_divergence(jnp.array(base), jnp.array(base))) < 1e-7


@pytest.mark.parametrize(("name", "chunk"), [("full", 8), ("lora", 512), ("prompt", 8)])
def test_kl_to_base_is_in_the_gradient_and_the_loss_is_reported_without_it(llama, name, chunk):
    batch = make_batch(llama.config)
    loss, kl, moved = plain(llama, METHODS[name], batch, 0.7)
    metrics, trained = update(llama, METHODS[name], batch, kl_to_base=0.7, loss=token_loss(chunk=chunk))
    assert_close((metrics["loss"], metrics["kl_to_base"]), (loss, kl))
    assert_close(trained, moved)
    assert kl > 1e-4  # the start is not the base


@pytest.mark.slow  # passed on 2026-11-22
def test_kl_to_base_of_an_encoder_decoder(flan_t5):
    batch, method = make_batch(flan_t5.config), METHODS["lora"]
    loss, kl, moved = plain(flan_t5, method, batch, 2.0)
    metrics, trained = update(flan_t5, method, batch, kl_to_base=2.0)
    assert_close((metrics["loss"], metrics["kl_to_base"], trained), (loss, kl, moved))


def test_accumulated_parts_and_told_apart_tasks_change_nothing(llama):
    """Parts hold different numbers of targets; the losses of tasks are without the penalties."""
    batch = make_batch(llama.config, rows=8)
    batch["tasks"] = np.repeat(np.arange(8, dtype=np.int32) % 2, 12).reshape(8, 12)
    settings = {"kl_to_base": 0.7, "l2_to_base": 0.3, "start": llama.params}
    whole, trained = update(llama, full(), batch, **settings)
    parts, trained_in_parts = update(llama, full(), batch, accumulate=4, tasks=2, **settings)
    assert_close(trained_in_parts, trained)
    for name in ("loss", "kl_to_base", "l2_to_base", "grad_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-5)
    np.testing.assert_allclose(parts["task_loss"].sum(), whole["loss"] * whole["tokens"], rtol=1e-5)


@pytest.mark.slow  # passed on 2026-11-22
def test_devices_give_the_same_gradient(llama):
    batch = make_batch(llama.config, rows=8)
    settings = {"kl_to_base": 0.7, "l2_to_base": 0.3, "start": llama.params}
    alone, trained = update(llama, full(), batch, **settings)
    metrics, trained_by_all = update(llama, full(), batch, mesh=make_mesh(2, 4), **settings)
    assert_close(trained_by_all, trained, 5e-5)
    assert_close([metrics[name] for name in sorted(alone)], [alone[name] for name in sorted(alone)], 5e-5)


def test_l2s_gradient_is_the_coefficient_times_the_way_from_the_start(llama):
    batch, method = make_batch(llama.config), METHODS["lora"]
    start = jax.tree.map(lambda leaf: leaf - 0.05, started(method, llama)[0])
    _, without = update(llama, method, batch)
    metrics, trained = update(llama, method, batch, start=start, l2_to_base=0.4)
    assert_close(trained, jax.tree.map(lambda leaf: leaf - 0.4 * 0.05, without))
    size = sum(leaf.size for leaf in jax.tree.leaves(start))
    np.testing.assert_allclose(metrics["l2_to_base"], 0.4 / 2 * size * 0.05**2, rtol=1e-4)


def test_no_product_has_a_frozen_kernels_shape_beside_the_base(model):
    method, architecture = METHODS["lora"], model.architecture
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    batch, base = make_batch(model.config, rows=3, length=13), {"params": model.params}

    def total(trainable, frozen, base):
        loss, _, kl = token_loss()(architecture, method.bind(trainable, frozen), batch, None, base)
        return loss + kl

    shapes = list(dot_shapes(jax.make_jaxpr(jax.grad(total))(trainable, frozen, base).jaxpr))
    flat = jax.tree_util.tree_flatten_with_path(model.params)[0]
    kernels = {leaf.shape[-2:] for path, leaf in flat if path[-1].key in ("kernel", "embedding")}
    assert len(shapes) > 20 and not [s for s in shapes if s[-2:] in kernels or s[-2:][::-1] in kernels]


def test_the_base_is_shared_and_survives_donated_steps(llama):
    method = METHODS["lora"]
    trainable, frozen = method.init(jax.random.key(1), {"params": llama.params})
    anchors = Anchored(frozen, {"params": llama.params})
    kernels = {id(leaf) for leaf in jax.tree.leaves(anchors.base)}
    assert kernels <= {id(leaf) for leaf in jax.tree.leaves(anchors.frozen)}  # nothing is held twice
    step, state = train_step(llama, method, GRADIENT, kl_to_base=1.0), init_state(trainable, GRADIENT)
    batch = make_batch(llama.config)
    state, first = step(state, anchors, batch, jax.random.key(0))
    state, second = step(state, anchors, batch, jax.random.key(0))
    assert abs(first["kl_to_base"]) < 1e-6 < second["kl_to_base"]  # LoRA starts at the base
    assert np.isfinite(apply(llama, {"params": llama.params}, batch)).all()


def test_a_penalty_without_something_to_hold_on_to_is_refused(llama):
    trainable, frozen = METHODS["lora"].init(jax.random.key(1), {"params": llama.params})
    state, batch = init_state(trainable, GRADIENT), make_batch(llama.config)
    for settings, match in ({"kl_to_base": 1.0}, "kl_to_base: there is no base"), ({"l2_to_base": 1.0}, "l2_to_base: "):
        with pytest.raises(UsageError, match=match):
            train_step(llama, METHODS["lora"], GRADIENT, **settings)(state, frozen, batch, jax.random.key(0))
    banked = bank(lora(2, 4), lora(2, 4))
    step = train_step(llama, banked, per_member(GRADIENT), kl_to_base=1.0)
    with pytest.raises(UsageError, match="members of a bank have no base"):
        step(state, Anchored(frozen, {"params": llama.params}), batch, jax.random.key(0))


# Replay.


def replaying(tmp_path, replay, **data):
    recipe = tiny_run.recipe("no/model", tiny_run.write_rows(tmp_path / "data"), tmp_path / "run")
    return tiny_run.changed(recipe, "data", replay=replay, **data)


def encoded(tmp_path, monkeypatch, rate):
    """The mixture of 24 rows and two replayed tasks of 10 examples, one of three times the weight."""
    import jaxft.runs.replay as module

    def encode(recipe, part, model, options):
        found = [Encoded(f"{one.task.name}:{i}", np.array([i]), np.array([i]), task=one.task.name)
                 for one in part.chosen for i in range(10)]  # fmt: skip
        return found, {}

    monkeypatch.setattr(module, "encode_tasks", encode)
    record = {"source": str(tmp_path / "data"), "completion": "summary", "templates": {"a": "{{ dialogue }}"}}
    one = {"task": {"name": "one", **record}, "weight": 3}
    recipe = replaying(tmp_path, ReplayRecipe(tasks=[one, {"name": "two", **record}], rate=rate))
    rows = [Encoded(f"{i}", np.array([i]), np.array([i])) for i in range(24)]
    return with_replay(recipe, module.read_replay(recipe, None), rows, None, None, {})


def test_replay_has_its_share_of_an_epoch_and_every_row_is_still_in_it(tmp_path, monkeypatch):
    examples, mixture = encoded(tmp_path, monkeypatch, 0.4)
    assert mixture.size == 40 and mixture.quotas == {SOURCE: 24, "one": 12, "two": 4}
    assert mixture.rates == pytest.approx({SOURCE: 0.6, "one": 0.3, "two": 0.1})
    for epoch in (0, 3):
        drawn = mixture.draw(epoch)
        counts = {name: len(places) for name, places in by_task([examples[i] for i in drawn]).items()}
        assert counts == mixture.quotas
        assert sorted(i for i in drawn if i < 24) == list(range(24))
    np.testing.assert_array_equal(mixture.draw(3), encoded(tmp_path, monkeypatch, 0.4)[1].draw(3))
    assert set(mixture.draw(0)) != set(mixture.draw(1))  # of "two" other examples


@pytest.mark.parametrize("rate", [-0.1, 0, 1, 1.5, "much"])
def test_a_rate_out_of_range_is_refused(tmp_path, rate):
    values = to_dict(replaying(tmp_path, ReplayRecipe(tasks=["support"])))
    values["data"]["replay"]["rate"] = rate
    with pytest.raises(UsageError, match=r"data\.replay\.rate"):
        make_recipe(values)


def test_what_cannot_be_replayed_is_refused_before_a_model_is_loaded(tmp_path):
    for task, match in (
        ("suport", "support"),
        ("probes/facts", "for evaluation only"),
        ({"task": "support", "weight": 0}, "all weights are zero"),
        ({"task": "support", "weigth": 1}, r"data\.replay\.tasks: unknown key 'weigth'.*weight"),
    ):
        with pytest.raises(UsageError, match=match):
            read_rows(replaying(tmp_path, ReplayRecipe(tasks=[task])))
    tasks = {"source": None, "prompt": None, "completion": None, "tasks": ["support"], "max_length": 400}
    with pytest.raises(UsageError, match=r"support is in data\.tasks already"):
        read_rows(replaying(tmp_path, ReplayRecipe(tasks=["support"]), **tasks))


def test_a_sweep_refuses_what_needs_a_base(tmp_path):
    recipe = replaying(tmp_path, ReplayRecipe())
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, kl_to_base=0.1))
    with pytest.raises(UsageError, match=r"train\.kl_to_base: a sweep's members"):
        members_of(recipe, {"optimizer.learning_rate": [1e-3, 1e-4]})
