"""Training equals torch's: gradients, and twenty steps of AdamW, full and LoRA, on the same batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxft
from jaxft.methods.peft import save_adapter
from jaxft.pretrained import names
from jaxft.training.step import loss_step

torch = pytest.importorskip("torch", reason="the parity tests need the test extra")
import tiny_torch  # noqa: E402

MAKERS = {"llama": tiny_torch.llama, "t5": tiny_torch.t5}
STEPS, RATE, DECAY = 20, 3e-3, 0.01


@pytest.fixture(scope="module", params=list(MAKERS))
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch_model = MAKERS[request.param](folder)
    return torch_model, jaxft.load(folder), folder


def batch_of(model, seed):
    batch = dict(tiny_torch.batch(model.family == "t5", seed))
    draw = np.random.default_rng(seed)
    batch["targets"] = jnp.asarray(draw.integers(6, tiny_torch.VOCABULARY, batch["tokens"].shape), jnp.int32)
    counted = (np.asarray(batch["segments"]) > 0) & (np.arange(batch["tokens"].shape[1])[None] > 2)
    return jax.tree.map(np.asarray, batch | {"weights": counted.astype(np.float32)})


def torch_loss(torch_model, batch):
    inputs = {name: torch.tensor(array) for name, array in batch.items()}
    if "encoder_tokens" in inputs:
        out = torch_model(
            input_ids=inputs["encoder_tokens"].long(),
            attention_mask=inputs["encoder_segments"],
            decoder_input_ids=inputs["tokens"].long(),
        )
    else:
        out = torch_model(input_ids=inputs["tokens"].long(), attention_mask=inputs["segments"])
    losses = torch.nn.functional.cross_entropy(out.logits.transpose(1, 2), inputs["targets"].long(), reduction="none")
    return (losses * inputs["weights"]).sum() / inputs["weights"].sum()


def hf_tensors(config, tree):
    """Our tree as Hugging Face's named tensors."""
    leaves = jax.tree.leaves(tree)
    for leaf, array in zip(names.leaves(config, tree), leaves, strict=True):
        layers = [array] if leaf.layers is None else list(array)
        for name, layer in zip(leaf.files("hf"), layers, strict=True):
            yield name, names.to_file(np.asarray(layer), leaf, "hf", config)


def relative(ours, theirs):
    """The distance of two lists of arrays over the length of the second."""
    distance = sum(np.sum((one - two) ** 2) for one, two in zip(ours, theirs, strict=True))
    return np.sqrt(distance / sum(np.sum(two**2) for two in theirs))


def test_gradients_equal_torchs(pair):
    torch_model, model, _ = pair
    batch = batch_of(model, 0)
    torch_model.zero_grad()
    loss = torch_loss(torch_model, batch)
    loss.backward()
    step = loss_step(model, jaxft.full())

    def mean_loss(params):
        total, count = step(params, {}, batch)
        return total / count

    ours, gradient = jax.value_and_grad(mean_loss)(model.params)
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    expected = dict(torch_model.named_parameters())
    for name, array in hf_tensors(model.config, gradient):
        assert relative([array], [expected[name].grad.numpy()]) < 1e-4, name


def trajectory(model, method, trainable, frozen):
    optimizer = optax.adamw(RATE, weight_decay=DECAY)
    state, step = jaxft.init_state(trainable, optimizer), jaxft.train_step(model, method, optimizer)
    losses = []
    for seed in range(STEPS):
        state, metrics = step(state, frozen, batch_of(model, seed), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.trainable)


def torch_trajectory(torch_model, model):
    trained = [parameter for parameter in torch_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=DECAY)
    losses = []
    for seed in range(STEPS):
        optimizer.zero_grad()
        loss = torch_loss(torch_model, batch_of(model, seed))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def snapshot(torch_model):
    return {name: p.detach().numpy().copy() for name, p in torch_model.named_parameters() if p.requires_grad}


def test_full_tuning_takes_torchs_path(pair):
    _, model, folder = pair
    torch_model = (
        pytest.importorskip("transformers").AutoModelForSeq2SeqLM
        if model.family == "t5"
        else pytest.importorskip("transformers").AutoModelForCausalLM
    ).from_pretrained(folder)
    before = snapshot(torch_model)
    ours, trained = trajectory(model, jaxft.full(), *jaxft.full().init(jax.random.key(0), {"params": model.params}))
    np.testing.assert_allclose(ours, torch_trajectory(torch_model, model), rtol=1e-4)
    after = snapshot(torch_model)
    pairs = [(array - before[name], after[name] - before[name]) for name, array in hf_tensors(model.config, trained)]
    assert len(pairs) == len(before)
    assert relative(*zip(*pairs, strict=True)) < 1e-3


def test_lora_takes_pefts_path(pair, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    _, model, folder = pair
    method = jaxft.lora(rank=4, alpha=8, targets="attention")
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    # From b = 0 the first gradient of a is 0, and AdamW makes noise of it.
    trainable = jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(1), leaf.shape), trainable)
    save_adapter(tmp_path / "start", method, trainable, frozen, model)
    kind = transformers.AutoModelForSeq2SeqLM if model.family == "t5" else transformers.AutoModelForCausalLM
    torch_model = peft.PeftModel.from_pretrained(kind.from_pretrained(folder), tmp_path / "start", is_trainable=True)
    before = snapshot(torch_model)
    ours, trained = trajectory(model, method, trainable, frozen)
    np.testing.assert_allclose(ours, torch_trajectory(torch_model, model), rtol=1e-4)
    after = snapshot(torch_model)
    # Their trained tensors, read back through PEFT's own file.
    torch_model.save_pretrained(tmp_path / "end")
    _, theirs, _ = jaxft.load_adapter(tmp_path / "end", model)
    start = jax.tree.leaves(jax.device_get(jaxft.load_adapter(tmp_path / "start", model)[1]))
    moved = [ours - first for ours, first in zip(jax.tree.leaves(trained), start, strict=True)]
    expected = [np.asarray(their) - first for their, first in zip(jax.tree.leaves(theirs), start, strict=True)]
    assert len(before) == len(after) and relative(moved, expected) < 1e-3
