"""Packing changes the shape of batches and nothing else: packed ≡ separate, every example once, no replay."""

import concurrent.futures
import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import CONFIGS, assert_close, make_model

from jaxft.data.batches import Batches, collate, collate_rows, example_lengths
from jaxft.data.encoding import Encoded
from jaxft.data.mixture import Mixture
from jaxft.data.packing import first_fit, packed_shape
from jaxft.data.prefetching import prefetch
from jaxft.errors import UsageError
from jaxft.methods import full, lora, prefix
from jaxft.models.decoder import FULL, LOCAL
from jaxft.training.loss import token_loss
from jaxft.training.optimizer import OptimizerConfig, make_optimizer
from jaxft.training.sharding import make_mesh, shard_batch
from jaxft.training.state import init_state
from jaxft.training.step import loss_step, train_step

KINDS = [{}, {"decoder_start_token_id": 0}]


def made(count, seed=0, longest=60, vocabulary=None, tasks=("",)):
    """Examples of random lengths; each token names its example, or is drawn from a vocabulary."""
    random = np.random.default_rng(seed)
    examples = []
    for i, sizes in enumerate(random.integers(1, longest, (count, 2))):
        ids = [
            np.full(size, 2 * i + side + 1) if vocabulary is None else random.integers(3, vocabulary, size)
            for side, size in enumerate(sizes)
        ]
        task = tasks[i * len(tasks) // count]
        examples.append(Encoded(f"e{i}", *(one.astype(np.int32) for one in ids), task=task))
    return examples


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("open_rows", [1, 4, 64])
def test_first_fit_puts_every_example_into_one_row_that_has_room(columns, open_rows):
    lengths = np.random.default_rng(1).integers(0, 101, (500, columns))
    shape = (100,) * columns
    rows = first_fit(lengths, shape, open_rows)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert all((lengths[row].sum(axis=0) <= shape).all() for row in rows)
    assert all(row == sorted(row) for row in rows)
    wasted = 1 - lengths.sum(axis=0).max() / (100 * len(rows))
    assert wasted < {1: 0.5, 4: 0.3, 64: 0.2}[open_rows]


def test_what_fits_into_no_row_is_refused():
    with pytest.raises(ValueError, match=r"an example of \[101, 5\] tokens is longer than a row of \[100, 100\]"):
        first_fit(np.array([[1, 1], [101, 5]]), (100, 100))


def test_rows_are_as_long_as_the_longest_example_or_as_asked():
    lengths = np.array([[60, 20], [100, 10]])
    assert packed_shape(lengths[:, :1]) == (128,) and packed_shape(lengths[:, :1], 1000) == (1024,)
    assert packed_shape(lengths, 640) == (640, 160)  # 30 of 160 tokens are the decoder's, and a tenth more


def test_a_packed_decoder_row_restarts_positions_and_learns_nothing_across():
    first = Encoded("a", np.array([1, 11], np.int32), np.array([21, 22, 2], np.int32))
    second = Encoded("b", np.array([1, 12, 13], np.int32), np.array([23, 2], np.int32))
    batch = collate_rows([[first, second], []], (10,), pad_token_id=9)
    assert batch["tokens"][0].tolist() == [1, 11, 21, 22, 1, 12, 13, 23, 9, 9]
    assert batch["targets"][0].tolist() == [11, 21, 22, 2, 12, 13, 23, 2, 9, 9]
    assert batch["weights"][0].tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert batch["positions"][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
    assert batch["segments"].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 0, 0], [0] * 10]


