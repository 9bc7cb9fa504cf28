"""Arithmetic of adapters: laws of the updates, hand-worked numbers, and PEFT's own merges on the same tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, make_batch

from jaxft.errors import UsageError
from jaxft.methods import lora, prompt
from jaxft.methods.arithmetic import add, average, concatenate, dare, rerank, ties, trim


def drawn(seed, **shapes):
    """A LoRA tree of two segments; every leaf away from zero."""
    random = np.random.default_rng(seed)
    rank = shapes.get("rank", 4)

    def pair(size, width, out):
        return {
            "a": jnp.asarray(random.standard_normal((size, width, rank)), jnp.float32),
            "b": jnp.asarray(random.standard_normal((size, rank, out)), jnp.float32),
        }

    attention = {"attention": {"q": pair(2, 12, 10), "v": pair(2, 12, 9)}}
    return {"layers": (attention, {}, {"mlp": {"up": pair(1, 12, 15)}})}


def updates(tree):
    """Every kernel's A B, dense and in double precision."""
    pair = lambda node: isinstance(node, dict) and "a" in node  # noqa: E731
    return [
        np.asarray(one["a"], np.float64) @ np.asarray(one["b"], np.float64)
        for one in jax.tree.leaves(tree, is_leaf=pair)
    ]


def same(one, other, tolerance=1e-5):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert_close(one, other, tolerance)


def test_averages_and_sums_are_those_of_the_leaves():
    one, two, three = (drawn(seed) for seed in range(3))
    same(average([one, two, three]), jax.tree.map(lambda a, b, c: (a + b + c) / 3, one, two, three))
    same(average([one, two], [3, 1]), jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, one, two))
    same(average([one, two], [30, 10]), average([one, two], [0.75, 0.25]))
    same(add(one, two, 0.5), jax.tree.map(lambda a, b: a + 0.5 * b, one, two))
    same(add(add(one, two), two, -1.0), one)
    same(jax.jit(lambda trees, weights: average(trees, weights))([one, two], jnp.array([3.0, 1.0])),
         average([one, two], [3, 1]))  # fmt: skip


def test_sums_are_float32_whatever_they_are_made_of():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn(0))
    merges = (average([half, half]), add(half, half), ties([half, half]), trim(half, 0.5), rerank(half, 2),
              dare(half, 0.5, jax.random.key(0)), concatenate([half, half]))  # fmt: skip
    assert {leaf.dtype for leaf in jax.tree.leaves(merges)} == {jnp.dtype("float32")}


def test_the_average_of_factors_is_not_the_average_of_updates():
    one, two = drawn(0), drawn(1)
    mean = [(a + b) / 2 for a, b in zip(updates(one), updates(two), strict=True)]
    assert np.abs(updates(average([one, two]))[0] - mean[0]).max() > 0.1
    exact = updates(concatenate([one, two], [0.5, 0.5]))
    for ours, theirs in zip(exact, mean, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_concatenation_is_the_exact_weighted_sum_of_updates():
    trees, weights, scales = [drawn(0, rank=2), drawn(1, rank=3), drawn(2, rank=4)], [0.5, -1.0, 2.0], [2.0, 1.0, 0.25]
    joined = jax.jit(concatenate)(trees, jnp.array(weights), jnp.array(scales))
    assert jax.tree.structure(joined) == jax.tree.structure(trees[0])
    assert joined["layers"][0]["attention"]["q"]["a"].shape == (2, 12, 9)
    parts = [updates(tree) for tree in trees]
    for place, ours in enumerate(updates(joined)):
        expected = sum(w * s * part[place] for w, s, part in zip(weights, scales, parts, strict=True))
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_concatenated_adapters_act_on_a_model_as_the_sum_of_both(model):
    one, two = lora(2, 6.0, ["q", "up"]), lora(3, 3.0, ["q", "up"])
    bound = []
    for seed, method in enumerate((one, two)):
        trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
        bound.append(method.bind(jax.tree.map(lambda leaf: leaf + 0.05, trainable), frozen)["lora"])
    both = concatenate(bound, [0.7, 0.3])
    as_one = lora(5, 5.0, ["q", "up"])
    started, frozen = as_one.init(jax.random.key(0), {"params": model.params})
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, both)
    params = model.params
    for weight, tree in zip((0.7, 0.3), bound, strict=True):
        params = added(params, tree, weight)
    batch = make_batch(model.config)
    assert_close(model.apply(as_one.bind(both, frozen), batch), model.apply({"params": params}, batch), 5e-5)


