"""An adapter's files without PEFT: our own type comes back bit for bit, and what does not fit is refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, make_model
from safetensors.numpy import load_file, save_file

from jaxft import methods
from jaxft.errors import Error, UsageError
from jaxft.methods.peft import load_adapter, save_adapter, saving

OWN = {
    "adapter": methods.adapter(6),
    "adapter-parallel": methods.adapter(6, "parallel", "silu", 4.0),
    "prompt-both": methods.prompt(5, hidden=7, place="both"),
    "prefix": methods.prefix(5, hidden=0),
    "prefix-network": methods.prefix(5, hidden=7),
    "selective-last": methods.selective(["attention", "mlp"], last=1),
    "selective-norms-last": methods.selective("norms", last=2),
    "selective-embeddings": methods.selective("embeddings"),
    "ia3-both": methods.ia3(outputs=["down"], inputs=["down"]),
    "union": methods.union(methods.lora(2, 4, "mlp"), methods.selective("norms")),
    "union-anchored": methods.union(methods.selective("mlp", last=1), methods.pissa(2, 2, "q"), methods.vera(3, "k")),
    "union-dora": methods.union(methods.dora(2, 4, "q"), methods.prefix(3, hidden=5)),
}
# Of a decoder-only model, PEFT has all prompts and prefixes.
CASES = [(kind, name) for kind in ("llama", "flan-t5") for name in OWN if kind != "llama" or not name.startswith("pr")]


@pytest.fixture(scope="module")
def models():
    return {kind: make_model(CONFIGS[kind]) for kind in ("llama", "flan-t5")}


def moved(method, model, seed=1):
    trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + draw.standard_normal(leaf.shape, np.float32), trainable), frozen


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_our_own_type_comes_back_bit_for_bit(models, kind, tmp_path, name):
    model, method = models[kind], OWN[name]
    trainable, frozen = moved(method, model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "JAXFT"
    expected, trainable = methods.finalize(method, trainable, frozen)
    again, loaded, rest = load_adapter(tmp_path / "adapter", model)
    assert again.config == expected.config
    assert_equal_trees(loaded, trainable)
    assert_equal_trees(rest, frozen)
    (tmp_path / "adapter" / "jaxft.json").unlink()  # the two files alone suffice
    assert_equal_trees(load_adapter(tmp_path / "adapter", model)[1], trainable)


def test_tensors_of_our_own_type_that_do_not_fit_are_listed(models, tmp_path):
    model, method = models["llama"], methods.adapter(6, "pfeiffer")
    save_adapter(tmp_path / "adapter", method, *moved(method, model), model)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole, first = load_file(path), "trainable/layers/0/mlp_adapter/down/bias"
    for change, words in (
        ({first: None}, f"{first} is missing"),
        ({first: np.zeros((3, 5), np.float32)}, rf"{first} is \[3, 5\], not \[3, 6\]"),
        ({"trainable/down": np.zeros(2, np.float32)}, "trainable/down is unknown"),
        ({first: None, "trainable/down": np.zeros(2, np.float32)}, f"{first} is missing; trainable/down is unknown"),
    ):
        save_file({name: array for name, array in {**whole, **change}.items() if array is not None}, path)
        with pytest.raises(Error, match=words):
            load_adapter(tmp_path / "adapter", model)
    save_file(whole, path)
    with pytest.raises(UsageError, match=r"family llama.*family t5"):
        load_adapter(tmp_path / "adapter", models["flan-t5"])
    edited(tmp_path / "adapter" / "adapter_config.json", method={"name": "adapter", "wdith": 6})
    with pytest.raises(UsageError, match="did you mean 'width'"):
        load_adapter(tmp_path / "adapter", model)
    edited(tmp_path / "adapter" / "adapter_config.json", method=None)
    with pytest.raises(Error, match="names no method"):
        load_adapter(tmp_path / "adapter", model)


def test_names_are_short_only_where_they_take_nothing_else(models, tmp_path):
    def settings(kind, method):
        save_adapter(tmp_path / "adapter", method, *moved(method, models[kind]), models[kind])
        return json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())

    def targets(kind, chosen):
        return settings(kind, methods.lora(rank=2, targets=chosen))["target_modules"]

    queries = [f"decoder.block.{layer}.layer.0.SelfAttention.q" for layer in range(3)]
    assert targets("llama", "attention") == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert targets("flan-t5", "all") == ["k", "o", "q", "v", "wi_0", "wi_1", "wo"]
    assert targets("flan-t5", ["decoder/layers/attention/q"]) == queries
    config = settings("flan-t5", methods.lora(2, targets=["q"], rank_pattern={"decoder/layers/attention/q": 3}))
    assert config["rank_pattern"] == dict.fromkeys(queries, 3) and config["target_modules"] == ["q"]
    config = settings("flan-t5", methods.ia3())
    assert (config["target_modules"], config["feedforward_modules"]) == (["k", "v", "wo"], ["wo"])
    # PEFT takes o for the end of wo here: the full names are the only right ones.
    config = settings("flan-t5", methods.ia3(outputs=["down"], inputs=["o"]))
    assert all(name.endswith("Attention.o") for name in config["feedforward_modules"])
    assert set(config["feedforward_modules"]) < set(config["target_modules"])


def test_adapters_of_another_base_are_refused_by_name(models, tmp_path):
    method = methods.lora(rank=2)
    save_adapter(tmp_path / "adapter", method, *moved(method, models["llama"]), models["llama"])
    with pytest.raises(UsageError, match=r"family llama.*family t5"):
        load_adapter(tmp_path / "adapter", models["flan-t5"])
    config = json.loads((tmp_path / "adapter" / "jaxft.json").read_text())
    edited(tmp_path / "adapter" / "jaxft.json", base={**config["base"], "mlp_width": 81})
    with pytest.raises(UsageError, match=r"mlp_width 81.*mlp_width 88"):
        load_adapter(tmp_path / "adapter", models["llama"])
    (tmp_path / "adapter" / "jaxft.json").unlink()
    with pytest.raises(Error, match=r"one of its modules \(the first: base_model\.model\.model\.layers\.0\.self_attn"):
        load_adapter(tmp_path / "adapter", models["flan-t5"])


def test_tensors_that_do_not_fit_are_listed(models, tmp_path):
    model, method = models["llama"], methods.lora(rank=2)
    save_adapter(tmp_path / "adapter", method, *moved(method, model), model)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(path)
    first = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"
    for change, words in (
        ({first.format(1): None}, r"layers\.1\.self_attn\.q_proj\.lora_A\.weight is missing"),
        ({first.format(0): np.zeros((2, 3), np.float32)}, r"lora_A\.weight is \[2, 3\], not \[2, 48\]"),
        ({"base_model.model.lm_head.weight": np.zeros(2, np.float32)}, r"lm_head\.weight is unknown"),
        ({first.format(9): np.zeros((2, 48), np.float32)}, r"layers\.9\.self_attn\.q_proj\.lora_A\.weight is unknown"),
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


LORA, DORA, VERA = methods.lora(rank=2), methods.dora(rank=2), methods.vera(rank=3)
IA3, NORMS, PROMPT = methods.ia3(), methods.selective("norms"), methods.prompt(3)
PREFIX = methods.prefix(3, hidden=0)


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        (LORA, {"peft_type": "LOHA"}, "peft_type 'LOHA' is not supported"),
        (LORA, {"bias": "all"}, "bias = 'all'"),
        (LORA, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (LORA, {"layers_to_transform": [0]}, "layers_to_transform"),
        (LORA, {"init_lora_weights": "pissa"}, "changed the base"),
        (LORA, {"r": None}, "r = None is not a rank"),
        (LORA, {"rank_pattern": {"q_proj": 8}}, r"q_proj\.lora_A\.weight is \[2, 48\], not \[8, 48\]"),
        (LORA, {"alpha_pattern": {"layers.1.self_attn.q_proj": 8}}, "alpha_pattern gives .*one value"),
        (LORA, {"alpha_pattern": {"q_proj(": 8}}, "alpha_pattern is not a regular expression"),
        (LORA, {"use_dora": True}, "lora_magnitude_vector is missing"),
        (DORA, {"use_dora": False}, "lora_magnitude_vector is unknown"),
        (VERA, {"save_projection": False}, "save_projection is off"),
        (VERA, {"layers_to_transform": [0]}, "layers_to_transform"),
        (VERA, {"r": 4}, r"vera_lambda_d is \[3\], not \[4\]"),
        (IA3, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (IA3, {"peft_type": "LORA", "r": 2}, "feedforward_modules"),
        (NORMS, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (PROMPT, {"num_virtual_tokens": 4}, r"prompt_embeddings is \[3, 48\], not \[4, 48\]"),
        (PROMPT, {"num_virtual_tokens": True}, "num_virtual_tokens = True is not a length"),
        (PROMPT, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (PREFIX, {"num_attention_heads": 4}, "num_attention_heads = 4, but this model has 2"),
        (PREFIX, {"num_virtual_tokens": 4}, r"prompt_embeddings is \[3, 120\], not \[4, 120\]"),
    ],
)
def test_what_peft_has_and_jaxft_has_not_is_refused_by_name(models, tmp_path, method, change, words):
    save_adapter(tmp_path / "adapter", method, *moved(method, models["llama"]), models["llama"])
    edited(tmp_path / "adapter" / "adapter_config.json", **change)
    with pytest.raises(Error, match=words):
        load_adapter(tmp_path / "adapter", models["llama"])


def test_pefts_prefixes_of_t5_are_refused(models, tmp_path):
    save_adapter(tmp_path / "adapter", PREFIX, *moved(PREFIX, models["llama"]), models["llama"])
    (tmp_path / "adapter" / "jaxft.json").unlink()
    with pytest.raises(UsageError, match="PREFIX_TUNING of an encoder-decoder"):
        load_adapter(tmp_path / "adapter", models["flan-t5"])


@pytest.mark.parametrize("method", [LORA, methods.pissa(rank=2, alpha=4.0, targets="q")])
def test_pefts_file_is_believed_where_ours_is_left_over(models, tmp_path, method):
    model = models["llama"]
    trainable, frozen = moved(method, model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    edited(tmp_path / "adapter" / "adapter_config.json", lora_alpha=9)
    again, loaded, _ = load_adapter(tmp_path / "adapter", model)
    assert (again.config["name"], again.config["alpha"]) == ("lora", 9)
    assert loaded["layers"][0]["attention"]["q"]["a"].shape == (3, 48, again.config["rank"])


@pytest.mark.parametrize("before", [methods.pissa(rank=2, targets="q"), LORA, VERA, PREFIX, NORMS])
def test_what_another_adapter_left_behind_does_not_matter(models, tmp_path, before):
    model = models["llama"]
    trainable, frozen = moved(IA3, model)
    save_adapter(tmp_path / "adapter", IA3, trainable, frozen, model)
    edited(tmp_path / "adapter" / "jaxft.json", method=before.config)
    again, loaded, _ = load_adapter(tmp_path / "adapter", model)
    assert again.config["name"] == "ia3"
    assert_equal_trees(loaded, trainable)


def test_pissa_without_our_file_is_the_same_lora(models, tmp_path):
    model, method = models["flan-t5"], methods.pissa(rank=2, alpha=3.0, targets=["q", "o"], rank_pattern={"q": 3})
    trainable, frozen = moved(method, model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    (tmp_path / "adapter" / "jaxft.json").unlink()
    again, loaded, rest = load_adapter(tmp_path / "adapter", model)
    assert again.config["name"] == "lora" and rest.keys() == {"params"}
    ours, theirs = (
        method.bind(*trees)["lora"] for method, trees in ((method, (trainable, frozen)), (again, (loaded, rest)))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_saving_again_replaces_an_adapter_and_nothing_else(models, tmp_path):
    model, method = models["llama"], methods.prompt(length=2)
    trainable, frozen = moved(method, model)
    save_adapter(tmp_path / "adapter", methods.adapter(2), *moved(methods.adapter(2), model), model)
    save_adapter(tmp_path / "adapter", method, trainable, frozen, model)
    assert_equal_trees(load_adapter(tmp_path / "adapter", model)[1], trainable)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        save_adapter(tmp_path / "notes", method, trainable, frozen, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "notes"]


def test_an_adapter_that_cannot_be_written_leaves_the_old_one(models, tmp_path, monkeypatch):
    def full_disk(path, tensors):
        raise OSError(28, "No space left on device")

    model = models["llama"]
    trainable, frozen = moved(LORA, model)
    save_adapter(tmp_path / "adapter", LORA, trainable, frozen, model)
    monkeypatch.setattr(saving, "write_tensors", full_disk)
    with pytest.raises(Error, match="No space left"):
        save_adapter(tmp_path / "adapter", IA3, *moved(IA3, model), model)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert_equal_trees(load_adapter(tmp_path / "adapter", model)[1], trainable)


def test_full_tuning_of_another_base_is_refused(models, tmp_path):
    full, model = methods.full(), models["llama"]
    save_adapter(tmp_path / "full", full, jax.tree.map(jnp.array, model.params), {}, model)
    with pytest.raises(UsageError, match="family"):
        load_adapter(tmp_path / "full", models["flan-t5"])
