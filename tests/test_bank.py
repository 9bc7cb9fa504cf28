"""A bank's member ≡ that member alone, in the forward pass, in decoding and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import LLAMA, apply, assert_close, make_batch, make_model

from jaxft import methods
from jaxft.errors import UsageError
from jaxft.generation import generate, log_likelihood
from jaxft.generation.decode import run
from jaxft.methods.bank import bank, for_rows, put, stack
from jaxft.methods.bank import member as take
from jaxft.methods.peft import save_adapter
from jaxft.training.members import per_member
from jaxft.training.state import init_state
from jaxft.training.step import loss_step, train_step

# Two members of each kind, of unequal size where the kind has sizes.
PAIRS = {
    "selective": (methods.selective(["norms", "o"]),) * 2,
    "lora": (methods.lora(2, 4, "all"), methods.lora(4, 2, "all")),
    "dora": (methods.dora(2, 4), methods.dora(3, 4)),
    "pissa": (methods.pissa(2, 4), methods.pissa(3, 4)),
    "vera": (methods.vera(4), methods.vera(6)),
    "adapter": (methods.adapter(3), methods.adapter(5)),
    "prompt": (methods.prompt(2), methods.prompt(5)),
    "prefix": (methods.prefix(2, hidden=0), methods.prefix(5, hidden=0)),
    "prefix-network": (methods.prefix(2, hidden=3), methods.prefix(4, hidden=5)),
    "ia3": (methods.ia3(),) * 2,
    "union": tuple(methods.union(methods.lora(r, 4, "mlp"), methods.selective("norms")) for r in (2, 3)),
}


@pytest.fixture(params=list(PAIRS))
def pair(request):
    return PAIRS[request.param]


def started(method, model, seed):
    trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
    return jax.tree.map(lambda leaf: leaf + 0.03 * seed, trainable), frozen


def counting(batch, chosen):
    """The batch in which the chosen rows alone have targets: another batch to the loss, the same to the compiler."""
    return batch | {"weights": batch["weights"] * chosen[:, None].astype(np.float32)}


def test_each_row_is_what_its_member_alone_makes_of_it(pair, model):
    bound = [method.bind(*started(method, model, seed)) for seed, method in enumerate(pair, start=1)]
    batch, ids = make_batch(model.config, rows=4), np.array([1, 0, 1, 1])
    banked = stack(bound, capacity=3)
    real = batch["segments"][:, :, None]  # a padding query sees whatever padding there is

    def logits(variables):
        return apply(model, variables, batch) * real

    together = logits(for_rows(banked, ids))
    for member, variables in enumerate(bound):
        alone = logits(variables)
        assert_close(together[ids == member], alone[ids == member])
    assert np.abs(together[ids == 0] - alone[ids == 0]).max() > 1e-3


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("dora", "prefix-network", "union")]


@pytest.mark.parametrize("kind", ["selective", "lora", "prompt", *SLOW])
def test_each_member_trains_as_if_it_were_alone(kind, request):
    # T5 trains one kind, whose collection is its encoder's: what a bank does to a step does not depend on the model,
    # and T5's steps take twice as long to compile.
    pair = PAIRS[kind]
    model = request.getfixturevalue("flan_t5" if kind == "prompt" else "llama")
    batch, ids = make_batch(model.config, rows=4), np.array([1, 0, 1, 1], np.int32)
    # AdamW's default eps would blow up rounding where a gradient is nearly zero, as in flan_t5.
    optimizer = optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(1e-2, eps=1e-4, weight_decay=0.1))
    method = bank(*pair, pair[0])  # the third has no row: it must not move
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    trainable = jax.tree.map(lambda leaf: leaf + 0.03 * (leaf != 0), trainable)
    start = jax.tree.map(np.array, trainable)
    state = init_state(trainable, per_member(optimizer))
    step = train_step(model, method, per_member(optimizer))
    for i in range(2):
        together = {**batch, "adapter_ids": ids if i == 0 else np.array([1, 1, 1, 1], np.int32)}
        state, metrics = step(state, frozen, together, jax.random.key(0))
    assert metrics["finite"].all() and metrics["tokens"][0] == 0
    for member, own in enumerate(pair[: 1 if pair[0] is pair[1] else 2]):
        key = jax.random.split(jax.random.key(0), 3)[member]
        first, alone_frozen = own.init(key, {"params": model.params})
        alone = init_state(jax.tree.map(lambda leaf: leaf + 0.03 * (leaf != 0), first), optimizer)
        alone_step = train_step(model, own, optimizer)
        alone, _ = alone_step(alone, alone_frozen, counting(batch, ids == member), jax.random.key(0))
        if member == 1:
            alone, _ = alone_step(alone, alone_frozen, batch, jax.random.key(0))
        _, trained, _ = take((*pair, pair[0]), state.trainable, frozen, member)
        moved = jax.tree.map(lambda a, b: a - b, alone.trainable, first)
        assert_close(jax.tree.map(lambda a, b: a - b, trained, first), moved, tolerance=2e-3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2], b[2]), state.trainable, start)
    assert np.asarray(jax.tree.leaves(state.opt_state)[0]).tolist() == [1, 2, 0]  # AdamW's counts


def test_accumulation_and_evaluation_take_members_too(llama):
    batch = make_batch(llama.config, rows=4) | {"adapter_ids": np.array([1, 0, 1, 1], np.int32)}
    method, optimizer = bank(*PAIRS["lora"]), per_member(optax.sgd(0.1))
    results = []
    for accumulate in (1, 2):
        trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
        state = init_state(trainable, optimizer)
        state, metrics = train_step(llama, method, optimizer, accumulate=accumulate)(
            state, frozen, batch, jax.random.key(0)
        )
        results.append((state.trainable, metrics["grad_norm"]))
    assert_close(*results)
    total, weights = loss_step(llama, method)(results[0][0], frozen, batch)
    assert np.isfinite(total) and weights == batch["weights"].sum()


def test_a_member_that_diverges_disturbs_no_other(llama):
    batch = make_batch(llama.config, rows=4) | {"adapter_ids": np.array([1, 0, 1, 1], np.int32)}
    method, optimizer = bank(*PAIRS["lora"]), per_member(optax.adamw(1e-2))
    trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), trainable)
    step = train_step(llama, method, optimizer)
    sound, metrics = step(init_state(trainable, optimizer), frozen, batch, jax.random.key(0))
    other, broken_metrics = step(init_state(broken, optimizer), frozen, batch, jax.random.key(0))
    assert metrics["finite"].tolist() == [True, True] and broken_metrics["finite"].tolist() == [False, True]
    assert_close(
        jax.tree.map(lambda leaf: leaf[1], other.trainable), jax.tree.map(lambda leaf: leaf[1], sound.trainable)
    )


@pytest.mark.parametrize("kind", ["lora", "prompt", "prefix", "selective"])
@pytest.mark.parametrize("num_beams", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_decoding_mixes_members(kind, num_beams, model):
    bound = [method.bind(*started(method, model, seed)) for seed, method in enumerate(PAIRS[kind], start=1)]
    prompts, ids = [[5, 6, 7], [8, 9, 10, 11], [5, 6, 7]], [0, 1, 1]
    settings = {"max_new_tokens": 6, "num_beams": num_beams, "return_tokens": True}
    together = generate(model, stack(bound), prompts, adapter_ids=ids, **settings)
    alone = [generate(model, variables, prompts, **settings) for variables in bound]
    assert together == [alone[member][i] for i, member in enumerate(ids)]
    assert alone[0][0] != alone[1][2]


def test_likelihoods_mix_members(model):
    bound = [method.bind(*started(method, model, seed)) for seed, method in enumerate(PAIRS["prompt"], start=1)]
    prompts, completions, ids = [[5, 6, 7], [8, 9]], [[9, 4], [7]], [1, 0]
    together, _ = log_likelihood(model, stack(bound), prompts, completions, adapter_ids=ids)
    for i, member in enumerate(ids):
        alone, _ = log_likelihood(model, bound[member], prompts, completions)
        np.testing.assert_allclose(together[i], alone[i], rtol=1e-5)


def test_a_new_member_compiles_nothing(llama):
    bound = [method.bind(*started(method, llama, seed)) for seed, method in enumerate(PAIRS["prompt"], start=1)]
    variables = stack(bound, capacity=4)
    settings = {"max_new_tokens": 4, "return_tokens": True}
    generate(llama, variables, [[5, 6, 7]], adapter_ids=[0], **settings)
    compiled = run._cache_size()
    third = methods.prompt(4)
    new = third.bind(*started(third, llama, 7))
    swapped = put(variables, 2, new)
    assert generate(llama, swapped, [[5, 6, 7]], adapter_ids=[2], **settings) == generate(
        llama, new, [[5, 6, 7]], **settings
    )
    assert run._cache_size() <= compiled + 1  # the member alone, of another structure
    assert generate(llama, swapped, [[5, 6, 7]], adapter_ids=[1], **settings) == generate(
        llama, bound[1], [[5, 6, 7]], **settings
    )


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_shorter_member_may_be_put_among_equals(kind, llama):
    short, long = PAIRS[kind]
    first, new = long.bind(*started(long, llama, 1)), short.bind(*started(short, llama, 2))
    batch = make_batch(llama.config)
    swapped = for_rows(put(stack([first, first]), 1, new), np.full(4, 1))
    real = batch["segments"][:, :, None]
    assert_close(apply(llama, swapped, batch) * real, apply(llama, new, batch) * real)


def test_a_trained_bank_comes_apart_into_its_members(llama, tmp_path):
    pair = PAIRS["pissa"]
    method = methods.from_config(bank(*pair).config)
    trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
    batch, together = make_batch(llama.config), method.bind(trainable, frozen)
    for number in range(2):
        own, tree, variables = take(pair, trainable, frozen, number)
        save_adapter(tmp_path / str(number), own, tree, variables, llama)
        assert_close(
            apply(llama, for_rows(together, np.full(4, number)), batch), apply(llama, own.bind(tree, variables), batch)
        )
    with pytest.raises(UsageError, match="member by member"):
        save_adapter(tmp_path / "bank", method, trainable, frozen, llama)


def test_what_does_not_fit_is_refused(llama):
    lora, prompt = ([m.bind(*started(m, llama, 1)) for m in PAIRS[kind]] for kind in ("lora", "prompt"))
    with pytest.raises(UsageError, match="not all members have"):
        stack([lora[0], prompt[0]])
    with pytest.raises(UsageError, match="exceed the capacity of 1"):
        stack(lora, capacity=1)
    with pytest.raises(UsageError, match=r"does not fit into .*; stack it anew"):
        put(stack(lora[:1]), 0, lora[1])
    other = methods.lora(2, 4, "all").bind(*started(PAIRS["lora"][0], make_model(LLAMA), 1))
    with pytest.raises(UsageError, match="bound to another base"):
        put(stack(lora), 0, other)
    with pytest.raises(UsageError, match="member 2 is outside the bank of 2"):
        put(stack(lora), 2, lora[0])
    with pytest.raises(UsageError, match="2 is outside the bank of 2 members"):
        generate(llama, stack(lora), [[5]], adapter_ids=[2], return_tokens=True)
    with pytest.raises(UsageError, match="where, and only where"):
        generate(llama, lora[0], [[5]], adapter_ids=[0], return_tokens=True)
    with pytest.raises(UsageError, match="where, and only where"):
        generate(llama, stack(lora), [[5]], return_tokens=True)
    with pytest.raises(UsageError, match="full tuning changes the base"):
        bank(methods.full(), methods.full())
    embeddings = methods.selective("embeddings")
    with pytest.raises(UsageError, match="too large for every example"):
        stack([embeddings.bind(*started(embeddings, llama, seed)) for seed in (1, 2)])
    with pytest.raises(UsageError, match="per_member"):
        train_step(llama, bank(*PAIRS["lora"]), optax.sgd(0.1))
    method, optimizer = bank(*PAIRS["lora"]), per_member(optax.sgd(0.1))
    trainable, frozen = method.init(jax.random.key(0), {"params": llama.params})
    with pytest.raises(UsageError, match="one whole number for each of the 4 rows"):
        train_step(llama, method, optimizer)(
            init_state(trainable, optimizer), frozen, make_batch(llama.config), jax.random.key(0)
        )
