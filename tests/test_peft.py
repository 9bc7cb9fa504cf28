"""Adapters in PEFT's own files: what jaxft writes, peft reads to the same logits, and the other way round."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxft import methods
from jaxft.methods.peft import load_adapter, save_adapter
from jaxft.models import Model
from jaxft.pretrained import load

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
import tiny_torch  # noqa: E402
import transformers  # noqa: E402

# PEFT says so of every norm that it tunes.
pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")

KINDS = {
    "llama": lambda folder: tiny_torch.llama(folder),
    "t5": lambda folder: tiny_torch.t5(folder, gated=True, tied=False),
}


class Base(NamedTuple):
    """A model, its folder (torch's own copy is read anew by each test, because peft changes it), and its logits."""

    model: Model
    folder: Path
    batch: dict
    logits: np.ndarray


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder)
    model, batch = load(folder), tiny_torch.batch(request.param == "t5")
    return Base(model, folder, batch, model.apply({"params": model.params}, batch))


def torch_base(folder, model):
    kind = transformers.T5ForConditionalGeneration if model.family == "t5" else transformers.LlamaForCausalLM
    return kind.from_pretrained(folder).eval()


def perturbed(method, model):
    """A trainable tree away from the start, where LoRA's b is zero and all of this would be vacuous."""
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    draw = np.random.default_rng(2)
    moved = [
        np.asarray(leaf) + 0.2 * draw.standard_normal(leaf.shape, np.float32) for leaf in jax.tree.leaves(trainable)
    ]
    return jax.tree.map(jnp.asarray, jax.tree.unflatten(jax.tree.structure(trainable), moved)), frozen


def logits(base, method, trainable, frozen):
    """Return what the tuned model says, which has to be another thing than the base does."""
    tuned = base.model.apply(method.bind(trainable, frozen), base.batch)
    assert np.abs(np.asarray(tuned - base.logits)).max() > 0.05
    return tuned


def both(kinds):
    """Pair the kinds of adapter with the models; PEFT's prefixes of T5 are another thing (test_peft_files)."""
    pairs = [(family, kind) for family in KINDS for kind in kinds if (family, kind[:6]) != ("t5", "prefix")]
    return pytest.mark.parametrize(("base", "name"), pairs, indirect=["base"])


def from_peft(base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of missing tensors and of settings it does not know
        warnings.filterwarnings("ignore", "Unsupported layer type")
        return peft.PeftModel.from_pretrained(torch_base(base.folder, base.model), str(adapter)).eval()


def assert_close_trees(one, other, tolerance=0.0):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), one, other)


FEW = {
    "llama": ["down", "v"],
    "t5": ["decoder/layers/cross_attention/v$", "encoder/layers/mlp/up"],
}
PATTERNS = {"rank_pattern": {"mlp": 2, "down": 5}, "alpha_pattern": {"attention": 3, "up|v": 8.5}}
WRITTEN = {
    "lora": lambda few: methods.lora(rank=4, alpha=12.0, dropout=0.25),
    "lora-all": lambda few: methods.lora(rank=3, alpha=5.5, targets="all"),
    "lora-one": lambda few: methods.lora(rank=2, alpha=4.0, targets=["q"]),
    "lora-few": lambda few: methods.lora(rank=2, alpha=4.0, targets=few),
    "lora-patterns": lambda few: methods.lora(rank=3, alpha=4.0, targets="all", **PATTERNS),
    "rslora": lambda few: methods.lora(rank=3, alpha=4.0, targets="all", rslora=True, **PATTERNS),
    "dora": lambda few: methods.dora(rank=3, alpha=4.0, targets="all", **PATTERNS),
    "pissa": lambda few: methods.pissa(rank=3, alpha=2.0, targets="attention"),
    "pissa-rslora": lambda few: methods.pissa(rank=3, alpha=2.0, targets="all", rslora=True, rank_pattern={"mlp": 2}),
    "vera": lambda few: methods.vera(rank=5, targets="all"),
    "vera-few": lambda few: methods.vera(rank=5, targets=few, d_initial=0.5),
    "ia3": lambda few: methods.ia3(),
    "ia3-few": lambda few: methods.ia3(outputs=few, inputs=["attention/o"]),
    "ia3-inputs": lambda few: methods.ia3(outputs=[], inputs=["down"]),
    "selective": lambda few: methods.selective("norms"),
    "selective-few": lambda few: methods.selective("attention_norm"),
    "prompt": lambda few: methods.prompt(length=5),
    "prompt-network": lambda few: methods.prompt(length=5, hidden=7),
    "prefix": lambda few: methods.prefix(length=5, hidden=0),
    "prefix-network": lambda few: methods.prefix(length=5, hidden=7),
}