def test_segments_of_both_sides_of_an_encoder_decoder_have_the_same_numbers():
    first = Encoded("a", np.array([11, 1], np.int32), np.array([21, 22, 1], np.int32), task="y")
    second = Encoded("b", np.array([12, 13, 1], np.int32), np.array([23, 1], np.int32), task="x")
    batch = collate_rows([[first, second]], (6, 6), decoder_start_token_id=7, tasks=("x", "y"))
    assert batch["encoder_tokens"].tolist() == [[11, 1, 12, 13, 1, 0]]
    assert batch["encoder_segments"].tolist() == [[1, 1, 2, 2, 2, 0]]
    assert batch["encoder_positions"].tolist() == [[0, 1, 0, 1, 2, 0]]
    assert batch["tokens"].tolist() == [[7, 21, 22, 7, 23, 0]] and batch["targets"].tolist() == [[21, 22, 1, 23, 1, 0]]
    assert batch["segments"].tolist() == [[1, 1, 1, 2, 2, 0]] and batch["weights"].tolist() == [[1, 1, 1, 1, 1, 0]]
    assert batch["tasks"].tolist() == [[1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_conversation_only_what_counts_is_learnt(kind):
    counted = np.array([True, False, True, True])
    example = Encoded("a", np.array([1, 2], np.int32), np.array([5, 6, 7, 8], np.int32), counted=counted)
    batch = collate([example], 1, (8, 8)[: 1 + bool(kind)], **kind)
    assert batch["targets"][batch["weights"] > 0].tolist() == [5, 7, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("count", "size"), [(1, 4), (90, 8), (301, 7)])
def test_packed_every_example_is_seen_exactly_once_an_epoch(count, size, shuffle, kind):
    batches = Batches(made(count), size, shuffle=shuffle, packing=True, multiple=8, **kind)
    for epoch in range(3):
        steps = range(batches.steps(epoch), batches.steps(epoch + 1))
        assert sorted(name for step in steps for name in batches.ids(step)) == sorted(f"e{i}" for i in range(count))
        targets = np.concatenate([b["targets"][b["weights"] > 0] for b in map(batches.batch, steps)])
        assert sorted(targets) == sorted(np.concatenate([e.completion for e in batches.examples]))
        assert {b["tokens"].shape for b in map(batches.batch, steps)} == {(size, batches.shapes[0][-1])}
    assert np.array_equal(np.sort(batches.seen(batches.steps(2))), np.repeat(np.arange(count), 2))
    if count > 1:
        assert batches.steps_per_epoch < Batches(made(count), size, **kind).steps_per_epoch
        assert batches.padding() < Batches(made(count), size, num_buckets=1, multiple=8, **kind).padding()


def test_a_packed_batch_is_a_function_of_seed_and_step():
    one, other = (Batches(made(150), 4, seed=3, packing=True) for _ in range(2))
    steps = range(one.steps(5))
    forward = [one.batch(step) for step in steps]
    for step in reversed(steps):
        again = other.batch(step)
        assert all(np.array_equal(forward[step][name], again[name]) for name in again)
    assert len({one.steps(epoch + 1) - one.steps(epoch) for epoch in range(5)}) > 1, "epochs are meant to differ"
    assert one.steps(1.5) == one.steps(1) + -(-(one.steps(2) - one.steps(1)) // 2)


def test_the_plan_hash_tells_packing_and_the_mixture():
    examples = made(60, tasks=("a", "b"))
    mixture, other = (Mixture({"a": 30, "b": 30}, "equal", size=size) for size in (40, 42))
    options = [{}, {"packing": True}, {"mixture": mixture}, {"mixture": other}, {"mixture": mixture, "packing": True}]
    assert len({Batches(examples, 4, **one).plan_hash() for one in options}) == len(options)
    with pytest.raises(UsageError, match="it is of 60 examples, there are 59"):
        Batches(examples[1:], 4, mixture=mixture)


@pytest.mark.parametrize("packing", [False, True])
def test_an_epoch_of_a_mixture_is_what_it_draws(packing):
    mixture = Mixture({"a": 45, "b": 45}, {"a": 1, "b": 3}, size=40)
    batches = Batches(made(90, tasks=("a", "b")), 8, mixture=mixture, packing=packing, tasks=("a", "b"))
    for epoch in range(3):
        seen = [i for step in range(batches.steps(epoch), batches.steps(epoch + 1)) for i in batches.rows(step)]
        assert sorted(seen) == sorted(mixture.draw(epoch)) and seen != mixture.draw(epoch).tolist()
    batch = batches.batch(0)
    assert set(batch["tasks"][batch["weights"] > 0]) == {0, 1}


# The first 1,000 batches.


def hashes(steps=range(1000), take=lambda batches, steps: map(batches.batch, steps)):
    batches = mixed()
    return [digest(batch) for batch in take(batches, steps)]


def mixed():
    mixture = Mixture({"a": 200, "b": 40, "c": 10}, "temperature", cap=100, seed=5)
    return Batches(made(250, longest=30, tasks=tuple("aaaaaaaaaaaaaaaaaaaabbbbc")), 8, seed=5, mixture=mixture,
                   packing=True, tasks=("a", "b", "c"))  # fmt: skip


def digest(batch):
    found = hashlib.sha256()
    for name in sorted(batch):
        found.update(name.encode() + np.asarray(batch[name]).tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def first_thousand():
    return hashes()


def test_the_first_thousand_batches_are_equal_in_another_process(first_thousand):
    code = "import test_packing; print(' '.join(test_packing.hashes()))"
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == first_thousand and len(set(first_thousand)) > 900


def test_and_after_a_restart_at_any_step(first_thousand):
    for start in (999, 412):
        assert hashes(range(start, 1000)) == first_thousand[start:]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_and_with_any_number_of_workers(first_thousand, workers):
    def prefetched(batches, steps):
        return (batch for _, batch in prefetch(batches, 0, len(steps), depth=workers))

    def pooled(batches, steps):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            return list(pool.map(batches.batch, reversed(steps)))[::-1]

    assert hashes(take=prefetched) == first_thousand
    assert hashes(range(300), pooled) == first_thousand[:300]


def test_and_on_any_number_of_devices(first_thousand):
    for devices in (1, 2, 4, 8):
        mesh = make_mesh(devices, 1)
        placed = hashes(
            range(100), lambda batches, steps, mesh=mesh: (shard_batch(batches.batch(n), mesh) for n in steps)
        )
        assert placed == first_thousand[:100]


# Packed ≡ separate.

LLAMA = CONFIGS["llama"]
MODELS = {
    "llama": LLAMA,
    "window": dataclasses.replace(LLAMA, layer_kinds=(LOCAL, FULL, LOCAL), window=6, local_theta=100.0),
    "learned positions": dataclasses.replace(LLAMA, rope_theta=None, norm="layer", max_length=64, gated=False),
    "flan-t5": CONFIGS["flan-t5"],
}


def packed_and_separate(config, count=9):
    """The same examples packed and a row each; only some of the first one's completion counts."""
    kind = {"decoder_start_token_id": 0} if "t5" in config.family else {}
    examples = made(count, seed=2, longest=14, vocabulary=config.vocab_size, tasks=("x", "y", "z"))
    some = np.arange(len(examples[0].completion)) % 2 == 0
    examples[0] = dataclasses.replace(examples[0], counted=some)
    packed = Batches(examples, 4, packing=True, row_length=64, multiple=16, tasks=("x", "y", "z"), **kind)
    assert packed.steps_per_epoch == 1 and packed.batch(0)["segments"].max() > 2
    shape = example_lengths(examples, bool(kind)).max(axis=0)
    return packed.batch(0), collate(examples, count, shape, tasks=("x", "y", "z"), **kind)


@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_separate_in_loss_and_gradient(name):
    model = make_model(MODELS[name])
    loss = token_loss()

    @jax.jit
    def compute(params, batch):
        return jax.value_and_grad(lambda p: loss(model.architecture, {"params": p}, batch), has_aux=True)(params)

    packed, separate = packed_and_separate(MODELS[name])
    (expected, tokens), gradient = compute(model.params, separate)
    (total, count), found = compute(model.params, packed)
    assert count == tokens > 20
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert_close(found, gradient)
    # It is the segments that part them, and the positions that start anew.
    names = [name for name in packed if name.endswith("segments")]
    (joined, _), _ = compute(model.params, packed | {name: np.minimum(packed[name], 1) for name in names})
    assert abs(joined - expected) > 1e-3 * expected
    if name == "learned positions":  # rotary positions differ alike, wherever they start
        places = np.tile(np.arange(packed["tokens"].shape[1], dtype=np.int32), (4, 1))
        assert abs(compute(model.params, packed | {"positions": places})[0][0] - expected) > 1e-3 * expected


def test_a_prefix_stands_before_every_example_of_a_row(llama):
    method = prefix(length=3, hidden=0)
    trainable, frozen = method.init(jax.random.key(1), {"params": llama.params})
    trainable = jax.tree.map(lambda leaf: leaf * 30, trainable)
    loss = token_loss()

    @jax.jit
    def compute(trainable, batch):
        return jax.value_and_grad(lambda t: loss(llama.architecture, method.bind(t, frozen), batch)[0])(trainable)

    packed, separate = packed_and_separate(LLAMA)
    assert_close(compute(trainable, packed), compute(trainable, separate))


@pytest.mark.parametrize(("method", "accumulate"), [(full(), 1), (lora(rank=2, targets=["q", "v"]), 2)])
def test_a_step_tells_the_losses_of_tasks_and_trains_alike(llama, method, accumulate):
    batch = packed_and_separate(LLAMA)[0]
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), 10)
    results = []
    for tasks in (0, 3):
        trainable, frozen = method.init(jax.random.key(1), {"params": jax.tree.map(np.array, llama.params)})
        step = train_step(llama, method, optimizer, accumulate=accumulate, tasks=tasks)
        given = batch if tasks else {name: array for name, array in batch.items() if name != "tasks"}
        results.append(step(init_state(trainable, optimizer), frozen, given, jax.random.key(0)))
    (plain, without), (told, found) = results
    assert set(found) - set(without) == {"task_loss", "task_tokens"}
    assert_close(told.trainable, plain.trainable)
    np.testing.assert_allclose(found["task_loss"].sum(), without["loss"] * without["tokens"], rtol=1e-5)
    loss = loss_step(llama, full())
    for task in range(3):
        own = batch | {"weights": batch["weights"] * (batch["tasks"] == task)}
        total, tokens = loss(llama.params, {}, own)
        np.testing.assert_allclose(found["task_loss"][task], total, rtol=1e-5)
        assert found["task_tokens"][task] == tokens > 0
