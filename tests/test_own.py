"""Our own T5: it comes with the package, knows something, and is a T5 to transformers too."""

import json
import socket

import jax
import numpy as np
import pytest
import tiny_torch
import torch
import transformers

import jaxft
from jaxft import own
from jaxft.data import evaluation_batches
from jaxft.data.dialogues import dialogues
from jaxft.data.span_corruption import span_corruption
from jaxft.errors import UsageError
from jaxft.models import T5
from jaxft.pretrained.card import license_of
from jaxft.training.step import loss_step

LINES = "Anna: Hi!\nBob: I'd like 25 of them for {the} café, ~5 € each 😀\n\n\tBye  now <b>"


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_):
            raise AssertionError("the network was asked")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return jaxft.load("jaxft:t5-tiny")


def test_it_is_small_and_says_what_it_is(model):
    folder = own.find("t5-tiny")
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= set(files)
    assert sum(files.values()) < 10e6
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert license_of("jaxft:t5-tiny") == "cc-by-sa-4.0"
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 4_230_720
    assert (model.family, model.source) == ("t5", "jaxft:t5-tiny")


def held_out_loss(model, params):
    texts = [row["dialogue"] for row in dialogues(seed=8001, count=12)]
    pieces = [np.array(ids[:200], np.int32) for ids in model.tokenizer(texts, add_special_tokens=False).input_ids]
    examples = span_corruption(pieces, model.tokenizer, seed=0)
    batches = evaluation_batches(examples, 12, shapes=[(192, 64)], decoder_start_token_id=0)
    method = jaxft.full()
    total, count = loss_step(model, method)(*method.init(jax.random.key(0), {"params": params}), batches.batch(0))
    return float(total / count)


def test_it_fills_gaps_of_texts_that_it_has_not_seen(model):
    # The frequencies of the training targets alone give 6.0; chance is log 4096 = 8.3.
    assert held_out_loss(model, model.params) < 4.5
    assert held_out_loss(model, T5(model.config).init(jax.random.key(0))) > 8


def test_its_completions_end_and_are_words(model):
    facts = "name : Blue Spice | eatType : coffee shop | area : riverside"
    prompts = [f"{facts}\n\nWrite a natural description that mentions all of this."]
    (ids,) = jaxft.generate(model, {"params": model.params}, prompts, max_new_tokens=40, return_tokens=True)
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    assert ids[-1] == model.tokenizer.eos_token_id and "�" not in text
    assert len(text.split()) > 3 and len(set(text.split())) > 3


def test_transformers_computes_the_same_from_its_files(model):
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(own.find("t5-tiny"), dtype=torch.float32).eval()
    batch = tiny_torch.batch(True)
    ours = model.apply({"params": model.params}, batch)
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, batch), batch)


@pytest.mark.parametrize("text", [LINES, "", "\n", " a\n\n b ", "x" * 50])
def test_every_text_comes_back_from_the_tokenizer(model, text):
    ids = model.tokenizer(text).input_ids
    assert ids[-1] == model.tokenizer.eos_token_id == 1
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert model.tokenizer.unk_token_id not in ids


def test_its_special_tokens_are_where_t5_has_them(model):
    tokens = model.tokenizer
    assert (tokens.pad_token_id, tokens.eos_token_id, tokens.unk_token_id) == (0, 1, 2)
    assert len(tokens) == model.config.vocab_size == 4096
    assert tokens.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [4095, 3996]
    assert tokens("a <extra_id_7> b", add_special_tokens=False).input_ids.count(4088) == 1


def test_saved_again_it_is_the_same(model, tmp_path):
    jaxft.save(tmp_path / "copy", model, dtype="bfloat16")
    again = jaxft.load(tmp_path / "copy")
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert again.config == model.config
    assert again.tokenizer(LINES).input_ids == model.tokenizer(LINES).input_ids
    assert "license: cc-by-sa-4.0" in (tmp_path / "copy" / "README.md").read_text()
    plain = transformers.AutoTokenizer.from_pretrained(tmp_path / "copy", local_files_only=True)
    assert plain(LINES).input_ids == model.tokenizer(LINES).input_ids


def test_unknown_names_and_models_that_are_not_made_yet(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"jaxft:t5-tinny: .*did you mean 't5-tiny'"):
        jaxft.load("jaxft:t5-tinny")
    monkeypatch.setenv("JAXFT_RUNS", str(tmp_path))
    with pytest.raises(UsageError, match=r"own_t5\.py --size mini"):
        jaxft.load("jaxft:t5-mini")
    made = tmp_path / "own" / "t5-mini" / "model"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    assert own.find("t5-mini") == made
