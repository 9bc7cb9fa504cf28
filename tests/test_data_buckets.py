"""Bucket boundaries pad least, hold every example, and are no more than asked for."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from jaxft.data.buckets import assign, bucket_shapes


def padded(lengths, bounds):
    return sum(min(bound for bound in bounds if bound >= length) for length in lengths)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_buckets", [1, 2, 3, 5])
def test_the_boundaries_are_as_good_as_the_best_up_to_what_is_worth_a_compilation(seed, num_buckets):
    random = np.random.default_rng(seed)
    lengths = np.ceil(random.lognormal(3, 0.8, 60)).astype(int)[:, None]
    bounds = [shape[0] for shape in bucket_shapes(lengths, num_buckets, multiple=8)]
    candidates = sorted({-(-int(n) // 8) * 8 for n in lengths[:, 0]})
    best = min(padded(lengths[:, 0], [*c, candidates[-1]])
               for k in range(num_buckets) for c in combinations(candidates[:-1], k))  # fmt: skip
    assert bounds == sorted(set(bounds)) and len(bounds) <= num_buckets
    assert best <= padded(lengths[:, 0], bounds) <= best / 0.97 ** (num_buckets - 1)


def test_lengths_that_are_alike_share_one_shape():
    assert bucket_shapes(np.full((50, 1), 33), 4, 32) == ((64,),)
    assert bucket_shapes(np.arange(990, 1010)[:, None], 4, 8) == ((1016,),)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_lengths_form_a_chain_that_holds_every_example(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 500, (200, 2))
    shapes = bucket_shapes(lengths, 4, 32)
    assert len(shapes) <= 4 and all(prompt % 32 == 0 and completion % 8 == 0 for prompt, completion in shapes)
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(shapes))
    held = np.array(shapes)[assign(lengths, shapes)]
    assert (held >= lengths).all()


def test_an_example_goes_to_the_first_shape_that_holds_it():
    shapes = ((32, 32), (64, 32), (64, 96))
    lengths = np.array([[32, 1], [33, 1], [1, 33], [64, 96]])
    assert assign(lengths, shapes).tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match=r"\[65, 1\] tokens is longer than every shape"):
        assign(np.array([[1, 1], [65, 1]]), shapes)
