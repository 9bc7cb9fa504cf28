"""One source of chance: a permutation drawn from a seed and where it is used, the same on every machine."""

from __future__ import annotations

import numpy as np


def permutation(seed: int, count: int, epoch: int = 0, stream: int = 0) -> np.ndarray:
    """Return a random order of `count` items as a function of the arguments; streams are independent.

    >>> permutation(0, 5, epoch=1).tolist() == permutation(0, 5, epoch=1).tolist()
    True
    """
    # Numpy fixes a bit generator's raw stream for ever, but not what `Generator.permutation` makes of it.
    key = np.array([seed % 2**64, epoch], np.uint64)
    bits = np.random.Philox(key=key, counter=[0, 0, 0, stream]).random_raw(count)
    return np.argsort(bits, kind="stable")
