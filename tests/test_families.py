"""Every decoder-only family equals transformers: logits, gradients, cached decoding, files both ways."""

import jax
import numpy as np
import pytest
from conftest import assert_close
from safetensors.numpy import load_file, save_file

from jaxft.generation import generate
from jaxft.methods.peft import load_adapter, save_adapter
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


def test_a_merged_lora_is_the_same_in_transformers_and_here(pair, tmp_path):
    torch_model, model, _ = pair
    batch = tiny_torch.batch(False)
    method = jaxft.lora(rank=2, alpha=4, targets="all")
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    variables = method.bind(jax.tree.map(lambda leaf: leaf + 0.02, trainable), frozen)
    merged = jaxft.merge(variables)
    save(tmp_path, model, merged, max_shard_size=60_000)
    theirs = tiny_torch.logits(type(torch_model).from_pretrained(tmp_path, attn_implementation="eager").eval(), batch)
    here = load(tmp_path)
    assert here.config == model.config
    jax.tree.map(np.testing.assert_array_equal, here.params, merged)
    tiny_torch.assert_same(model.apply(variables, batch), theirs, batch)
    assert np.abs(theirs - tiny_torch.logits(torch_model, batch)).max() > 0.01


@pytest.mark.parametrize("name", ["gpt2", "phi3"])
@pytest.mark.parametrize("method", ["lora", "rslora", "pissa"])
def test_updates_of_parts_of_a_module_lie_in_pefts_files(name, method, tmp_path):
    """Our q, k and v are one module there: written in blocks, read back as as many updates with one A."""
    peft = pytest.importorskip("peft")
    torch_model, model = tiny_torch.decoder(tmp_path / "base", name), load(tmp_path / "base")
    settings = {"rank": 3, "alpha": 5, "targets": ["q", "v", "o", "mlp"]}
    chosen = jaxft.pissa(**settings) if method == "pissa" else jaxft.lora(**settings, rslora=method == "rslora")
    trainable, frozen = chosen.init(jax.random.key(0), {"params": model.params})
    draw = np.random.default_rng(1)
    trainable = jax.tree.map(lambda leaf: leaf + 0.05 * draw.normal(size=leaf.shape).astype(np.float32), trainable)
    batch = tiny_torch.batch(False)
    expected = model.apply(chosen.bind(trainable, frozen), batch)
    assert np.abs(expected - model.apply({"params": model.params}, batch)).max() > 0.05
    save_adapter(tmp_path / "ours", chosen, trainable, frozen, model)
    adapted = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
    tiny_torch.assert_same(expected, tiny_torch.logits(adapted, batch), batch)
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        if folder.name == "theirs":
            adapted.save_pretrained(folder)
        back, again, kept = load_adapter(folder, model)
        np.testing.assert_allclose(model.apply(back.bind(again, kept), batch), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "bare"), [("gpt2", "transformer."), ("qwen2", "model.")])
def test_files_of_a_model_without_its_head_load(name, bare, tmp_path):
    """As GPT-2 lies on the hub: no prefix, and the causal mask among the tensors."""
    tiny_torch.decoder(tmp_path, name)
    expected = load(tmp_path).params
    file = tmp_path / "model.safetensors"
    tensors = {key.removeprefix(bare): tensor for key, tensor in load_file(file).items()}
    save_file(tensors | {"h.0.attn.bias": np.tril(np.ones((1, 1, 8, 8), np.float32))}, file)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).params, expected)


def test_unrolled_and_split_layers_compute_the_same(pair):
    _, model, _ = pair
    batch, params = tiny_torch.batch(False), model.params
    rolled = model.apply({"params": params}, batch)
    segment = params["layers"][0]
    split = tuple(jax.tree.map(lambda leaf, cut=cut: leaf[cut], segment) for cut in (np.s_[:1], np.s_[1:]))
    unrolled = Decoder(model.config, Numerics(unroll=True))
    variables = {"params": params | {"layers": split}}
    assert_close(unrolled.head(variables, unrolled.hidden(variables, batch)), rolled)
