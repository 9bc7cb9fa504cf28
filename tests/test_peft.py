"""Adapters in PEFT's own files: what jaxft writes, peft reads to the same logits, and the other way round."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxft.errors import Error, UsageError
from jaxft.methods import full, lora, prompt
from jaxft.methods.peft import load_adapter, save_adapter
from jaxft.pretrained import load

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
import tiny_torch  # noqa: E402
import transformers  # noqa: E402

KINDS = {
    "llama": lambda folder: tiny_torch.llama(folder),
    "t5": lambda folder: tiny_torch.t5(folder, gated=True, tied=False),
}


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    """A model and its folder; torch's own copy is read anew by each test, because peft changes it."""
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder)
    return load(folder), folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Every model by its kind."""
    folder = tmp_path_factory.mktemp("bases")
    for kind, make in KINDS.items():
        make(folder / kind)
    return {kind: load(folder / kind) for kind in KINDS}


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


def logits(method, trainable, frozen, model, batch):
    return model.apply(method.bind(trainable, frozen), batch)


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


METHODS = {
    "attention": lambda family: lora(rank=4, alpha=12.0, dropout=0.25),
    "all": lambda family: lora(rank=3, alpha=5.5, targets="all"),
    "one name": lambda family: lora(rank=2, alpha=4.0, targets=["q"]),
    "a few": lambda family: lora(
        rank=2,
        alpha=4.0,
        targets=["decoder/layers/cross_attention/v$", "encoder/layers/mlp/up"] if family == "t5" else ["down", "v"],
    ),
    "prompt": lambda family: prompt(length=5),
}


@pytest.mark.parametrize("name", METHODS)
def test_peft_reads_what_is_written_here(base, tmp_path, name):
    model, folder = base
    method = METHODS[name](model.family)
    trainable, frozen = perturbed(method, model)
    batch = tiny_torch.batch(model.family == "t5")
    ours = logits(method, trainable, frozen, model, batch)
    without = model.apply({"params": model.params}, batch)
    assert np.abs(np.asarray(ours - without)).max() > 0.05
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of missing tensors and of settings it does not know
        theirs = peft.PeftModel.from_pretrained(torch_base(folder, model), str(tmp_path / "adapter")).eval()
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, batch), batch)
    again, loaded, rest = load_adapter(tmp_path / "adapter", model)
    assert dict(again.config) == dict(method.config)
    assert_equal_trees(loaded, trainable)
    assert_equal_trees(rest, frozen)


@pytest.mark.parametrize("targets", [["q", "v"], ["q_proj"], "all-linear", "regex"])
def test_what_peft_writes_is_read_here(base, tmp_path, targets):
    model, folder = base
    t5 = model.family == "t5"
    if targets == ["q_proj"] and t5:
        targets = ["o", "wi_0", "wo"]
    elif targets == ["q", "v"] and not t5:
        targets = ["q_proj", "v_proj"]
    elif targets == "regex":
        targets = r"decoder.*EncDecAttention\.k" if t5 else r".*\.mlp\.(up|gate)_proj"
    config = peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=targets == "all-linear", target_modules=targets, init_lora_weights=False,
        task_type="SEQ_2_SEQ_LM" if t5 else "CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(3)
    theirs = peft.get_peft_model(torch_base(folder, model), config).eval()
    theirs.save_pretrained(tmp_path)
    method, trainable, frozen = load_adapter(tmp_path, model)
    batch = tiny_torch.batch(t5)
    ours = logits(method, trainable, frozen, model, batch)
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, batch), batch)
    started, _ = method.init(jax.random.key(0), {"params": model.params})
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, trainable)


def test_a_prompt_that_peft_writes_is_read_here(base, tmp_path):
    model, folder = base
    t5 = model.family == "t5"
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM" if t5 else "CAUSAL_LM", num_virtual_tokens=6)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(torch_base(folder, model), config).eval()
    theirs.save_pretrained(tmp_path)
    rows = load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"]
    assert rows.shape[0] == (12 if t5 else 6)
    method, trainable, frozen = load_adapter(tmp_path, model)
    assert method.config["length"] == 6
    np.testing.assert_array_equal(jax.tree.leaves(trainable)[0], rows[:6])
    batch = tiny_torch.batch(t5)
    ours = logits(method, trainable, frozen, model, batch)
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, batch), batch)


def test_full_tuning_is_a_model_directory(base, tmp_path):
    model, _ = base
    method = full()
    trainable, frozen = perturbed(method, model)
    save_adapter(tmp_path / "full", method, trainable, frozen, model)
    theirs = torch_base(tmp_path / "full", model)
    batch = tiny_torch.batch(model.family == "t5")
    tiny_torch.assert_same(logits(method, trainable, frozen, model, batch), tiny_torch.logits(theirs, batch), batch)
    again, loaded, rest = load_adapter(tmp_path / "full", model)
    assert (dict(again.config), rest) == ({"name": "full"}, {})
    assert_equal_trees(loaded, trainable)


def test_short_target_names_only_where_they_take_nothing_else(bases, tmp_path):
    def targets(kind, chosen):
        method = lora(rank=2, targets=chosen)
        save_adapter(tmp_path / "adapter", method, *perturbed(method, bases[kind]), bases[kind])
        return json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]

    assert targets("llama", "attention") == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert targets("t5", "all") == ["k", "o", "q", "v", "wi_0", "wi_1", "wo"]
    assert targets("t5", ["decoder/layers/attention/q"]) == [
        f"decoder.block.{layer}.layer.0.SelfAttention.q" for layer in range(3)
    ]


def test_adapters_of_another_base_are_refused_by_name(bases, tmp_path):
    method = lora(rank=2)
    save_adapter(tmp_path / "adapter", method, *perturbed(method, bases["llama"]), bases["llama"])
    with pytest.raises(UsageError, match=r"family llama.*family t5"):
        load_adapter(tmp_path / "adapter", bases["t5"])
    config = json.loads((tmp_path / "adapter" / "jaxft.json").read_text())
    config["base"]["mlp_width"] = 81
    (tmp_path / "adapter" / "jaxft.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"mlp_width 81.*mlp_width 80"):
        load_adapter(tmp_path / "adapter", bases["llama"])
    (tmp_path / "adapter" / "jaxft.json").unlink()
    with pytest.raises(Error, match=r"model\.layers\.0\.self_attn\.k_proj is no kernel"):
        load_adapter(tmp_path / "adapter", bases["t5"])
    save_adapter(tmp_path / "full", full(), *perturbed(full(), bases["llama"]), bases["llama"])
    with pytest.raises(UsageError, match="family"):
        load_adapter(tmp_path / "full", bases["t5"])


def test_tensors_that_do_not_fit_are_listed(bases, tmp_path):
    model, method = bases["llama"], lora(rank=2)
    save_adapter(tmp_path / "adapter", method, *perturbed(method, model), model)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(path)
    first = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"
    for change, words in (
        ({first.format(1): None}, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight is missing"),
        ({first.format(0): np.zeros((2, 3), np.float32)}, r"lora_A\.weight is \[2, 3\], not \[2, 48\]"),
        ({"base_model.model.lm_head.weight": np.zeros(2, np.float32)}, "is no LoRA tensor"),
        ({"base_model.model.lm_head.lora_A.weight": np.zeros((2, 48), np.float32)}, "lm_head is no kernel"),
    ):
        save_file({name: array for name, array in {**whole, **change}.items() if array is not None}, path)
        with pytest.raises(Error, match=words):
            load_adapter(tmp_path / "adapter", model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Error, match="not a whole safetensors file"):
        load_adapter(tmp_path / "adapter", model)
    path.unlink()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match=r"adapter_model\.bin is a pickle"):
        load_adapter(tmp_path / "adapter", model)
    with pytest.raises(UsageError, match="nothing to load"):
        load_adapter(tmp_path, model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not supported"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"init_lora_weights": "pissa"}, "changed the base"),
        ({"r": None}, "r = None is not a rank"),
    ],
)
def test_what_peft_has_and_jaxft_has_not_is_refused_by_name(bases, tmp_path, change, words):
    method = lora(rank=2)
    save_adapter(tmp_path / "adapter", method, *perturbed(method, bases["llama"]), bases["llama"])
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=words):
        load_adapter(tmp_path / "adapter", bases["llama"])


def test_pefts_file_is_believed_where_ours_is_left_over(bases, tmp_path):
    model, method = bases["llama"], lora(rank=2, alpha=4.0)
    save_adapter(tmp_path / "adapter", method, *perturbed(method, model), model)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 9}))
    assert load_adapter(tmp_path / "adapter", model)[0].config["alpha"] == 9


def test_saving_again_replaces_an_adapter_and_nothing_else(bases, tmp_path):
    model, method = bases["llama"], prompt(length=2)
    trainable, frozen = perturbed(method, model)
    save_adapter(tmp_path / "adapter", lora(rank=2), *perturbed(lora(rank=2), model), model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    assert_equal_trees(load_adapter(tmp_path / "adapter", model)[1], trainable)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        save_adapter(tmp_path / "notes", method, trainable, frozen, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "notes"]
