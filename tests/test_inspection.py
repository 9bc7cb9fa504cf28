"""Looking inside: norms against the dense SVD, nearest tokens against what they were made of, and the pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import LLAMA, make_model
from tiny_tokenizer import tiny_tokenizer

from jaxft.errors import UsageError
from jaxft.methods import lora, prompt
from jaxft.methods.inspection import Nearest, draw_norms, draw_tokens, nearest_tokens, update_norms
from jaxft.methods.trees import flatten, places, spelled


def bound(model, targets="all", rank=4):
    method = lora(rank, 6.0, targets)
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    draw = np.random.default_rng(0)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * draw.standard_normal(leaf.shape).astype(np.float32), trainable)
    return method.bind(moved, frozen)


def test_norms_are_those_of_the_dense_update(model):
    variables = bound(model)
    norms = update_norms(variables)
    assert len(norms) == len(places(variables["lora"]))
    kernels = flatten(variables["params"])
    for place, pair in places(variables["lora"]).items():
        norm, kernel = norms[spelled(place)], np.asarray(kernels[(*place, "kernel")], np.float64)
        values = np.linalg.svd(np.asarray(pair["a"], np.float64) @ np.asarray(pair["b"]), compute_uv=False)[:, :4]
        frobenius = np.sqrt((values**2).sum(-1))
        shares = values / values.sum(-1, keepdims=True)
        np.testing.assert_array_equal(norm.layers, np.arange(len(kernel)))
        np.testing.assert_allclose(norm.frobenius, frobenius, rtol=1e-5)
        np.testing.assert_allclose(norm.relative, frobenius / np.sqrt((kernel**2).sum((1, 2))), rtol=1e-5)
        np.testing.assert_allclose(norm.spectral, values[:, 0], rtol=1e-5)
        np.testing.assert_allclose(norm.effective_rank, np.exp(-(shares * np.log(shares)).sum(-1)), rtol=1e-4)


def test_effective_rank_counts_equal_singular_values():
    def rank(values):
        pair = {"a": jnp.eye(6, 3)[None] * jnp.array(values)[None, None], "b": jnp.eye(3, 5)[None]}
        tree = {"layers": ({"q": pair},)}
        params = {"layers": ({"q": {"kernel": jnp.ones((1, 6, 5))}},)}
        return float(update_norms({"params": params, "lora": tree})["layers/q"].effective_rank[0])

    assert rank([2.0, 2.0, 2.0]) == pytest.approx(3, abs=1e-4)
    assert rank([2.0, 2.0, 0.0]) == pytest.approx(2, abs=1e-4)
    assert rank([5.0, 0.0, 0.0]) == pytest.approx(1, abs=1e-4)
    assert rank([0.0, 0.0, 0.0]) == 0


def test_layers_are_counted_over_segments():
    kernel, pair = jnp.ones((2, 6, 5)), {"a": jnp.ones((2, 6, 1)), "b": jnp.ones((2, 1, 5))}
    segments = tuple({"q": {"kernel": kernel}} for _ in range(3))
    norms = update_norms({"params": {"layers": segments}, "lora": {"layers": ({"q": pair}, {}, {"q": pair})}})
    np.testing.assert_array_equal(norms["layers/q"].layers, [0, 1, 4, 5])


def test_no_update_is_multiplied_out(llama):
    variables = bound(llama, "up")
    # All widths of the pair's product are the kernel's: the only arrays of that shape are the kernel's own.
    pair = next(iter(places(variables["lora"]).values()))
    from jaxft.methods.inspection import _norms

    kernel = jnp.zeros((3, 7, 7))
    text = str(jax.make_jaxpr(_norms)(kernel, pair["a"], pair["b"]))
    assert "48,88]" not in text and "88,48]" not in text and "48,4]" in text


@pytest.fixture(scope="module")
def speaking():
    """A model with a tokenizer, and a table longer than its vocabulary."""
    model = make_model(dataclasses.replace(LLAMA, vocab_size=300))
    return dataclasses.replace(model, tokenizer=tiny_tokenizer())


def test_the_nearest_token_of_a_tokens_embedding_is_itself(speaking):
    table = np.asarray(speaking.params["embedding"])
    ids = speaking.tokenizer.convert_tokens_to_ids(["a", "Z", "<s>"])
    near = nearest_tokens(speaking, jnp.asarray(3 * table[ids]), 4)
    np.testing.assert_array_equal(near.ids[:, 0], ids)
    np.testing.assert_allclose(near.values[:, 0], 1, atol=1e-5)  # a cosine knows no length
    assert [row[0] for row in near.tokens] == ["a", "Z", "<s>"]
    near = nearest_tokens(speaking, jnp.asarray(table[ids]), 4, "euclid")
    np.testing.assert_array_equal(near.ids[:, 0], ids)
    np.testing.assert_array_equal(near.values[:, 0], 0)


@pytest.mark.parametrize("measure", ["cosine", "euclid"])
def test_nearest_tokens_equal_a_search_over_the_vocabulary(speaking, measure):
    table = np.asarray(speaking.params["embedding"], np.float64)[: len(speaking.tokenizer)]
    soft = np.random.default_rng(0).standard_normal((5, table.shape[1]))
    distance = np.linalg.norm(soft[:, None] - table[None], axis=-1)
    cosine = soft @ table.T / np.linalg.norm(soft, axis=1)[:, None] / np.linalg.norm(table, axis=1)[None]
    order = np.argsort(distance if measure == "euclid" else -cosine)[:, :6]
    near = nearest_tokens(speaking, jnp.asarray(soft, jnp.float32), 6, measure)
    np.testing.assert_array_equal(near.ids, order)
    expected = np.take_along_axis(distance if measure == "euclid" else cosine, order, 1)
    np.testing.assert_allclose(near.values, expected, atol=1e-5)
    assert near.ids.max() < len(speaking.tokenizer)


def test_white_space_and_torn_letters_are_spelled(speaking):
    table = speaking.params["embedding"]
    ids = speaking.tokenizer.convert_tokens_to_ids(["Ġ", "Ċ", "Ã"])
    assert [row[0] for row in nearest_tokens(speaking, table[jnp.array(ids)], 1).tokens] == ["Ġ", "Ċ", "Ã"]


def test_bad_input_is_refused(speaking):
    soft = jnp.ones((2, 48))
    with pytest.raises(UsageError, match="did you mean 'euclid'"):
        nearest_tokens(speaking, soft, measure="euclidean")
    with pytest.raises(UsageError, match=r"\[2, 47\] is not \[P, 48\]"):
        nearest_tokens(speaking, soft[:, :47])
    with pytest.raises(UsageError, match="k: 262 is not between 1 and the 261"):
        nearest_tokens(speaking, soft, 262)
    method = prompt(2)
    with pytest.raises(UsageError, match=r"no update of low rank here \(prompt\)"):
        update_norms(method.bind(*method.init(jax.random.key(0), {"params": speaking.params})))


@pytest.mark.filterwarnings("error")
def test_pictures_are_written_whatever_they_show(model, tmp_path):
    draw_norms(update_norms(bound(model)), tmp_path / "norms.png", "LoRA")
    untrained, frozen = (method := lora(2, 4, "q")).init(jax.random.key(0), {"params": model.params})
    draw_norms(update_norms(method.bind(untrained, frozen)), tmp_path / "nothing.png")
    # Mathematics, a letter that the font lacks, a long token; and more rows than one column takes.
    tokens = [["$a$ $", "漢", "a" * 40]] * 60
    near = Nearest("euclid", np.arange(180).reshape(60, 3), np.ones((60, 3)), tokens)
    draw_tokens(near, tmp_path / "tokens.png", "prompt")
    for picture in tmp_path.iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3
