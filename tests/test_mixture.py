"""Mixtures: shares to rounding, decks that are dealt on from epoch to epoch, and nothing but (seed, epoch) in them."""

import collections

import numpy as np
import pytest

from jaxft.data.mixture import Mixture
from jaxft.errors import UsageError

COUNTS = {"tiny": 5, "small": 40, "large": 9000, "huge": 50_000}
GIVEN = {"tiny": 1, "small": 2.5, "large": 0, "huge": 4}


def shares(mixture, epoch=0):
    bounds = np.cumsum(list(mixture.counts.values()))
    drawn = np.searchsorted(bounds, mixture.draw(epoch), side="right")
    return {name: int((drawn == i).sum()) for i, name in enumerate(mixture.counts)}


def test_proportional_is_capped_as_in_flan():
    mixture = Mixture(COUNTS)
    assert shares(mixture) == mixture.quotas == {"tiny": 5, "small": 40, "large": 3000, "huge": 3000}
    assert Mixture(COUNTS, cap=None).quotas == COUNTS


@pytest.mark.parametrize(
    ("rates", "weight"),
    [
        ("proportional", lambda n, name: min(n, 3000)),
        ("temperature", lambda n, name: min(n, 3000) ** 0.25),
        ("equal", lambda n, name: 1),
        (GIVEN, lambda n, name: GIVEN[name]),
    ],
)
@pytest.mark.parametrize("size", [None, 101, 100_000])
def test_shares_are_exact_to_rounding_in_every_epoch(rates, weight, size):
    mixture = Mixture(COUNTS, rates, temperature=4.0, size=size)
    weights = {name: weight(count, name) for name, count in COUNTS.items()}
    whole = sum(weights.values())
    for epoch in (0, 1, 7):
        found = shares(mixture, epoch)
        assert sum(found.values()) == mixture.size and found == mixture.quotas
        wanted = {name: weights[name] / whole * mixture.size for name in COUNTS}
        tiny = [name for name in COUNTS if 0 < wanted[name] < 1]  # they get one each, at the cost of the others
        assert all(found[name] == 1 for name in tiny)
        assert all(abs(found[name] - wanted[name]) < 1 + len(tiny) for name in COUNTS)
    assert size is not None or mixture.size == sum(min(n, 3000) for name, n in COUNTS.items() if weights[name])


def test_factors_multiply_the_rates_of_any_scheme():
    mixture = Mixture({"a": 100, "b": 100, "c": 100}, factors={"b": 3, "c": 0})
    assert mixture.rates == {"a": 0.25, "b": 0.75, "c": 0} and mixture.quotas == {"a": 50, "b": 150, "c": 0}


def test_many_small_tasks_get_one_example_each():
    counts = {f"t{i}": 1 for i in range(20)} | {"big": 10_000}
    quotas = Mixture(counts, cap=None, size=30).quotas
    assert sum(quotas.values()) == 30 and all(quotas[f"t{i}"] == 1 for i in range(20)) and quotas["big"] == 10


@pytest.mark.parametrize(("count", "quota"), [(7, 3), (7, 7), (3, 10), (12, 4), (1, 2), (1000, 37)])
def test_every_example_is_seen_before_one_is_seen_twice(count, quota):
    mixture = Mixture({"other": 5, "task": count}, {"other": 0, "task": 1}, size=quota, seed=3)
    dealt = np.concatenate([mixture.draw(epoch) for epoch in range(3 * count // quota + 3)]) - 5
    for start in range(0, len(dealt) - count + 1, count):
        assert sorted(dealt[start : start + count]) == list(range(count))
    decks = {tuple(dealt[start : start + count]) for start in range(0, len(dealt) - count + 1, count)}
    assert len(decks) > 1 or count == 1


def test_an_epoch_needs_no_replay_of_those_before_it():
    forward = Mixture(COUNTS, seed=4)
    drawn = [forward.draw(epoch) for epoch in range(6)]
    for epoch in (5, 0, 3):
        assert np.array_equal(Mixture(COUNTS, seed=4).draw(epoch), drawn[epoch])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], Mixture(COUNTS, seed=5).draw(0))


def test_a_task_is_dealt_in_the_same_order_whatever_stands_beside_it():
    alone = Mixture({"large": 9000}).draw(2)
    beside = Mixture(COUNTS).draw(2)
    assert np.array_equal(alone, beside[(beside >= 45) & (beside < 9045)] - 45)
    twins = Mixture({"a": 50, "b": 50}).draw(0)
    assert not np.array_equal(twins[:50], twins[50:] - 50)


def test_the_draw_is_the_same_on_every_machine():
    mixture = Mixture({"a": 6, "b": 3}, "equal", size=8, seed=7)
    assert [mixture.draw(epoch).tolist() for epoch in range(2)] == [[5, 4, 2, 1, 6, 8, 7, 8], [3, 0, 0, 5, 6, 7, 8, 6]]


def test_counts_add_up_over_epochs():
    mixture = Mixture({"a": 100, "b": 30}, "equal", size=50)
    seen = collections.Counter(np.concatenate([mixture.draw(epoch) for epoch in range(12)]).tolist())
    assert {seen[i] for i in range(100)} == {3} and {seen[i] for i in range(100, 130)} == {10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": {"a": -1, "b": 2}}, "the weight of 'a' is -1; use a number of at least 0"),
        ({"rates": {"a": 0, "b": 0.0}}, "all weights are zero"),
        ({"rates": {"a": float("nan"), "b": 1}}, "the weight of 'a' is nan"),
        ({"rates": {"a": "much", "b": 1}}, "the weight of 'a' is 'much'"),
        ({"rates": {"a": 1}}, "the task 'b' has no weight"),
        ({"rates": {"a": 1, "b": 1, "bb": 1}}, "a weight for the unknown task 'bb'; did you mean 'b'"),
        ({"rates": "proportionl"}, "unknown scheme 'proportionl'; did you mean 'proportional'"),
        ({"factors": {"c": 1}}, "a factor for the unknown task 'c'"),
        ({"factors": {"a": 0, "b": 0}}, "all weights are zero"),
        ({"cap": 0}, "a cap of 0"),
        ({"temperature": 0.0}, "the temperature is 0.0"),
        ({"size": 1}, "an epoch of 1 examples has no room for 2 tasks"),
        ({"counts": {"a": 3, "b": 0}}, "the task 'b' has no examples"),
        ({"counts": {}}, "there are no tasks"),
    ],
)
def test_what_is_no_mixture_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Mixture(**{"counts": {"a": 10, "b": 20}} | options)
