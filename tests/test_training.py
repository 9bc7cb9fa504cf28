"""Laws of the loss and the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import LLAMA, assert_close, make_batch, make_model

from jaxft.errors import UsageError
from jaxft.methods import full, lora, prompt
from jaxft.training.loss import cross_entropy, smoothed_cross_entropy, token_loss
from jaxft.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from jaxft.training.sharding import RULES, make_mesh, shard, shardings
from jaxft.training.state import init_state
from jaxft.training.step import loss_step, train_step

# Plain SGD shows the gradient itself: the update is its negative.
GRADIENT = optax.sgd(1.0)


def plain_loss(architecture, variables, batch, key=None):
    logits = architecture.head(variables, architecture.hidden(variables, batch, key))
    return jnp.sum(cross_entropy(logits, batch["targets"]) * batch["weights"]), jnp.sum(batch["weights"])


def started(method, model):
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


def update(model, method, batch, mesh=None, **settings):
    """One step of SGD at rate 1 from a fixed start: `(loss, new trainable)`, on the host."""
    trainable, frozen = started(method, model)
    state = init_state(shard(trainable, mesh), GRADIENT, mesh)
    step = train_step(model, method, GRADIENT, mesh=mesh, **settings)
    state, metrics = step(state, shard(frozen, mesh), batch, jax.random.key(0))
    return jax.device_get((metrics["loss"], state.trainable))


@pytest.mark.parametrize("method", [full(), lora(4, 8, "all")], ids=["full", "lora"])
@pytest.mark.parametrize("chunk", [8, 512])
def test_the_chunked_loss_and_its_gradient_equal_the_plain_ones(model, method, chunk):
    batch = make_batch(model.config)
    assert_close(
        update(model, method, batch, loss=token_loss(chunk=chunk)), update(model, method, batch, loss=plain_loss)
    )


def test_a_tied_head_gets_both_gradients():
    import dataclasses

    model = make_model(dataclasses.replace(LLAMA, tie_embeddings=True))
    batch = make_batch(model.config)
    assert_close(update(model, full(), batch), update(model, full(), batch, loss=plain_loss))


def test_weights_are_weights(llama):
    """Weights of 2 count twice, weights of 0 not at all, and the loss is divided by their sum."""
    batch = make_batch(llama.config)
    weights = batch["weights"] * (1 + (np.arange(batch["weights"].shape[1]) % 2))
    batch = batch | {"weights": weights.astype(np.float32)}
    logits = llama.apply({"params": llama.params}, batch)
    expected = np.sum(np.asarray(cross_entropy(logits, batch["targets"])) * weights) / weights.sum()
    total, count = loss_step(llama, full())(llama.params, {}, batch)
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)
    assert count == weights.sum()


def test_accumulation_gives_the_same_gradient(model):
    """Parts hold different numbers of target tokens, so a mean of means would not pass."""
    batch = make_batch(model.config, rows=8)
    method = lora(4, 8, "all")
    whole = update(model, method, batch)
    for accumulate in (2, 4, 8):
        assert_close(update(model, method, batch, accumulate=accumulate), whole)


@pytest.mark.parametrize(
    "method", [pytest.param(full(), marks=pytest.mark.slow, id="full"), pytest.param(lora(4, 8, "all"), id="lora")]
)
def test_devices_give_the_same_gradient(model, method):
    batch = make_batch(model.config, rows=8)
    alone = update(model, method, batch)
    for mesh in ((2, 1), (1, 4), (4, 2)):  # 2, 4 and 8 devices
        assert_close(update(model, method, batch, mesh=make_mesh(*mesh)), alone, 5e-5)


def test_accumulation_on_devices_gives_the_same_gradient(llama):
    batch = make_batch(llama.config, rows=8)
    assert_close(update(llama, full(), batch, mesh=make_mesh(2, 2), accumulate=2), update(llama, full(), batch), 5e-5)


def test_weights_adapters_and_moments_are_split_by_one_table(llama):
    mesh = make_mesh(2, 4)
    method = lora(4, 8, "all")
    trainable, frozen = started(method, llama)
    optimizer = optax.adamw(1e-3)
    state = init_state(shard(trainable, mesh), optimizer, mesh)
    step = train_step(llama, method, optimizer, mesh=mesh)
    frozen = shard(frozen, mesh)
    for _ in range(2):
        state, _ = step(state, frozen, make_batch(llama.config, rows=8), jax.random.key(0))
    kernel = frozen["params"]["layers"][0]["mlp"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[2] == kernel.shape[2] // 4
    a = state.trainable["layers"][0]["mlp"]["up"]["a"]
    moment = state.opt_state[0].mu["layers"][0]["mlp"]["up"]["a"]
    assert a.sharding == moment.sharding and a.sharding.shard_shape(a.shape)[1] == a.shape[1] // 4
    assert step.jitted._cache_size() == 1  # shards do not drift from step to step


def test_an_axis_that_does_not_divide_is_passed_over():
    mesh = make_mesh(1, 8)
    specs = shardings({"embedding": jax.ShapeDtypeStruct((101, 48), "float32")}, mesh)
    assert specs["embedding"].spec == jax.sharding.PartitionSpec(None, "fsdp")
    specs = shardings({"scale": jax.ShapeDtypeStruct((3, 48), "float32")}, mesh)
    assert specs["scale"].spec == jax.sharding.PartitionSpec()
    assert len(RULES) > 2


def test_a_step_that_is_not_finite_changes_nothing(llama):
    method, batch = lora(4, 8), make_batch(llama.config)
    trainable, frozen = started(method, llama)
    optimizer = optax.adamw(1e-2)
    step = train_step(llama, method, optimizer, loss=lambda *a: (plain_loss(*a)[0] * jnp.nan, plain_loss(*a)[1]))
    before = jax.tree.map(np.array, (trainable, optimizer.init(trainable)))
    state, metrics = step(init_state(trainable, optimizer), frozen, batch, jax.random.key(0))
    assert not metrics["finite"] and int(state.step) == 1
    jax.tree.map(np.testing.assert_array_equal, before, (state.trainable, state.opt_state))


def test_batches_that_cannot_be_trained_on_are_refused(llama):
    batch = make_batch(llama.config)
    with pytest.raises(UsageError, match="no target token"):
        update(llama, full(), batch | {"weights": np.zeros_like(batch["weights"])})
    with pytest.raises(UsageError, match="4 rows cannot be accumulated in 3"):
        update(llama, full(), batch, accumulate=3)
    with pytest.raises(UsageError, match="4 rows do not divide over 8"):
        update(llama, full(), batch, mesh=make_mesh(8))
    with pytest.raises(UsageError, match="needs 32 devices; there are 8"):
        make_mesh(4, 8)


def test_label_smoothing_against_a_dense_target():
    logits = jax.random.normal(jax.random.key(0), (5, 7))
    targets = jnp.arange(5)
    dense = 0.9 * jax.nn.one_hot(targets, 7) + 0.1 / 7
    expected = -jnp.sum(dense * jax.nn.log_softmax(logits), axis=-1)
    np.testing.assert_allclose(smoothed_cross_entropy(0.1)(logits, targets), expected, rtol=1e-5)


def test_schedules_have_their_shapes():
    def rates(**settings):
        return [float(make_schedule(OptimizerConfig(learning_rate=1.0, **settings), 10)(step)) for step in range(11)]

    np.testing.assert_allclose(rates(schedule="linear", warmup_steps=2), [0, 0.5, *np.linspace(1, 0, 9)], atol=1e-6)
    assert rates(schedule="constant") == [1.0] * 11
    np.testing.assert_allclose(rates(schedule="cosine")[5], 0.5, atol=1e-6)
    with pytest.raises(UsageError, match="leaves none of the 10 steps"):
        rates(warmup_steps=10)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("method", [full(), lora(4, 8), prompt(4)], ids=["full", "lora", "prompt"])
def test_every_method_learns_a_batch_by_heart(llama, name, method):
    rate = {"full": 1e-2, "lora": 3e-2, "prompt": 0.1}[method.config["name"]]
    optimizer = make_optimizer(OptimizerConfig(name, rate, "constant"), 40)
    trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
    state, step = init_state(trainable, optimizer), train_step(llama, method, optimizer)
    batch = make_batch(llama.config, rows=2)
    losses = []
    for _ in range(40):
        state, metrics = step(state, frozen, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_weight_decay_spares_norms(llama):
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, clip_norm=None, schedule="constant")
    optimizer = make_optimizer(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, llama.params)
    updates, _ = optimizer.update(zeros, optimizer.init(llama.params), llama.params)
    assert not np.any(updates["norm"]["scale"]) and np.any(updates["embedding"])