def added(params, tree, weight):
    if isinstance(params, tuple):
        return tuple(added(one, other, weight) for one, other in zip(params, tree, strict=True))
    if "a" in tree:
        return {**params, "kernel": params["kernel"] + weight * tree["a"] @ tree["b"]}
    return {key: added(child, tree[key], weight) if key in tree else child for key, child in params.items()}


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 6])
def test_reranked_updates_are_as_near_as_the_dense_svd(rank):
    tree = drawn(3)
    reduced = jax.jit(rerank, static_argnums=1)(tree, rank)
    assert jax.tree.structure(reduced) == jax.tree.structure(tree)
    assert {pair.shape[-1] for pair in (reduced["layers"][0]["attention"]["q"]["a"],)} == {rank}
    for ours, full in zip(updates(reduced), updates(tree), strict=True):
        u, values, v = np.linalg.svd(full, full_matrices=False)
        best = (u[..., :rank] * values[..., None, :rank]) @ v[..., :rank, :]
        np.testing.assert_allclose(ours, best, atol=2e-5)
        tail = np.sqrt((values[..., rank:] ** 2).sum(-1))
        np.testing.assert_allclose(np.linalg.norm(ours - full, axis=(-2, -1)), tail, atol=1e-4)


def test_reranked_factors_are_balanced():
    pair = rerank(drawn(3), 3)["layers"][0]["attention"]["v"]
    of_a, of_b = np.swapaxes(pair["a"], -1, -2) @ pair["a"], pair["b"] @ np.swapaxes(pair["b"], -1, -2)
    np.testing.assert_allclose(of_a, of_b, atol=1e-4)
    np.testing.assert_allclose(of_a, of_a * np.eye(3)[None], atol=1e-4)  # orthogonal columns


def test_reranking_what_was_concatenated_beyond_the_width_is_exact():
    trees = [drawn(seed) for seed in range(4)]
    whole = concatenate(trees)  # rank 16 of 12 x 9 kernels
    for ours, full in zip(updates(rerank(whole, 9)), updates(whole), strict=True):
        rest = np.linalg.svd(full)[1][..., 9:]
        np.testing.assert_allclose(np.linalg.norm(ours - full, axis=(-2, -1)), np.sqrt((rest**2).sum(-1)), atol=1e-4)


def test_reranking_makes_no_product_of_a_kernels_shape():
    shapes = {"layers": ({"q": {"a": jnp.zeros((2, 97, 4)), "b": jnp.zeros((2, 4, 89))}},)}
    text = str(jax.make_jaxpr(lambda tree: rerank(tree, 2))(shapes))
    assert "97,89" not in text and "89,97" not in text and "97,4" in text


def test_an_untrained_lora_stays_nothing():
    tree = jax.tree.map(jnp.zeros_like, drawn(0))
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves((rerank(tree, 2), ties([tree, tree]))))


def test_ties_by_hand():
    trees = [{"w": jnp.array(row)} for row in ([4.0, -1.0, 0.5, 2.0], [-1.0, -3.0, 0.1, 2.0], [2.0, 5.0, -0.2, -1.0])]
    # Half of each stays: [4, 0, 0, 2], [0, -3, 0, 2], [2, 5, 0, 0]; the signs elected are + + + +.
    np.testing.assert_allclose(ties(trees, density=0.5)["w"], [3, 5, 0, 2])
    # All stay: sums 5, 1, 0.4, 3; of those with that sign the means of 4, 2; 5; 0.5, 0.1; 2, 2.
    np.testing.assert_allclose(ties(trees, density=1.0)["w"], [3, 5, 0.3, 2])
    np.testing.assert_allclose(ties(trees, [1, 1, 0.5], density=0.5)["w"], [2.5, 2.5, 0, 2])


def test_a_layer_is_trimmed_by_itself():
    leaf = jnp.array([[1.0, 2.0, 3.0, 4.0], [-40.0, 10.0, 20.0, 30.0]])
    np.testing.assert_array_equal(trim({"layers": ({"x": leaf},)}, 0.5)["layers"][0]["x"],
                                  [[0, 0, 3, 4], [-40, 0, 0, 30]])  # fmt: skip
    np.testing.assert_array_equal(trim({"embedding": leaf}, 0.5)["embedding"], [[0, 0, 0, 0], [-40, 10, 20, 30]])


