"""Chance by hash: what a row gets depends on the seed, its id and what is drawn, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from jaxft.errors import UsageError


def draw(count: int, *key: Any) -> int:
    """Return a number below `count` as a function of the key, the same in every process.

    >>> draw(6, 0, "train:17", "template")
    3
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % count


def draw_by_rate(rates: Mapping[int, float], *key: Any) -> int:
    """Return one of the keys of `rates`, each as often as its rate says."""
    point = draw(2**53, *key) / 2**53 * sum(rates.values())
    for value, rate in rates.items():
        point -= rate
        if point < 0:
            return value
    return [value for value, rate in rates.items() if rate][-1]


def checked_rates(name: str, rates: Any) -> dict[int, float]:
    """Return `{number: rate}` of a bare number (rate 1) or a mapping; UsageError for what makes no sense."""
    if isinstance(rates, (bool, int)):
        rates = {int(rates): 1.0}
    try:
        checked = {int(number): float(rate) for number, rate in rates.items()}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"{name}: {rates!r} is neither a number nor {{number: rate}}") from None
    if min(checked, default=-1) < 0 or min(checked.values()) < 0 or not sum(checked.values()):
        raise UsageError(f"{name}: {rates!r}: numbers and rates may not be negative, nor the rates all 0")
    return checked
