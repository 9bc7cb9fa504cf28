"""Law 5 (a batch is a function of seed and step), law 8 (few shapes), and that every example is seen once an epoch."""

import numpy as np
import pytest
from tiny_tokenizer import tiny_tokenizer

from jaxft.data.batches import Batches, collate, evaluation_batches
from jaxft.data.encoding import Encoded, encode
from jaxft.data.templates import Format
from jaxft.errors import Error, UsageError


def made(count, seed=0, longest=120):
    """Examples whose every token names its example, so that nothing can be mixed up unseen."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, longest, (count, 2))
    return [
        Encoded(f"e{i}", np.full(p, 2 * i + 1, np.int32), np.full(c, 2 * i + 2, np.int32))
        for i, (p, c) in enumerate(sizes)
    ]


KINDS = [{}, {"decoder_start_token_id": 0}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("count", "size"), [(1, 4), (7, 8), (64, 8), (65, 8), (101, 7), (5, 1)])
def test_every_example_is_seen_exactly_once_an_epoch(count, size, shuffle, kind):
    batches = Batches(made(count), size, shuffle=shuffle, multiple=16, **kind)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        assert sorted(name for step in steps for name in batches.ids(step)) == sorted(f"e{i}" for i in range(count))
        targets = np.concatenate([b["targets"][b["weights"] > 0] for b in map(batches.batch, steps)])
        expected = np.concatenate([e.completion for e in batches.examples])
        assert sorted(targets) == sorted(expected)
    assert batches.steps_per_epoch == -(-count // size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_buckets", [1, 2, 4])
def test_there_are_no_more_shapes_than_buckets(num_buckets, kind):
    batches = Batches(made(203), 8, num_buckets=num_buckets, **kind)
    shapes = {tuple(sorted((k, v.shape) for k, v in batches.batch(step).items())) for step in range(60)}
    assert 1 <= len(shapes) <= num_buckets
    assert {batches.shape(step) for step in range(60)} <= set(batches.shapes)


def test_a_batch_is_a_function_of_seed_and_step():
    examples = made(50)
    one, other = Batches(examples, 8, seed=3), Batches(examples, 8, seed=3)
    forward = [one.batch(step) for step in range(20)]
    for step in reversed(range(20)):
        again = other.batch(step)
        assert all(np.array_equal(forward[step][name], again[name]) for name in again)


def test_seeds_and_epochs_give_other_plans():
    plans = [Batches(made(50), 8, seed=s).plan(e) for s, e in ((0, 0), (1, 0), (0, 1))]
    assert all(not np.array_equal(x, y) for i, x in enumerate(plans) for y in plans[:i])


def test_the_plan_is_the_same_on_every_machine():
    plan = Batches(made(11), 4, seed=7, num_buckets=1).plan(1)
    assert plan.tolist() == [[0, 7, 10, -1], [3, 9, 1, 6], [2, 5, 4, 8]]


def test_only_one_batch_has_padding_rows():
    batches = Batches(made(101), 8)
    empty = [int((batches.batch(step)["segments"].sum(axis=1) == 0).sum()) for step in range(batches.steps_per_epoch)]
    assert sorted(empty)[-2:] == [0, 3]


def test_leftovers_move_up_by_one_bucket_at_most_a_batch():
    batches = Batches(made(400), 8, num_buckets=4, multiple=8)
    own = batches._buckets
    moved = sum(own[row] < own[batches.rows(step)].max() for step in range(50) for row in batches.rows(step))
    assert 0 < moved < 8 * len(batches.shapes)


def test_the_order_of_buckets_is_shuffled():
    batches = Batches(made(400), 8, num_buckets=2)
    sizes = [batches.shape(step) for step in range(50)]
    assert sizes not in (sorted(sizes), sorted(sizes, reverse=True))


def test_the_plan_hash_tells_any_change_of_data_or_plan():
    examples = made(20)

    def digest(examples=examples, epoch=0, size=4, **options):
        return Batches(examples, size, **options).plan_hash(epoch)

    changed = [*examples[:-1], Encoded("e19", examples[19].prompt + 1, examples[19].completion)]
    moved = [*examples[:-1], Encoded("e19", examples[19].prompt[:-1],
                                     np.concatenate([examples[19].prompt[-1:], examples[19].completion]))]  # fmt: skip
    hashes = [
        digest(),
        digest(changed),
        digest(moved),
        digest(examples[:-1]),
        digest(epoch=1),
        digest(seed=1),
        digest(size=5),
    ]
    assert len(set(hashes)) == len(hashes) and digest() == digest(made(20))


def test_evaluation_keeps_the_order_and_pads_the_tail():
    batches = evaluation_batches(made(10), 4)
    assert [name for step in range(3) for name in batches.ids(step)] == [f"e{i}" for i in range(10)]
    last = batches.batch(2)
    assert (last["segments"][2:] == 0).all() and (last["weights"][2:] == 0).all() and last["tokens"].shape[0] == 4


def test_a_decoder_batch_is_shifted_masked_and_padded_on_the_right():
    example = Encoded("a", np.array([1, 11, 12], np.int32), np.array([21, 22, 2], np.int32))
    batch = collate([example], 2, (8,), pad_token_id=9)
    assert batch["tokens"].tolist() == [[1, 11, 12, 21, 22, 9, 9, 9], [9] * 8]
    assert batch["targets"].tolist() == [[11, 12, 21, 22, 2, 9, 9, 9], [9] * 8]
    assert batch["weights"].tolist() == [[0, 0, 1, 1, 1, 0, 0, 0], [0] * 8]
    assert batch["positions"].tolist() == [[0, 1, 2, 3, 4, 0, 0, 0], [0] * 8]
    assert batch["segments"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [0] * 8]
    assert {name for name, array in batch.items() if array.dtype == np.int32} == set(batch) - {"weights"}
    assert batch["weights"].dtype == np.float32


def test_an_encoder_decoder_batch_starts_with_the_start_token_and_learns_every_target():
    example = Encoded("a", np.array([11, 12, 1], np.int32), np.array([21, 22, 1], np.int32))
    batch = collate([example], 1, (5, 4), decoder_start_token_id=7)
    assert batch["encoder_tokens"].tolist() == [[11, 12, 1, 0, 0]]
    assert batch["encoder_positions"].tolist() == [[0, 1, 2, 0, 0]]
    assert batch["encoder_segments"].tolist() == [[1, 1, 1, 0, 0]]
    assert batch["tokens"].tolist() == [[7, 21, 22, 0]] and batch["targets"].tolist() == [[21, 22, 1, 0]]
    assert batch["weights"].tolist() == [[1, 1, 1, 0]] and batch["segments"].tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_decodes_to_the_completions(kind):
    tokenizer = tiny_tokenizer("bos")
    rows = [{"q": "ab" * i, "a": f"answer {i} é"} for i in range(1, 12)]
    examples, _ = encode(rows, Format("q", "a"), tokenizer, max_length=100, encoder_decoder=bool(kind))
    batches = Batches(examples, 4, pad_token_id=tokenizer.pad_token_id, **kind)
    learnt = [
        tokenizer.decode(targets[weights > 0])
        for b in map(batches.batch, range(3))
        for targets, weights in zip(b["targets"], b["weights"], strict=True)
    ]
    assert sorted(text for text in learnt if text) == sorted(row["a"] + "</s>" for row in rows)


def test_a_batch_without_a_target_token_is_an_error_that_names_the_examples():
    nothing = Encoded("blank", np.array([1, 2], np.int32), np.zeros(0, np.int32))
    with pytest.raises(Error, match="the batch of step 0 has no target token; its examples: blank"):
        Batches([nothing], 2).batch(0)


def test_what_makes_no_batches_is_refused():
    with pytest.raises(UsageError, match="no examples"):
        Batches([], 2)
    for options in ({"batch_size": 0}, {"batch_size": 1, "num_buckets": 0}, {"batch_size": 1, "multiple": 0}):
        with pytest.raises(UsageError, match="use at least 1"):
            Batches(made(2), **options)


def test_given_shapes_are_used():
    assert Batches(made(9), 4, shapes=[(256,), (512,)]).batch(0)["tokens"].shape == (4, 256)
