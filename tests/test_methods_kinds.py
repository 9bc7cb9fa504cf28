"""What each method does beyond the laws that all share: its formula, its choices, what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import LLAMA, assert_close, make_batch, make_model
from every_method import METHODS
from tiny_tokenizer import tiny_tokenizer

from jaxft import methods
from jaxft.errors import UsageError
from jaxft.methods.prompt import tokenised
from jaxft.methods.trees import flatten, spelled
from jaxft.training.optimizer import OptimizerConfig, make_optimizer

KEY = jax.random.key(0)


def started(method, model):
    trainable, frozen = method.init(KEY, {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen


def names(method, model):
    return {spelled(path) for path in flatten(method.init(KEY, {"params": model.params})[0])}


def test_selective_takes_what_it_is_told(llama, flan_t5):
    assert names(methods.selective("norms"), llama) == {
        "norm/scale", "layers/attention_norm/scale", "layers/mlp_norm/scale",
    }  # fmt: skip
    assert names(methods.selective("head"), llama) == {"head/kernel"}
    assert names(methods.selective("embeddings"), llama) == {"embedding"}
    assert names(methods.selective(["q", "mlp/down"]), llama) == {
        "layers/attention/q/kernel", "layers/mlp/down/kernel",
    }  # fmt: skip
    assert names(methods.selective("decoder/.*relative_bias"), flan_t5) == {"decoder/relative_bias"}
    biased = make_model(dataclasses.replace(LLAMA, qkv_bias=True))
    assert {f"layers/attention/{name}/bias" for name in "qkv"} < names(methods.selective("bitfit"), biased)


def test_the_last_layers_are_the_decoders_last(flan_t5):
    trainable, frozen = methods.selective("layers", last=2).init(KEY, {"params": flan_t5.params})
    assert set(trainable) == {"decoder"}
    first, last = trainable["decoder"]["layers"]
    assert first == {} and {leaf.shape[0] for leaf in jax.tree.leaves(last)} == {2}
    np.testing.assert_array_equal(
        last["mlp"]["up"]["kernel"], flan_t5.params["decoder"]["layers"][0]["mlp"]["up"]["kernel"][1:]
    )
    assert len(frozen["params"]["encoder"]["layers"]) == 1


def test_dora_equals_its_dense_formula(llama):
    method = methods.dora(4, 8, ["q", "down"])
    trainable, frozen = started(method, llama)
    merged = methods.merge(method.bind(trainable, frozen))
    for place in (("attention", "q"), ("mlp", "down")):
        own, kernel, got = trainable["layers"][0], llama.params["layers"][0], merged["layers"][0]
        for key in place:
            own, kernel, got = own[key], kernel[key], got[key]
        dense = kernel["kernel"] + 2 * own["a"] @ own["b"]
        assert_close(got["kernel"], own["m"][:, None] * dense / jnp.linalg.norm(dense, axis=1, keepdims=True))


def test_pissa_begins_as_the_best_approximation(llama):
    method = methods.pissa(4, 8.0, ["up", "q"], alpha_pattern={"up": 2.0})
    trainable, frozen = method.init(KEY, {"params": llama.params})
    pair, kernels = trainable["layers"][0]["mlp"]["up"], llama.params["layers"][0]["mlp"]["up"]["kernel"]
    for a, b, kernel in zip(pair["a"], pair["b"], kernels, strict=True):
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        best = (left[:, :4] * values[:4]) @ right[:4]
        rest = np.linalg.norm(kernel - best)
        assert np.linalg.norm(kernel - 0.5 * a @ b) <= 1.002 * rest  # the scale is alpha / rank
    assert_close(pair["a"], frozen["pissa"]["layers"][0]["mlp"]["up"]["a"])


def test_rslora_patterns_and_ranks(llama):
    method = methods.lora(4, 8, ["q", "mlp"], rslora=True, rank_pattern={"mlp": 2}, alpha_pattern={"down": 3})
    trainable, frozen = started(method, llama)
    bound = method.bind(trainable, frozen)["lora"]["layers"][0]
    for place, rank, alpha in ((("attention", "q"), 4, 8), (("mlp", "up"), 2, 8), (("mlp", "down"), 2, 3)):
        own, got = trainable["layers"][0][place[0]][place[1]], bound[place[0]][place[1]]
        assert own["a"].shape[-1] == rank
        assert_close(got["b"], own["b"] * alpha / rank**0.5)


def test_vera_shares_one_pair(llama):
    method = methods.vera(5, ["q", "down"])
    trainable, frozen = started(method, llama)
    bound = method.bind(trainable, frozen)["lora"]["layers"][0]
    shared, own = jax.tree.map(np.asarray, (frozen["vera"], trainable["layers"][0]["attention"]["q"]))
    assert shared["a"].shape == (88, 5) and shared["b"].shape == (5, 60)
    assert_close(bound["attention"]["q"]["a"][1], shared["a"][:48] * own["d"][1])
    assert_close(bound["attention"]["q"]["b"][1], shared["b"] * own["b"][1])


def test_an_adapter_is_its_formula():
    """A parallel adapter in the only layer, whose own sublayers are silenced, adds `s up(relu(down x))`."""
    config = dataclasses.replace(LLAMA, num_layers=1)
    model, batch = make_model(config), make_batch(config)
    params = jax.tree.map(np.array, model.params)
    for group, name in (("mlp", "down"), ("attention", "o")):
        params["layers"][0][group][name]["kernel"] *= 0
    method = methods.adapter(6, "parallel", "relu", 4.0)
    trainable, _ = started(method, model)
    variables = method.bind(trainable, {"params": jax.tree.map(jnp.asarray, params)})
    hidden = model.architecture.hidden(variables, batch)

    def normed(x, scale):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-5) * scale

    own = jax.tree.map(lambda leaf: np.asarray(leaf[0]), trainable["layers"][0]["mlp_adapter"])
    x = params["embedding"][batch["tokens"]]
    inner = normed(x, params["layers"][0]["mlp_norm"]["scale"][0]) @ own["down"]["kernel"] + own["down"]["bias"]
    y = x + 4 * (np.maximum(inner, 0) @ own["up"]["kernel"] + own["up"]["bias"])
    assert_close(hidden, normed(y, params["norm"]["scale"]))


def test_unions_in_either_order_bind_the_same(llama):
    lora, norms = methods.lora(4, 8, "q"), methods.selective(["norms", "v"], last=1)
    one, two = methods.union(lora, norms), methods.union(norms, lora)
    first, frozen = one.init(KEY, {"params": llama.params})
    second, other = two.init(KEY, {"params": llama.params})
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, second[::-1])
    bound, again = one.bind(first, frozen), two.bind(first[::-1], other)
    assert jax.tree.structure(bound) == jax.tree.structure(again)
    jax.tree.map(np.testing.assert_array_equal, bound, again)


@pytest.mark.parametrize("turned", [False, True])
def test_a_union_refuses_two_methods_on_one_weight(llama, turned):
    for pair in (
        [methods.lora(2, 4, "q"), methods.selective("attention")],
        [methods.lora(2, 4, "attention"), methods.dora(2, 4, "v")],
        [methods.selective("norms"), methods.selective("norm/scale$")],
        [methods.prompt(3), methods.prompt(4)],
    ):
        with pytest.raises(UsageError, match="both train"):
            methods.union(*(pair[::-1] if turned else pair)).init(KEY, {"params": llama.params})


@pytest.mark.parametrize("name", ["prompt-network", "prefix-network", "union-network", "lora"])
def test_finalize_keeps_what_the_model_sees(name, model):
    table = METHODS | {"union-network": methods.union(methods.prefix(3, hidden=4), methods.pissa(2, 4))}
    method = table[name]
    trainable, frozen = started(method, model)
    final, kept = methods.finalize(method, trainable, frozen)
    assert_close(final.bind(kept, frozen), method.bind(trainable, frozen))
    assert "hidden" not in str(final.config) or "'hidden': 0" in str(final.config)


def test_prompts_start_from_labels_and_text(llama):
    tokenizer = tiny_tokenizer()
    table = np.asarray(llama.params["embedding"])
    rows = methods.prompt(4, [[7, 9], [5]]).init(KEY, {"params": llama.params})[0]["embedding"]
    np.testing.assert_allclose(rows[:2], [table[[7, 9]].mean(0), table[5]], rtol=1e-6)
    config = methods.prompt(4, {"text": "a b"}).config
    with pytest.raises(UsageError, match="needs the tokenizer"):
        methods.from_config(config).init(KEY, {"params": llama.params})
    ids = tokenised(config, tokenizer)["initialise"]
    assert ids == tokenizer("a b", add_special_tokens=False)["input_ids"]
    labels = tokenised(methods.prompt(4, {"labels": ["a", "b"]}).config, tokenizer)["initialise"]
    assert all(isinstance(label, list) and label for label in labels)


def test_lora_plus_moves_b_further():
    tree = {"q": {"a": jnp.ones(3), "b": jnp.ones(3)}}
    config = OptimizerConfig(schedule="constant", learning_rate=0.1, lora_plus_ratio=16.0)
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    np.testing.assert_allclose(updates["q"]["b"], 16 * updates["q"]["a"], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "selective", "targets": "bitfit"}, "has none; use .norms."),
        ({"name": "selective", "targets": "nroms"}, "did you mean 'norms'"),
        ({"name": "selective", "targets": "layers", "last": 4}, "not between 1 and the model's 3 layers"),
        ({"name": "selective", "targets": "layers", "last": 0}, "method.last"),
        ({"name": "selective", "targets": "embeddings", "last": 1}, "no weight in the last 1 layers"),
        ({"name": "vera", "rank": 0}, "method.rank"),
        ({"name": "lora", "targets": "q", "rank_pattern": {"mlp": 2}}, "method.rank_pattern: 'mlp' matches no kernel"),
        ({"name": "adapter", "width": 0}, "method.width"),
        ({"name": "adapter", "place": "holsby"}, "did you mean 'houlsby'"),
        ({"name": "adapter", "activation": "rleu"}, "did you mean 'relu'"),
        ({"name": "prefix", "length": 0}, "method.length"),
        ({"name": "prompt", "initialise": {"txt": "x"}}, "neither"),
        ({"name": "prompt", "initialise": [[]]}, "has no tokens"),
        ({"name": "prompt", "place": "middle"}, "method.place"),
        ({"name": "union", "methods": [{"name": "ia3"}]}, "two methods or more"),
        ({"name": "union", "methods": [{"name": "full"}, {"name": "ia3"}]}, "leaves nothing for another"),
        ({"name": "union"}, "a union has methods"),
    ],
)
def test_bad_settings_are_refused(llama, config, message):
    with pytest.raises(UsageError, match=message):
        methods.from_config(config).init(KEY, {"params": llama.params})


def test_a_tied_model_has_no_head_to_select():
    tied = make_model(dataclasses.replace(LLAMA, tie_embeddings=True))
    with pytest.raises(UsageError, match="tied to its embeddings; use 'embeddings'"):
        methods.selective("head").init(KEY, {"params": tied.params})
