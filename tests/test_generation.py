"""Generation writes what transformers writes, and what is in a batch, a cache or a bucket does not change it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_torch
import torch
import transformers
from conftest import make_batch
from tiny_tokenizer import tiny_tokenizer

from jaxft.errors import UsageError
from jaxft.generation import Sampling, generate
from jaxft.generation.decode import decoding_variables, run
from jaxft.generation.prompts import bucket
from jaxft.generation.sampling import History, draw, restrain
from jaxft.methods import lora, prompt
from jaxft.models import T5
from jaxft.pretrained import load

ENDS = {"llama": (31, 74), "t5": (46, 77)}  # ids that these random models write now and then
LENGTHS = (5, 9, 3, 40, 17)


def draw_prompts(lengths=LENGTHS, vocabulary=96, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(6, vocabulary, n).tolist() for n in lengths]


@pytest.fixture(scope="module", params=["llama", "t5"])
def pair(request, tmp_path_factory):
    """The same weights in torch and here, with end tokens that occur."""
    folder = tmp_path_factory.mktemp(request.param)
    torch_model = getattr(tiny_torch, request.param)(folder)
    model = load(folder)
    config = dataclasses.replace(model.config, eos_token_ids=ENDS[request.param])
    torch_model.generation_config.eos_token_id = list(config.eos_token_ids)
    return torch_model, dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, config=config))


def torch_tokens(torch_model, prompt, new, **settings):
    """What transformers writes for one prompt; its T5 cache breaks where the stacks differ in depth."""
    encoder_decoder = torch_model.config.is_encoder_decoder
    with torch.no_grad():
        out = torch_model.generate(
            torch.tensor([prompt]),
            max_new_tokens=new,
            do_sample=False,
            early_stopping=False,
            use_cache=not encoder_decoder,
            **settings,
        )
    return out[0].tolist()[1 if encoder_decoder else len(prompt) :]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.3, "no_repeat_ngram": 2},
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": 2.0},
        {"num_beams": 2, "length_penalty": -0.5, "repetition_penalty": 1.5, "no_repeat_ngram": 3},
    ],
    ids=str,
)
def test_tokens_are_those_of_transformers_one_by_one(pair, settings):
    torch_model, model = pair
    prompts = draw_prompts()
    ours = generate(model, {"params": model.params}, prompts, max_new_tokens=20, return_tokens=True, **settings)
    theirs = {name.replace("no_repeat_ngram", "no_repeat_ngram_size"): value for name, value in settings.items()}
    assert ours == [torch_tokens(torch_model, prompt, 20, **theirs) for prompt in prompts]
    if settings.get("length_penalty", 1.0) <= 1:  # above, long beams win
        assert any(row[-1] in model.config.eos_token_ids and len(row) < 20 for row in ours)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_company_changes_nothing(pair, num_beams):
    _, model = pair
    variables, prompts = {"params": model.params}, draw_prompts()
    settings = {"max_new_tokens": 12, "num_beams": num_beams, "return_tokens": True}
    together = generate(model, variables, prompts, **settings)
    assert together == generate(model, variables, prompts, batch_size=2, **settings)
    assert together[2:] == generate(model, variables, prompts[2:], batch_size=2, **settings)


@pytest.mark.parametrize("collection", ["lora", "prompt"])
def test_adapters_and_soft_prompts_are_seen(model, collection):
    """Against the full forward, run again for every token."""
    method = {"lora": lora(4, 8, "all"), "prompt": prompt(3)}[collection]
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    variables = method.bind(jax.tree.map(lambda leaf: leaf + 0.1, trainable), frozen)
    prompts = draw_prompts((7, 4), 101)
    forward = jax.jit(model.apply)
    for given, written in zip(
        prompts, generate(model, variables, prompts, max_new_tokens=6, return_tokens=True), strict=True
    ):
        assert written == full_forward(model, lambda batch: forward(variables, batch), given, 6)
    plain = generate(model, {"params": model.params}, prompts, max_new_tokens=6, return_tokens=True)
    assert plain != generate(model, variables, prompts, max_new_tokens=6, return_tokens=True)


def full_forward(model, forward, given, new, width=24):
    encoder_decoder = isinstance(model.architecture, T5)
    tokens = [0] if encoder_decoder else list(given)
    start = len(tokens)
    for _ in range(new):
        batch = padded(tokens, width) | ({f"encoder_{k}": v for k, v in padded(given, width).items()})
        tokens.append(int(forward(batch)[0, len(tokens) - 1].argmax()))
        if tokens[-1] in model.config.eos_token_ids:
            break
    return tokens[start:]


def padded(tokens, width):
    row = np.arange(width)[None]
    return {
        "tokens": np.pad(tokens, (0, width - len(tokens)))[None].astype(np.int32),
        "positions": row.astype(np.int32),
        "segments": (row < len(tokens)).astype(np.int32),
    }


def test_left_padding_equals_right_padding(llama):
    right = {k: v for k, v in make_batch(llama.config, rows=2, length=8).items() if k not in ("targets", "weights")}
    lengths = right["segments"].sum(axis=1)
    assert lengths.min() < 8
    left = {k: np.stack([np.roll(row, 8 - n) for row, n in zip(v, lengths, strict=True)]) for k, v in right.items()}

    @jax.jit
    def continued(batch, last):
        hidden, cache = llama.architecture.prefill({"params": llama.params}, batch, 2)
        first = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
        return first, llama.architecture.decode({"params": llama.params}, jnp.full((2, 1), 5), cache)[0]

    for a, b in zip(continued(left, np.array([7, 7])), continued(right, lengths - 1), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_row_ends_with_its_end_token(llama):
    variables, prompts = {"params": llama.params}, draw_prompts((6, 3), 101)
    free = generate(llama, variables, prompts, max_new_tokens=8, return_tokens=True)
    config = dataclasses.replace(llama.config, eos_token_ids=(free[0][2],))
    ending = dataclasses.replace(llama, architecture=dataclasses.replace(llama.architecture, config=config))
    rows = generate(ending, variables, prompts, max_new_tokens=8, return_tokens=True)
    assert rows[0] == free[0][: free[0].index(free[0][2]) + 1]
    assert rows[1] == (free[1][: free[1].index(free[0][2]) + 1] if free[0][2] in free[1] else free[1])


def test_sampling_is_a_function_of_key_and_index(llama):
    variables, prompts = {"params": llama.params}, draw_prompts((4, 30, 9, 2), 101)

    def sample(prompts, seed):
        settings = {"max_new_tokens": 10, "temperature": 1.5, "top_p": 0.9, "return_tokens": True}
        return generate(llama, variables, prompts, key=jax.random.key(seed), **settings)

    first = sample(prompts, 0)
    assert first == sample(prompts, 0)
    assert first != sample(prompts, 1)
    assert first[:3] == sample(prompts[:3], 0)
    twins = sample([prompts[0]] * 4, 0)
    assert twins[0] == first[0]
    assert len({tuple(row) for row in twins}) > 1


def test_one_candidate_is_greedy(llama):
    variables, prompts = {"params": llama.params}, draw_prompts((4, 9), 101)
    greedy = generate(llama, variables, prompts, max_new_tokens=8, return_tokens=True)
    settings = {"temperature": 2.0, "top_k": 1, "key": jax.random.key(0)}
    assert greedy == generate(llama, variables, prompts, max_new_tokens=8, return_tokens=True, **settings)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.7), Sampling(temperature=1.3, top_k=3, top_p=0.8)])
def test_draws_are_as_frequent_as_transformers_says(sampling):
    logits = np.random.default_rng(0).normal(0, 1.5, 7).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 20000)
    drawn = draw(sampling, jnp.tile(logits, (len(keys), 1)), keys)
    scores = torch.tensor(logits)[None] / sampling.temperature
    if sampling.top_k:
        scores = transformers.TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = transformers.TopPLogitsWarper(sampling.top_p)(None, scores)
    expected = torch.softmax(scores, dim=-1)[0].numpy()
    frequencies = np.bincount(drawn, minlength=7) / len(keys)
    assert np.array_equal(frequencies > 0, expected > 0)
    np.testing.assert_allclose(frequencies, expected, atol=0.015)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.99])
def test_the_nucleus_is_that_of_transformers(top_p):
    logits = np.random.default_rng(0).normal(0, 2, (4, 50)).astype(np.float32)
    kept = transformers.TopPLogitsWarper(top_p)(None, torch.tensor(logits)).numpy() > -np.inf
    keys = jax.random.split(jax.random.key(1), 4 * 3000).reshape(3000, 4)
    drawn = jax.vmap(lambda k: draw(Sampling(temperature=1.0, top_p=top_p), jnp.asarray(logits), k))(keys)
    seen = np.stack([np.bincount(column, minlength=50) > 0 for column in drawn.T])
    assert not (seen & ~kept).any()
    assert (seen == kept).mean() > 0.9


@pytest.mark.parametrize("ngram", [1, 2, 3])
def test_restraints_are_those_of_transformers(ngram):
    random = np.random.default_rng(ngram)
    tokens, lengths = random.integers(0, 5, (6, 12)), np.array([1, 2, 3, 7, 11, 12])
    logits = random.normal(size=(6, 9)).astype(np.float32)
    sampling = Sampling(repetition_penalty=1.4, no_repeat_ngram=ngram)
    ours = restrain(sampling, jnp.asarray(logits), History(jnp.asarray(tokens), jnp.asarray(lengths)))
    for row, length in enumerate(lengths):
        ids, scores = torch.tensor(tokens[row : row + 1, :length]), torch.tensor(logits[row : row + 1])
        scores = transformers.RepetitionPenaltyLogitsProcessor(1.4)(ids, scores)
        theirs = transformers.NoRepeatNGramLogitsProcessor(ngram)(ids, scores)
        np.testing.assert_allclose(ours[row], theirs[0], rtol=1e-6)


def test_few_compilations(llama):
    """Many lengths, many sets of prompts, two ceilings: one program per bucket."""
    variables = {"params": llama.params}
    before = run._cache_size()
    for seed in range(3):
        prompts = draw_prompts(np.random.default_rng(seed).integers(1, 60, 11).tolist(), 101, seed)
        generate(llama, variables, prompts, max_new_tokens=2 + seed, batch_size=4, return_tokens=True)
    assert run._cache_size() - before == 2  # 32 and 64
    assert [bucket(n) for n in (1, 32, 33, 64, 65)] == [32, 32, 64, 64, 128]


def arguments(model, rows=2, width=32, room=32, sampling=None, decoding=None):
    encoder_decoder = isinstance(model.architecture, T5)
    prefix = "encoder_" if encoder_decoder else ""
    batch = {f"{prefix}{name}": np.ones((rows, width), np.int32) for name in ("tokens", "positions", "segments")}
    if encoder_decoder:
        batch |= {name: np.ones((rows, 1), np.int32) for name in ("tokens", "positions", "segments")}
    variables = {"params": model.params}
    keys = jax.random.split(jax.random.key(0), rows)
    decoding = decoding or variables
    limit = np.int32(8)
    return (
        model.architecture,
        sampling or Sampling(),
        room,
        variables,
        decoding,
        batch,
        np.ones(rows, bool),
        limit,
        keys,
    )


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.5, top_p=0.9, no_repeat_ngram=3), Sampling(num_beams=2)])
def test_decoding_lowers_for_accelerators(model, sampling, platform):
    assert run.trace(*arguments(model, sampling=sampling)).lower(lowering_platforms=(platform,)).as_text()


def test_only_the_last_position_of_a_prompt_meets_the_head(llama):
    jaxpr = str(jax.make_jaxpr(run.__wrapped__, static_argnums=(0, 1, 2))(*arguments(llama)))
    vocabulary = llama.config.vocab_size
    assert f"f32[2,{vocabulary}]" in jaxpr
    assert not re.search(rf"f32\[2,(32|64),{vocabulary}\]", jaxpr)


def test_the_cache_is_written_in_place(llama):
    """No instruction of the loop's body copies an array of the cache's size."""
    decoding = decoding_variables(llama.architecture, {"params": llama.params})
    text = run.lower(*arguments(llama, decoding=decoding)).compile().as_text()
    (name,) = {name for name in re.findall(r"body=(%[\w.]+)", text) if "s32[2,64]" in body_of(text, name)}
    body = body_of(text, name)
    assert "f32[2,2,10,64]" in body  # keys
    assert "f32[2,2,64,10]" in body  # values
    assert not re.search(r"= f32\[(1,)?2,2,(64,10|10,64)\]\S* copy\(", body)


def body_of(text, name):
    return re.search(rf"^{re.escape(name)} .*?^}}", text, re.S | re.M).group(0)


def test_texts_in_and_out(llama):
    tokenizer = tiny_tokenizer()
    config = dataclasses.replace(llama.config, vocab_size=len(tokenizer), eos_token_ids=(tokenizer.eos_token_id,))
    architecture = dataclasses.replace(llama.architecture, config=config)
    model = dataclasses.replace(
        llama, architecture=architecture, params=architecture.init(jax.random.key(0)), tokenizer=tokenizer
    )
    texts = ["one two", "a much longer text of which there is more", "x"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    written = generate(model, {"params": model.params}, ids, max_new_tokens=6, return_tokens=True)
    assert generate(model, {"params": model.params}, texts, max_new_tokens=6) == [
        tokenizer.decode(row, skip_special_tokens=True) for row in written
    ]
    assert generate(model, {"params": model.params}, []) == []


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[5], []], {}, r"prompt 1: it is empty"),
        ([[5], [101]], {}, r"prompt 1: a token id is outside the vocabulary of 101"),
        ([[5], [5] * 2040], {}, r"prompt 1: 2040 tokens and 64 new ones exceed the model's context of 2048"),
        (["text"], {}, r"prompt 0: the model has no tokenizer"),
        ("text", {}, r"prompts: give a list of texts"),
        ([[5]], {"return_tokens": False}, r"no tokenizer"),
        ([[5]], {"temperature": 0.5}, r"key: drawing"),
        ([[5]], {"temperature": -1}, r"temperature: -1 is out of range"),
        ([[5]], {"top_p": 0.0}, r"top_p: 0.0 is out of range"),
        ([[5]], {"top_k": 5}, r"set a temperature"),
        ([[5]], {"num_beams": 0}, r"num_beams: 0 is out of range"),
        ([[5]], {"num_beams": 2, "temperature": 1.0}, r"beam search does not sample"),
        ([[5]], {"repetition_penalty": 0}, r"repetition_penalty: 0 is out of range"),
        ([[5]], {"no_repeat_ngram": -1}, r"no_repeat_ngram: -1 is out of range"),
        ([[5]], {"max_new_tokens": 0}, r"max_new_tokens: 0 is out of range"),
        ([[5]], {"batch_size": 0}, r"batch_size: 0 is out of range"),
    ],
)
def test_what_cannot_be_generated_is_said_before_any_compilation(llama, prompts, settings, message):
    before = run._cache_size()
    with pytest.raises(UsageError, match=message):
        generate(llama, {"params": llama.params}, prompts, **{"return_tokens": True} | settings)
    assert run._cache_size() == before


def test_a_soft_prompt_takes_room_in_the_context(llama):
    variables = {"params": llama.params, "prompt": {"embedding": jnp.zeros((20, llama.config.width))}}
    with pytest.raises(UsageError, match="2000 tokens behind a soft prompt of 20 and 32 new ones"):
        generate(llama, variables, [[5] * 2000], max_new_tokens=32, return_tokens=True)
