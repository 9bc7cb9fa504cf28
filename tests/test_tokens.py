"""Added tokens: rows for them, what trains them, files that keep them; and tokenizers that do not fit their model."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_vocabulary
from conftest import CONFIGS, make_model

import jaxft
from jaxft.errors import Error, UsageError
from jaxft.pretrained import add_tokens, load, save, save_gguf
from jaxft.pretrained.tokenizer import ROWLESS

NEW = ["<|tool|>", "<|result|>"]


def spoken(name, **changes):
    """A model of conftest's whose vocabulary its tokenizer fills to the last row."""
    tokenizer = tiny_vocabulary.unigram() if "t5" in name else tiny_vocabulary.byte_level()
    config = dataclasses.replace(CONFIGS[name], vocab_size=len(tokenizer), **changes)
    return dataclasses.replace(make_model(config), tokenizer=tokenizer, source="base")


@pytest.mark.parametrize(("name", "tied"), [("llama", False), ("llama", True), ("flan-t5", False), ("t5-v1.0", True)])
def test_new_rows_are_the_mean_and_nothing_else_changes(name, tied):
    model = spoken(name, tie_embeddings=tied)
    before, old = jax.device_get(model.params), model.config.vocab_size
    longer = add_tokens(model, NEW)
    assert longer.config == dataclasses.replace(model.config, vocab_size=old + 2)
    embedding = longer.params["embedding"]
    np.testing.assert_array_equal(embedding[:old], before["embedding"])
    np.testing.assert_allclose(embedding[old:], np.stack([before["embedding"].mean(0)] * 2), rtol=0, atol=1e-6)
    assert ("head" in longer.params) == (not tied)
    if not tied:
        kernel = longer.params["head"]["kernel"]
        np.testing.assert_array_equal(kernel[:, :old], before["head"]["kernel"])
        # A new token's logit is the mean of the old ones', whatever is said.
        hidden = np.random.default_rng(0).standard_normal((5, model.config.width)).astype(np.float32)
        logits = hidden @ np.asarray(kernel)
        np.testing.assert_allclose(logits[:, old:], np.stack([logits[:, :old].mean(1)] * 2, 1), rtol=0, atol=1e-5)
    rest = {key: leaf for key, leaf in before.items() if key not in ("embedding", "head")}
    jax.tree.map(np.testing.assert_array_equal, {key: longer.params[key] for key in rest}, rest)
    ids = longer.tokenizer(f"the{NEW[0]} and", add_special_tokens=False)["input_ids"]
    assert ids.count(old) == 1
    assert longer.tokenizer.decode([old, old + 1], skip_special_tokens=True) == ""
    # The model that was given is as it was.
    assert len(model.tokenizer) == old and NEW[0] not in model.tokenizer.get_vocab()
    jax.tree.map(np.testing.assert_array_equal, model.params, before)


def test_rows_to_spare_are_used_and_multiples_are_kept():
    model = spoken("llama")
    padded = add_tokens(model, NEW, pad_to=16, special=False)
    assert padded.config.vocab_size == 80 and len(padded.tokenizer) == 75
    assert padded.tokenizer.decode([73], skip_special_tokens=True) == NEW[0]
    again = add_tokens(padded, ["<|third|>", NEW[0]])
    assert len(again.tokenizer) == 76
    assert again.params is padded.params and again.config == padded.config


def test_rows_are_trained_as_the_method_says():
    longer = add_tokens(spoken("llama"), NEW)
    variables = {"params": longer.params}
    for method, trained in (
        (jaxft.full(), True),
        (jaxft.selective("embeddings"), True),
        (jaxft.lora(rank=2, targets="all"), False),
    ):
        trainable, _ = method.init(jax.random.key(0), variables)
        shapes = {leaf.shape for leaf in jax.tree.leaves(trainable)}
        assert ((75, longer.config.width) in shapes) == trained


@pytest.mark.parametrize("name", ["llama", "flan-t5"])
def test_files_keep_them_and_adapters_of_them_do_not_fit_the_shorter_model(name, tmp_path):
    model = spoken(name)
    longer = add_tokens(model, NEW)
    save(tmp_path / "longer", longer)
    here = load(tmp_path / "longer")
    assert here.config.vocab_size == model.config.vocab_size + 2
    jax.tree.map(np.testing.assert_array_equal, here.params, longer.params)
    text = f"the {NEW[1]} and"
    assert here.tokenizer(text)["input_ids"] == longer.tokenizer(text)["input_ids"]
    if name == "llama":
        save_gguf(tmp_path / "longer.gguf", longer, dtype="f32")
        packed = load(tmp_path / "longer.gguf")
        assert packed.tokenizer(text)["input_ids"] == longer.tokenizer(text)["input_ids"]
        np.testing.assert_array_equal(packed.params["embedding"], longer.params["embedding"])
    method = jaxft.lora(rank=2, targets="attention")
    trainable, frozen = method.init(jax.random.key(0), {"params": here.params})
    jaxft.save_adapter(tmp_path / "adapter", method, trainable, frozen, here)
    jaxft.load_adapter(tmp_path / "adapter", load(tmp_path / "longer"))
    with pytest.raises(UsageError, match=r"vocab_size \d+\), not of base \(vocab_size \d+\)"):
        jaxft.load_adapter(tmp_path / "adapter", model)


def test_what_is_no_token_is_refused():
    model = spoken("llama")
    for tokens, words in (([], "is not a list of tokens"), (["a", ""], "each of at least one"), ([3], "not a list")):
        with pytest.raises(UsageError, match=words):
            add_tokens(model, tokens)
    with pytest.raises(UsageError, match="pad_to = 0"):
        add_tokens(model, NEW, pad_to=0)
    with pytest.raises(UsageError, match="no tokenizer"):
        add_tokens(dataclasses.replace(model, tokenizer=None), NEW)


def test_a_tokenizer_larger_than_the_embedding_is_an_error_with_both_numbers(tmp_path):
    model = spoken("llama")
    tokenizer = add_tokens(model, NEW).tokenizer
    save(tmp_path / "out", dataclasses.replace(model, tokenizer=tokenizer))
    words = "the tokenizer has 75 tokens and the embedding 73 rows"
    with pytest.raises(Error, match=words):
        load(tmp_path / "out")
    assert len(load(tmp_path / "out", tokenizer=model.tokenizer).tokenizer) == 73
    save_gguf(tmp_path / "m.gguf", model)
    with pytest.raises(Error, match=words):
        load(tmp_path / "m.gguf", tokenizer=tokenizer)
    # Gemma 3's text models have one token more than rows, which stands for what they do not see.
    seeing = add_tokens(model, ROWLESS)
    assert seeing.config.vocab_size == 73
    save(tmp_path / "seeing", seeing)
    assert len(load(tmp_path / "seeing").tokenizer) == 74
    save_gguf(tmp_path / "seeing.gguf", seeing)
    assert load(tmp_path / "seeing.gguf").config.vocab_size == 73