@both(WRITTEN)
def test_peft_reads_what_is_written_here(base, tmp_path, name):
    model = base.model
    method = WRITTEN[name](FEW[model.family])
    trainable, frozen = perturbed(method, model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    theirs = tiny_torch.logits(from_peft(base, tmp_path / "adapter"), base.batch)
    tiny_torch.assert_same(logits(base, method, trainable, frozen), theirs, base.batch)
    method, trainable = methods.finalize(method, trainable, frozen)
    again, loaded, rest = load_adapter(tmp_path / "adapter", model)
    assert dict(again.config) == dict(method.config)
    assert_close_trees(loaded, trainable, tolerance=1e-5 if name.startswith("prefix") else 0)  # keys are turned back
    assert_close_trees(rest, frozen)


TARGETS = {
    "llama": {"some": ["q_proj", "down_proj"], "regex": r".*\.mlp\.(up|gate)_proj", "down": ["down_proj"]},
    "t5": {"some": ["o", "wi_0", "wo"], "regex": r"decoder.*EncDecAttention\.k", "down": ["wo"]},
}
LORA = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
OWN = {
    "llama": {"rank_pattern": {"mlp.*": 3, "layers.\\d.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 5}},
    "t5": {"rank_pattern": {"DenseReluDense.*": 3, "decoder.*SelfAttention.q": 2}, "alpha_pattern": {"v": 5}},
}
READ = {
    "lora": lambda t, own: peft.LoraConfig(target_modules=t["some"], **LORA),
    "lora-regex": lambda t, own: peft.LoraConfig(target_modules=t["regex"], **LORA),
    "lora-patterns": lambda t, own: peft.LoraConfig(target_modules="all-linear", **LORA, **own),
    "rslora": lambda t, own: peft.LoraConfig(target_modules="all-linear", use_rslora=True, **LORA, **own),
    "dora": lambda t, own: peft.LoraConfig(target_modules="all-linear", use_dora=True, **LORA, **own),
    "vera": lambda t, own: peft.VeraConfig(r=5, target_modules="all-linear"),
    "vera-some": lambda t, own: peft.VeraConfig(r=5, target_modules=t["some"]),
    "ia3": lambda t, own: peft.IA3Config(),
    "ia3-some": lambda t, own: peft.IA3Config(target_modules=t["some"], feedforward_modules=t["down"]),
    "selective": lambda t, own: peft.LNTuningConfig(),
    "prompt": lambda t, own: peft.PromptTuningConfig(num_virtual_tokens=6),
    "prompt-network": lambda t, own: peft.PromptEncoderConfig(num_virtual_tokens=6, encoder_hidden_size=7),
    "prefix": lambda t, own: peft.PrefixTuningConfig(num_virtual_tokens=6),
    "prefix-network": lambda t, own: peft.PrefixTuningConfig(
        num_virtual_tokens=6, prefix_projection=True, encoder_hidden_size=7
    ),
}


@both(READ)
def test_what_peft_writes_is_read_here(base, tmp_path, name):
    model = base.model
    config = READ[name](TARGETS[model.family], OWN[model.family])
    config.task_type = "SEQ_2_SEQ_LM" if model.family == "t5" else "CAUSAL_LM"
    torch.manual_seed(3)
    theirs = peft.get_peft_model(torch_base(base.folder, model), config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    method, trainable, frozen = load_adapter(tmp_path, model)
    assert method.config["name"] == name.split("-")[0].removeprefix("rs")
    ours = logits(base, method, trainable, frozen)
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, base.batch), base.batch)
    started, rest = method.init(jax.random.key(0), {"params": model.params})
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, trainable)
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, frozen)


def test_of_a_prompt_that_peft_writes_for_t5_the_first_half_is_read(base, tmp_path):
    model, t5 = base.model, base.model.family == "t5"
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM" if t5 else "CAUSAL_LM", num_virtual_tokens=6)
    peft.get_peft_model(torch_base(base.folder, model), config).save_pretrained(tmp_path)
    rows = load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"]
    assert rows.shape[0] == (12 if t5 else 6)
    method, trainable, _ = load_adapter(tmp_path, model)
    assert method.config["length"] == 6
    np.testing.assert_array_equal(jax.tree.leaves(trainable)[0], rows[:6])


def test_full_tuning_is_a_model_directory(base, tmp_path):
    model, method = base.model, methods.full()
    trainable, frozen = perturbed(method, model)
    save_adapter(tmp_path / "full", method, trainable, frozen, model)
    theirs = tiny_torch.logits(torch_base(tmp_path / "full", model), base.batch)
    tiny_torch.assert_same(logits(base, method, trainable, frozen), theirs, base.batch)
    again, loaded, rest = load_adapter(tmp_path / "full", model)
    assert (dict(again.config), rest) == ({"name": "full"}, {})
    assert_close_trees(loaded, trainable)


def test_peft_refuses_our_own_type(base, tmp_path):
    model, method = base.model, methods.adapter(4)
    save_adapter(tmp_path, method, *perturbed(method, model), model)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "JAXFT"
    with pytest.raises(Exception, match="JAXFT"):
        peft.PeftModel.from_pretrained(torch_base(base.folder, model), str(tmp_path))