def test_dare_keeps_a_share_and_the_expectation():
    tree = {"x": jnp.full((400, 500), 2.0), "y": jnp.full((400, 500), 3.0)}
    dropped = jax.jit(dare, static_argnums=1)(tree, 0.25, jax.random.key(0))
    assert set(np.unique(dropped["x"])) == {0.0, 8.0}
    kept = {name: np.asarray(leaf) != 0 for name, leaf in dropped.items()}
    assert all(abs(mask.mean() - 0.25) < 0.005 for mask in kept.values())
    assert (kept["x"] != kept["y"]).mean() > 0.3  # leaves are drawn apart
    assert abs(float(dropped["x"].mean()) - 2.0) < 0.04
    other = dare(tree, 0.25, jax.random.key(1))
    assert (np.asarray(other["x"]) != dropped["x"]).mean() > 0.3
    same(dare(tree, 1.0, jax.random.key(0)), tree)


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("density", [0.1, 0.37, 0.8, 1.0])
def test_merges_equal_those_of_peft(density):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("peft.utils.merge_utils")
    random = np.random.default_rng(5)
    # Tensors of one layer: what PEFT calls a tensor. Two layers, to see that each is merged by itself.
    arrays = [random.standard_normal((2, 13, 7)).astype(np.float32) for _ in range(3)]
    trees = [{"layers": ({"x": array},)} for array in arrays]
    weights = [0.5, 1.0, 2.0]

    def compare(ours, theirs):
        np.testing.assert_allclose(ours["layers"][0]["x"], theirs, atol=1e-6)

    def each_layer(merge, *rest):
        layers = [[torch.tensor(array[layer]) for array in arrays] for layer in range(2)]
        return np.stack([merge(tensors, torch.tensor(weights), *rest).numpy() for tensors in layers])

    compare(jax.jit(ties, static_argnums=2)(trees, jnp.array(weights), density), each_layer(theirs.ties, density))
    pruned = average([trim(tree, density) for tree in trees], weights)
    compare(pruned, each_layer(theirs.magnitude_prune, density) / 3.5)
    compare(average(trees, weights), each_layer(theirs.task_arithmetic) / 3.5)


def test_dare_merges_equal_those_of_peft_given_the_same_draw(monkeypatch):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("peft.utils.merge_utils")
    random = np.random.default_rng(5)
    arrays = [random.standard_normal((13, 7)).astype(np.float32) for _ in range(3)]
    dropped = [dare({"x": array}, 0.4, jax.random.key(i)) for i, array in enumerate(arrays)]
    draws = iter([torch.tensor(np.asarray(tree["x"]) != 0).float() for tree in dropped] * 2)
    monkeypatch.setattr(theirs.torch, "bernoulli", lambda probabilities: next(draws))
    tensors, weights = [torch.tensor(array) for array in arrays], torch.tensor([1.0, 2.0, 1.0])
    linear = theirs.dare_linear(tensors, weights, 0.4).numpy() / 4
    np.testing.assert_allclose(average(dropped, [1, 2, 1])["x"], linear, atol=1e-6)
    elected = theirs.dare_ties(tensors, weights, 0.4).numpy()
    np.testing.assert_allclose(ties(dropped, [1, 2, 1], density=1.0)["x"], elected, atol=1e-6)


def test_what_does_not_fit_is_refused_by_name(llama):
    one = drawn(0)
    with pytest.raises(UsageError, match=r"layers/0/attention/q/a: \[2, 12, 4\] in tree 1, \[2, 12, 3\] in tree 2"):
        average([one, drawn(0, rank=3)])
    fewer = {"layers": ({"attention": {"q": one["layers"][0]["attention"]["q"]}}, {}, one["layers"][2])}
    with pytest.raises(UsageError, match=r"layers/0/attention/v/a: \[2, 12, 4\] in tree 1, missing in tree 3"):
        ties([one, one, fewer])
    with pytest.raises(UsageError, match=r"layers/0/attention/v/a: missing in tree 1"):
        concatenate([fewer, one])
    with pytest.raises(UsageError, match="nested otherwise"):
        add(one, {"layers": list(one["layers"])})
    soft, _ = prompt(3).init(jax.random.key(0), {"params": llama.params})
    with pytest.raises(UsageError, match="the tree: not a LoRA pair"):
        rerank(soft, 2)
    dora = {"layers": ({"q": {**one["layers"][0]["attention"]["q"], "m": jnp.ones((2, 10))}},)}
    with pytest.raises(UsageError, match="layers/0/q: not a LoRA pair"):
        concatenate([dora, dora])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tree: average([]), "no tree to merge"),
        (lambda tree: average([tree, tree], [1, -1]), "sum to 0"),
        (lambda tree: average([tree, tree], [1]), r"weights: \[1\] for 2 trees"),
        (lambda tree: concatenate([tree], scales=[1, 2]), r"scales: \[2\] for 1 trees"),
        (lambda tree: rerank(tree, 0), "rank: 0"),
        (lambda tree: rerank(tree, 2.0), "rank: 2.0"),
        (lambda tree: rerank(tree, 10), "10 exceeds the 12 x 9 of layers/0/attention/v"),
        (lambda tree: ties([tree, tree], density=0.0), "density: 0.0"),
        (lambda tree: dare(tree, 1.5, jax.random.key(0)), "density: 1.5"),
    ],
)
def test_bad_settings_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call(drawn(0))
