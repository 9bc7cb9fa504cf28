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

import jaxft
from jaxft.errors import UsageError
from jaxft.generation import generate, log_likelihood, sharing
from jaxft.generation import likelihood as module
from jaxft.generation.likelihood_rows import planned, rows_of
from jaxft.generation.sharing import shared_headers
from jaxft.methods.bank import stack
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
    monkeypatch.setattr(module, "CHUNK", 16)
    module.score.clear_cache()
    chunked = log_likelihood(model, variables, PROMPTS, COMPLETIONS)
    module.score.clear_cache()
    np.testing.assert_allclose(whole[0], chunked[0], rtol=1e-5)
    assert whole[1].tolist() == chunked[1].tolist()


def scored_batch(rows, width, asked):
    batch = {name: np.ones((rows, width), np.int32) for name in ("tokens", "positions", "segments")}
    at = np.arange(asked, dtype=np.int32)
    return batch | {"at": at, "targets": np.ones((asked, 4), np.int32), "used": np.int32(asked)}


def test_at_most_a_chunk_of_logits_is_alive(llama):
    args = llama.architecture, {"params": llama.params}, scored_batch(4, 512, 1024)
    jaxpr = str(jax.make_jaxpr(module.score.__wrapped__, static_argnums=0)(*args))
    rows = re.findall(rf"f32\[(\d+),{llama.config.vocab_size}\]", jaxpr)
    assert max(map(int, rows)) == module.CHUNK


def shared(rows, header, seed, choices):
    """Prompts of which many begin alike and some end alike, each with a few completions, in a mixed order."""
    random = np.random.default_rng(seed)
    headers = draw((header, header + 7, 3), seed)
    given, wanted = [], []
    for i in range(rows):
        prompt = headers[i % 3] + random.integers(6, 96, random.integers(1, 9)).tolist()
        for _ in range(choices):
            given.append(prompt)
            wanted.append(random.integers(6, 96, random.integers(1, 5)).tolist())
    order = random.permutation(len(given))
    return [given[i] for i in order], [wanted[i] for i in order]


def bound(model, name):
    if name is None:
        return {"params": model.params}
    method = {"prompt": jaxft.prompt(length=3), "prefix": jaxft.prefix(length=4), "lora": jaxft.lora(rank=2)}[name]
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), trainable)
    return method.bind(moved, frozen)


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_header_stands_behind_what_a_method_puts_in_front(llama, name, monkeypatch):
    test_sharing_changes_nothing(llama, monkeypatch, name)


def test_sharing_changes_nothing(model, monkeypatch, name=None):
    monkeypatch.setattr(sharing, "COST", 0)
    variables = bound(model, name)
    given, wanted = shared(rows=12, header=40, seed=3, choices=3)
    headers = {length for length, _ in shared_headers(list(set(map(tuple, given)))) if length}
    assert {40, 47} <= headers
    alone = log_likelihood(model, variables, given, wanted, share=False)
    together = log_likelihood(model, variables, given, wanted, batch_size=4)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5, atol=1e-5)
    assert together[1].tolist() == alone[1].tolist()


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "smollm3"])
def test_sharing_changes_nothing_in_other_families(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "COST", 0)
    tiny_torch.decoder(tmp_path, name)
    model = load(tmp_path)
    variables = {"params": model.params}
    given, wanted = shared(rows=9, header=24, seed=4, choices=2)
    alone = log_likelihood(model, variables, given, wanted, share=False)[0]
    np.testing.assert_allclose(log_likelihood(model, variables, given, wanted)[0], alone, rtol=1e-5, atol=1e-5)


def test_a_bank_shares_within_a_member(llama):
    members = [bound(llama, "lora"), {**bound(llama, "lora")}]
    members[1] = {**members[1], "lora": jax.tree.map(lambda x: -x, members[1]["lora"])}
    variables, ids = stack(members), [0, 1, 0, 1, 1]
    prompts = [PROMPTS[0]] * 4 + [PROMPTS[1]]
    mixed = log_likelihood(llama, variables, prompts, COMPLETIONS, adapter_ids=ids)[0]
    each = [log_likelihood(llama, member, prompts, COMPLETIONS)[0] for member in members]
    np.testing.assert_allclose(mixed, [each[own][i] for i, own in enumerate(ids)], rtol=1e-4)


def test_completions_share_their_prompt(model, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "score", lambda *args, score=module.score: seen.append(args[2]) or score(*args))
    variables = {"params": model.params}
    choices = [[7], [8], [9], [10]]
    given = [p for p in PROMPTS[:2] for _ in choices]
    one_token = log_likelihood(model, variables, given, choices * 2)[0]
    assert len(seen) == 1 and seen[0]["used"] == 2 and "branches" not in seen[0]
    assert len(set(one_token.tolist())) == 8


def test_answers_come_batch_by_batch(llama):
    options = {"batch_size": 2, "share": False}
    parts = module.stream(llama, {"params": llama.params}, PROMPTS, COMPLETIONS, **options)
    assert len(next(parts).requests) == 2
    assert len([i for part in parts for i in part.requests]) == 3


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
    assert module.score._cache_size() - before <= 4  # rows of 32 and of 64 tokens, one target a row or several


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
    batch = scored_batch(2, 32, 16)
    batch |= dict.fromkeys(("branches", "encoder_tokens", "encoder_positions", "encoder_segments"), batch["tokens"])
    traced = [module.score.trace(model.architecture, {"params": model.params}, batch)]
    if not isinstance(model.architecture, T5):
        traced.append(module.read.trace(model.architecture, {"params": model.params}, batch))
    for platform in ("tpu", "cuda"):
        assert all(one.lower(lowering_platforms=(platform,)).as_text() for one in traced)


def test_a_mesh_changes_nothing(llama, monkeypatch):
    monkeypatch.setattr(sharing, "COST", 0)
    given, wanted = shared(rows=9, header=40, seed=3, choices=2)
    variables = {"params": llama.params}
    single = log_likelihood(llama, variables, given, wanted)[0]
    mesh = jaxft.make_mesh(data=2, fsdp=2)
    with jax.set_mesh(mesh):
        sharded = log_likelihood(llama, jaxft.shard(variables, mesh), given, wanted)[0]
    np.testing.assert_allclose(sharded, single, rtol=1e-5, atol=1e-5)


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


def test_every_row_fits_its_batch():
    """Of few and of many rows, with one length or two, whatever they are."""
    random = np.random.default_rng(0)
    for start, count, most in ((None, 9, 60), (None, 300, 90), (0, 9, 60), (0, 300, 90), (0, 2, 200)):
        prompts = [random.integers(5, 9, random.integers(1, most)).tolist() for _ in range(count)]
        completions = [random.integers(5, 9, random.integers(1, 40)).tolist() for _ in range(count)]
        rows = rows_of(prompts, completions, None, start, True)
        plan = planned(rows, 8, headers=start is None, devices=2)
        assert sorted(i for group in plan for batch in group.batches for i in batch.rows) == list(range(len(rows)))
        for group in plan:
            for batch in group.batches:
                assert len(batch.rows) <= batch.size <= 8 and batch.size % 2 == 0
                own = [rows[i] for i in batch.rows]
                assert max(row.length for row in own) - group.header <= batch.length
                assert max(len(row.encoder or ()) for row in own) <= batch.encoder_length
                assert len({tuple(row.tokens[: group.header]) for row in own}) == 1
        assert len({batch[1:] for group in plan for batch in group.batches}) <= 16
