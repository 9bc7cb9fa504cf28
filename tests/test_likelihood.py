"""Log-likelihoods equal torch's, whatever the batch, and greedy means what generation writes."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import tiny_torch
import torch
from conftest import make_model
from tiny_tokenizer import tiny_tokenizer

from jaxft.errors import UsageError
from jaxft.generation import generate, log_likelihood
from jaxft.generation import likelihood as module
from jaxft.models import T5
from jaxft.pretrained import load


def draw(lengths, seed, vocabulary=96):
    random = np.random.default_rng(seed)
    return [random.integers(6, vocabulary, n).tolist() for n in lengths]


PROMPTS, COMPLETIONS = draw((5, 30, 3, 12, 8), 0), draw((4, 7, 1, 40, 2), 1)


@pytest.fixture(scope="module", params=["llama", "t5"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return getattr(tiny_torch, request.param)(folder), load(folder)


def torch_log_likelihood(torch_model, prompt, completion):
    with torch.no_grad():
        if torch_model.config.is_encoder_decoder:
            decoder = torch.tensor([[0, *completion[:-1]]])
            logits = torch_model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0]
        else:
            logits = torch_model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    targets = torch.tensor(completion)
    total = torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets].sum()
    return float(total), bool((logits.argmax(-1) == targets).all())


@pytest.mark.parametrize("batch_size", [16, 2])
def test_it_is_that_of_torch(pair, batch_size):
    torch_model, model = pair
    sums, greedy = log_likelihood(model, {"params": model.params}, PROMPTS, COMPLETIONS, batch_size=batch_size)
    assert sums.dtype == np.float32 and greedy.dtype == bool
    expected = [torch_log_likelihood(torch_model, *both) for both in zip(PROMPTS, COMPLETIONS, strict=True)]
    np.testing.assert_allclose(sums, [total for total, _ in expected], rtol=1e-4)
    assert greedy.tolist() == [same for _, same in expected]


def test_what_generation_writes_is_greedy(model):
    variables, prompts = {"params": model.params}, draw((6, 11, 4), 2)
    written = generate(model, variables, prompts, max_new_tokens=5, return_tokens=True)
    assert log_likelihood(model, variables, prompts, written)[1].all()
    other = [[*row[:-1], (row[-1] + 1) % model.config.vocab_size] for row in written]
    assert not log_likelihood(model, variables, prompts, other)[1].any()


def test_chunks_change_nothing(model, monkeypatch):
    variables = {"params": model.params}
    whole = log_likelihood(model, variables, PROMPTS, COMPLETIONS)
    monkeypatch.setattr(module, "CHUNK", 40)
    module.score.clear_cache()
    chunked = log_likelihood(model, variables, PROMPTS, COMPLETIONS)
    module.score.clear_cache()
    np.testing.assert_allclose(whole[0], chunked[0], rtol=1e-5)
    assert whole[1].tolist() == chunked[1].tolist()


def test_at_most_a_chunk_of_logits_is_alive(llama):
    width = 512
    batch = {name: np.ones((4, width), np.int32) for name in ("tokens", "positions", "segments", "targets")}
    batch["weights"] = np.ones((4, width), np.float32)
    jaxpr = str(
        jax.make_jaxpr(module.score.__wrapped__, static_argnums=0)(llama.architecture, {"params": llama.params}, batch)
    )
    lengths = re.findall(rf"f32\[4,(\d+),{llama.config.vocab_size}\]", jaxpr)
    assert max(map(int, lengths)) == module.CHUNK // 4


def test_a_soft_prompt_is_seen(model):
    soft = 0.5 * jax.random.normal(jax.random.key(0), (4, model.config.width))
    soft = {"encoder": {"embedding": soft}} if isinstance(model.architecture, T5) else {"embedding": soft}
    plain = log_likelihood(model, {"params": model.params}, PROMPTS, COMPLETIONS)[0]
    assert (
        np.abs(log_likelihood(model, {"params": model.params, "prompt": soft}, PROMPTS, COMPLETIONS)[0] - plain).min()
        > 1e-3
    )


def test_few_compilations(llama):
    before = module.score._cache_size()
    for seed in range(3):
        prompts = draw(np.random.default_rng(seed).integers(1, 30, 9).tolist(), seed)
        completions = draw(np.random.default_rng(seed + 9).integers(1, 30, 9).tolist(), seed + 1)
        log_likelihood(llama, {"params": llama.params}, prompts, completions, batch_size=4)
    assert module.score._cache_size() - before == 2


def test_texts_are_tokenised_without_an_end(llama, flan_t5):
    tokenizer = tiny_tokenizer()
    for base in (llama, flan_t5):
        config = dataclasses.replace(base.config, vocab_size=len(tokenizer))
        model = dataclasses.replace(make_model(config), tokenizer=tokenizer)
        texts, ends = ["one two", "x"], ["three", "four five"]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        completions = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ends]
        variables = {"params": model.params}
        assert (
            log_likelihood(model, variables, texts, ends)[0].tolist()
            == log_likelihood(model, variables, ids, completions)[0].tolist()
        )


def test_every_step_lowers_for_accelerators(model):
    names = ("tokens", "positions", "segments", "targets")
    batch = {name: np.ones((2, 32), np.int32) for name in names} | {"weights": np.ones((2, 32), np.float32)}
    batch |= {f"encoder_{name}": batch[name] for name in names[:3]}
    for platform in ("tpu", "cuda"):
        traced = module.score.trace(model.architecture, {"params": model.params}, batch)
        assert traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[5], [6]], [[7]], "there are 1 for 2 prompts"),
        ([[5], []], [[7], [8]], "prompt 1: it is empty"),
        ([[5], [6]], [[7], []], "completion 1: it is empty"),
        ([[5], [6]], [[7], [101]], "completion 1: a token id is outside the vocabulary of 101"),
        ([[5], [6] * 2040], [[7], [8] * 10], "prompt 1: 2040 tokens and 9 new ones exceed the model's context of 2048"),
    ],
)
def test_what_cannot_be_scored_is_said(llama, prompts, completions, message):
    with pytest.raises(UsageError, match=message):
        log_likelihood(llama, {"params": llama.params}, prompts, completions)
