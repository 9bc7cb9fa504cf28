"""Every decoder-only family equals transformers: logits, gradients, cached decoding, files both ways."""

import jax
import numpy as np
import pytest
from conftest import assert_close

from jaxft.generation import generate
from jaxft.models import Decoder
from jaxft.models.stack import Numerics
from jaxft.pretrained import load, names, save
from jaxft.training.step import loss_step

torch = pytest.importorskip("torch", reason="the parity tests need the test extra")
import tiny_torch  # noqa: E402

import jaxft  # noqa: E402


@pytest.fixture(scope="module", params=tiny_torch.DECODERS)
def pair(request, tmp_path_factory):
    """A torch model, ours from its files, and the folder."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    return tiny_torch.decoder(folder, request.param), load(folder), folder


def left_padded(batch):
    """The same rows, padded in front."""
    lengths = np.asarray(batch["segments"]).sum(axis=1)
    shift = batch["tokens"].shape[1] - lengths

    def rolled(array):
        return np.stack([np.roll(row, by) for row, by in zip(np.asarray(array), shift, strict=True)])

    return {name: rolled(array) for name, array in batch.items()}


@pytest.mark.parametrize("padding", ["right", "left"])
def test_logits_equal_transformers(pair, padding):
    torch_model, model, _ = pair
    batch = tiny_torch.batch(False)
    theirs = tiny_torch.logits(torch_model, batch)
    if padding == "right":
        tiny_torch.assert_same(model.apply({"params": model.params}, batch), theirs, batch)
    else:
        ours = np.asarray(model.apply({"params": model.params}, left_padded(batch)))
        for row, length in enumerate(np.asarray(batch["segments"]).sum(axis=1)):
            np.testing.assert_allclose(ours[row, -length:], theirs[row, :length], atol=1e-4 * np.abs(theirs).max())


def test_gradients_equal_torchs(pair):
    torch_model, model, _ = pair
    batch = {name: np.asarray(array) for name, array in tiny_torch.batch(False).items()}
    batch |= {"targets": np.roll(batch["tokens"], -1, 1), "weights": (batch["segments"] > 0).astype(np.float32)}
    torch_model.zero_grad()
    out = torch_model(
        input_ids=torch.tensor(batch["tokens"]).long(), attention_mask=torch.tensor(batch["segments"]).long()
    )
    losses = torch.nn.functional.cross_entropy(
        out.logits.transpose(1, 2), torch.tensor(batch["targets"]).long(), reduction="none"
    )
    (losses * torch.tensor(batch["weights"])).sum().backward()
    step = loss_step(model, jaxft.full())
    gradient = jax.device_get(jax.grad(lambda params: step(params, {}, batch)[0])(model.params))
    expected = dict(torch_model.named_parameters())
    for leaf, array in zip(names.leaves(model.config, gradient), jax.tree.leaves(gradient), strict=True):
        for file, layer in zip(leaf.files("hf"), [array] if leaf.layers is None else array, strict=True):
            theirs = names.from_file(expected[file].grad.numpy(), leaf, "hf", model.config)
            theirs = theirs.T if leaf.name.transposed("hf") else theirs
            # Of a bias on keys it is zero but for rounding.
            assert np.abs(layer - theirs).max() < 1e-4 * np.abs(theirs).max() + 1e-6, file


def test_greedy_completions_equal_transformers(pair):
    """Cached decoding, beyond the windows, of prompts of unequal length."""
    torch_model, model, _ = pair
    draw = np.random.default_rng(3)
    prompts = [draw.integers(6, tiny_torch.VOCABULARY, length).tolist() for length in (7, 4)]
    ours = generate(model, {"params": model.params}, prompts, max_new_tokens=8, return_tokens=True)
    for prompt, completion in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = torch_model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, len(prompt) :].tolist()
        assert completion == theirs


def test_saved_model_is_the_same_in_transformers_and_here(pair, tmp_path):
    torch_model, model, _ = pair
    batch = tiny_torch.batch(False)
    changed = jax.tree.map(lambda leaf: leaf * 1.01, model.params)
    save(tmp_path, model, changed, max_shard_size=60_000)
    again = type(torch_model).from_pretrained(tmp_path, attn_implementation="eager").eval()
    here = load(tmp_path)
    assert here.config == model.config
    jax.tree.map(np.testing.assert_array_equal, here.params, changed)
    tiny_torch.assert_same(here.apply({"params": here.params}, batch), tiny_torch.logits(again, batch), batch)


def test_unrolled_and_split_layers_compute_the_same(pair):
    _, model, _ = pair
    batch, params = tiny_torch.batch(False), model.params
    rolled = model.apply({"params": params}, batch)
    segment = params["layers"][0]
    split = tuple(jax.tree.map(lambda leaf, cut=cut: leaf[cut], segment) for cut in (np.s_[:1], np.s_[1:]))
    unrolled = Decoder(model.config, Numerics(unroll=True))
    variables = {"params": params | {"layers": split}}
    assert_close(unrolled.head(variables, unrolled.hidden(variables, batch)), rolled)
