"""A base in 8 or 4 bits: what it rounds, that everything else sees the rounded model, and what it costs in memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from conftest import CONFIGS, apply, assert_close, make_batch, make_model

import jaxft
from jaxft import methods
from jaxft.errors import UsageError
from jaxft.models import Decoder, DecoderConfig, Model
from jaxft.models.layers import dot
from jaxft.models.quantised import LEVELS, NF4, Int8, block_size, is_quantised, quantize_kernel
from jaxft.models.stack import Numerics
from jaxft.runs.parts import load_model
from jaxft.runs.sizes import sizes
from jaxft.training.loss import token_loss
from jaxft.training.sharding import make_mesh, shard
from jaxft.training.state import init_state
from jaxft.training.step import train_step

# Appendix E of the paper.
PUBLISHED = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
KINDS = ("int8", "nf4")

# Every kind of method at once, each on kernels of its own.
EVERY = methods.union(
    methods.lora(4, 8, "q", rslora=True),
    methods.dora(4, 8, "v"),
    methods.pissa(4, 8, "gate"),
    methods.vera(8, "up"),
    methods.ia3(("k",), ("down",)),
    methods.adapter(6),
    methods.prompt(3),
    methods.prefix(3, hidden=0),
    methods.selective("norms"),
)


@functools.cache
def quantised(name, kind):
    """A tiny model with a base in few bits, and the same one with that base dense again."""
    model = make_model(CONFIGS[name])
    params = jaxft.quantize_params(model.params, kind)
    return tuple(dataclasses.replace(model, params=p) for p in (params, jaxft.dequantize_params(params)))


def leaves(params):
    return jax.tree.leaves(params, is_leaf=is_quantised)


def kernels(width=96, out=40):
    kernel = np.array(jax.random.normal(jax.random.key(0), (3, width, out)))
    kernel[1, :, 3] = 0  # no number to scale by
    kernel[2] *= 100
    return kernel


def test_levels_are_the_published_ones():
    # Which were made with the outermost quantile at 0.9677083 and stored in float32.
    np.testing.assert_allclose(LEVELS, PUBLISHED, rtol=0, atol=1e-6)
    assert LEVELS[0] == -1 and LEVELS[7] == 0 and LEVELS[15] == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8_is_within_half_a_step_of_its_column(dtype):
    kernel = jnp.asarray(kernels(60), dtype)
    held = quantize_kernel(kernel, "int8")
    assert held.codes.dtype == jnp.int8 and held.codes.shape == held.shape == kernel.shape
    assert held.scales.shape == (3, 1, 40) and held.dtype == kernel.dtype and held.ndim == 3
    wide = np.asarray(kernel, np.float32)
    step = np.abs(wide).max(axis=1, keepdims=True) / 127
    assert (np.abs(held.astype(jnp.float32) - wide) <= step * 0.5001).all()
    assert held.astype(dtype).dtype == kernel.dtype


@pytest.mark.parametrize(("width", "block"), [(128, 64), (96, 32), (80, 16)])
def test_nf4_takes_the_nearest_level_of_each_block(width, block):
    kernel = kernels(width)
    held = quantize_kernel(kernel, "nf4")
    assert held.codes.dtype == jnp.uint8 and held.codes.shape == (3, width // 2, 40)
    assert held.scales.shape == (3, width // block, 40) and held.shape == kernel.shape
    blocks = kernel.reshape(3, width // block, block, 40)
    scales = np.abs(blocks).max(axis=2, keepdims=True)
    nearest = np.abs(blocks[..., None] - scales[..., None] * np.array(LEVELS)).min(axis=-1)
    error = np.abs(held.astype(jnp.float32).reshape(blocks.shape) - blocks)
    np.testing.assert_allclose(error, nearest, atol=1e-6 * scales.max())
    assert not held.astype(jnp.float32)[1, :, 3].any()


def test_what_no_block_divides_stays_dense(llama):
    params = jaxft.quantize_params(llama.params, "nf4")
    held = {leaf.shape[1] for leaf in leaves(params) if is_quantised(leaf)}
    assert held == {48} and block_size(48) == 16  # and not 60 and 88, the widths of heads and of the mlp
    assert {type(leaf) for leaf in leaves(jaxft.quantize_params(llama.params, "int8")["layers"])} > {Int8}
    for name in ("embedding", "head", "norm"):
        jax.tree.map(np.testing.assert_array_equal, params[name], llama.params[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dot_is_the_product_with_the_dense_kernel(kind, dtype):
    held = jax.tree.map(lambda leaf: leaf[0], quantize_kernel(kernels(), kind))
    x = jax.random.normal(jax.random.key(1), (2, 5, 96)).astype(dtype)

    def made(kernel):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(dot(x, kernel).astype(jnp.float32) / 50))))(x)

    # One unit in the last place, where bfloat16 sums are rounded once more.
    assert_close(made(held), made(held.astype(dtype)), 1e-6 if dtype == "float32" else 2e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "flan-t5"])
def test_logits_are_those_of_the_dequantised_params(name, kind):
    model, dense = quantised(name, kind)
    batch = make_batch(model.config)
    expected = apply(dense, {"params": dense.params}, batch)
    assert_close(apply(model, {"params": model.params}, batch), expected)
    before = make_model(CONFIGS[name])
    assert np.abs(apply(before, {"params": before.params}, batch) - expected).max() > 1e-3  # it does round


@pytest.mark.parametrize("name", ["llama", "flan-t5"])
def test_every_method_learns_as_on_the_dequantised_base(name):
    (model, dense), batch = quantised(name, "nf4"), make_batch(CONFIGS[name], rows=2)
    trainable, frozen = EVERY.init(jax.random.key(1), {"params": model.params})
    started, other = EVERY.init(jax.random.key(1), {"params": dense.params})
    assert_close((trainable, frozen["union"]), (started, other["union"]))
    # LoRA's b is 0 at first, and a then has no gradient.
    trainable = jax.tree.map(lambda leaf: leaf + 0.02, trainable)
    held = _gradient(model.architecture, trainable, frozen, batch)
    expected = _gradient(dense.architecture, trainable, {**frozen, "params": other["params"]}, batch)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(held[1]) if leaf.size > 200)
    for mine, theirs in zip(jax.tree.leaves(held), jax.tree.leaves(expected), strict=True):
        assert_close(mine, theirs, 1e-4)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(architecture, trainable, frozen, batch):
    loss = token_loss()
    return jax.value_and_grad(lambda t: loss(architecture, EVERY.bind(t, frozen), batch, None)[0])(trainable)


def test_members_sharded_weights_and_accelerators():
    model, dense = quantised("llama", "nf4")
    batch = make_batch(model.config)
    sharded = shard(model.params, make_mesh(data=2, fsdp=2))
    codes = sharded["layers"][0]["mlp"]["up"]["kernel"].codes
    assert codes.addressable_shards[0].data.shape == (3, 24, 44)
    expected = apply(dense, {"params": dense.params}, batch)
    assert_close(apply(model, {"params": sharded}, batch), expected)

    method = methods.lora(2, 4, "all")
    variables = {"params": model.params}
    members = [method.init(jax.random.key(seed), variables)[0] for seed in (0, 1)]
    members = [jax.tree.map(lambda leaf: leaf + 0.02, member) for member in members]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *members)
    together = jax.jit(jax.vmap(lambda t: model.apply(method.bind(t, variables), batch)))(stacked)
    assert_close(together[1], apply(model, method.bind(members[1], variables), batch))

    optimizer = optax.adamw(1e-3)
    state = jax.eval_shape(lambda t: init_state(t, optimizer), members[0])
    traced = train_step(model, method, optimizer).jitted.trace(state, variables, batch, jax.random.key(0))
    for platform in ("tpu", "cuda"):
        assert "dot_general" in traced.lower(lowering_platforms=(platform,)).as_text()


def test_generation_writes_what_the_dequantised_params_write(llama):
    model, dense = quantised("llama", "nf4")
    prompts = [[5, 6, 7, 8, 9], [10, 11, 12]]
    texts = [
        jaxft.generate(one, {"params": one.params}, prompts, max_new_tokens=5, return_tokens=True)
        for one in (model, dense)
    ]
    assert texts[0] == texts[1]
    held, expected = (
        jaxft.log_likelihood(one, {"params": one.params}, prompts, [[4, 9], [7]])[0] for one in (model, dense)
    )
    np.testing.assert_allclose(held, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_load_quantises_what_it_reads(tmp_path, llama, kind):
    jaxft.save(tmp_path / "model", llama)
    paths = []

    def put(path, array):
        paths.append(path)
        return jax.device_put(array)

    loaded = jaxft.load(tmp_path / "model", quantize=kind, put=put).params
    expected = jaxft.quantize_params(llama.params, kind)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert {"embedding", "layers/0/attention/q/kernel/codes", "layers/0/attention/q/kernel/scales"} <= set(paths)


def test_merging_gives_a_dense_model(llama):
    model, dense = quantised("llama", "nf4")
    method = methods.union(methods.lora(2, 4, "all"), methods.selective("norms"))
    merged = []
    for one in (model, dense):
        trainable, frozen = method.init(jax.random.key(0), {"params": one.params})
        merged.append(methods.merge(method.bind(jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen)))
    assert not any(map(is_quantised, leaves(merged[0])))
    jax.tree.map(np.testing.assert_array_equal, *merged)


def test_layers_are_cut_and_joined():
    params = quantised("llama", "nf4")[0].params
    split = methods.trees.split_last(params, 1)
    assert [leaves(segment)[0].shape[0] for segment in split["layers"]] == [2, 1]
    assert any(map(is_quantised, leaves(split["layers"][1])))
    jax.tree.map(np.testing.assert_array_equal, methods.trees.join(split), params)


def test_sizes_count_real_bytes(llama):
    model, _ = quantised("llama", "nf4")
    kernel = model.params["layers"][0]["mlp"]["up"]["kernel"]
    assert isinstance(kernel, NF4)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(kernel)) == 3 * 88 * (48 // 2 + 48 // 16 * 4)
    held, dense = (sizes(one, {"name": "lora"}) for one in (model, llama))
    assert held.total == dense.total and held.trainable == dense.trainable
    assert held.weight_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) < dense.weight_bytes
    shapes = jax.eval_shape(lambda: jaxft.quantize_params(llama.params, "nf4"))
    assert sizes(dataclasses.replace(llama, params=shapes), {"name": "lora"}) == held


def test_what_cannot_be_is_refused(tmp_path, llama):
    model, _ = quantised("llama", "nf4")
    variables = {"params": model.params}

    def refused(message, function, *args, **settings):
        with pytest.raises(UsageError, match=message):
            function(*args, **settings)

    refused("held as nf4 and cannot be trained itself; tune it with lora", methods.full().init, None, variables)
    refused("choose 'norms'", methods.selective("attention").init, None, variables)
    refused("held as nf4 already", jaxft.quantize_params, model.params, "int8")
    refused("unknown kind 'nf5'; did you mean 'nf4'", jaxft.quantize_params, llama.params, "nf5")
    refused("unknown kind 'int4'", jaxft.load, "anywhere", quantize="int4")
    small = jax.tree.map(lambda leaf: leaf[:, :40] if leaf.ndim == 3 else leaf, llama.params)
    refused("fits no kernel of this model", jaxft.quantize_params, small, "nf4")
    refused("save jaxft.dequantize_params", jaxft.save, tmp_path / "out", model)
    assert not list(tmp_path.iterdir())


def test_a_recipe_quantises_its_base(tmp_path):
    recipe = tiny_run.recipe(tiny_run.write_model(tmp_path / "model"), "data", "out")
    recipe = tiny_run.changed(recipe, "model", quantize="nf4")
    assert any(map(is_quantised, leaves(load_model(recipe).params)))
    with pytest.raises(UsageError, match=r"model\.quantize: quantised weights are frozen"):
        jaxft.recipe.resolve(dataclasses.replace(recipe, method={"name": "full"}))
    with pytest.raises(UsageError, match=r"model\.quantize"):
        jaxft.recipe.resolve(tiny_run.changed(recipe, "model", quantize="int4"))


def step_memory(num_layers):
    """What a LoRA step on an NF4 base takes, in bytes, and what the base and a layer of it take in bfloat16."""
    config = DecoderConfig("llama", vocab_size=64, num_layers=num_layers, width=256, num_heads=4, num_kv_heads=4,
                           head_dim=64, mlp_width=1024)  # fmt: skip
    architecture = Decoder(config, Numerics(dtype=jnp.bfloat16, unroll=False))
    method, optimizer = methods.lora(2, 4, "attention"), optax.adamw(1e-3)

    def start():
        params = architecture.init(jax.random.key(0), jnp.bfloat16)
        trainable, frozen = method.init(jax.random.key(0), {"params": jaxft.quantize_params(params, "nf4")})
        return init_state(trainable, optimizer), frozen, params

    state, frozen, params = jax.eval_shape(start)
    step = train_step(Model(architecture, params, None), method, optimizer).jitted
    batch = make_batch(config, rows=1, length=8)
    memory = step.lower(state, frozen, batch, jax.random.key(0)).compile().memory_analysis()
    base, layer = (sum(2 * leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, params["layers"]))
    return memory.argument_size_in_bytes, memory.temp_size_in_bytes, base, layer // num_layers


def test_one_layer_is_dense_at_a_time():
    arguments, temporary, base, layer = step_memory(8)
    assert arguments + temporary < base
    assert temporary < 2.5 * layer
    deeper = step_memory(16)[1]
    assert deeper - temporary < layer  # activations and gradients of eight more layers, not one dense layer
