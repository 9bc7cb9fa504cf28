"""A permutation is a function of its arguments, for ever; seeds, epochs and streams give different ones."""

import numpy as np

from jaxft.data.shuffling import permutation


def test_it_is_a_permutation_that_never_changes():
    assert sorted(permutation(3, 1000)) == list(range(1000))
    assert permutation(0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert permutation(1, 6, epoch=2, stream=1).tolist() == [4, 5, 1, 0, 2, 3]


def test_seed_epoch_and_stream_each_matter():
    orders = [permutation(*a) for a in ((0, 100), (1, 100), (-1, 100), (0, 100, 1), (0, 100, 0, 1))]
    assert all(not np.array_equal(x, y) for i, x in enumerate(orders) for y in orders[:i])


def test_positions_are_uniform():
    counts = np.zeros((5, 5))
    for seed in range(4000):
        counts[np.arange(5), permutation(seed, 5)] += 1
    assert abs(counts / 4000 - 0.2).max() < 0.03
