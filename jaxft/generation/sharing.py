"""What many contexts have in common is read once: which of them share a header, and which shapes they are scored in.

Few-shot prompts of a task begin with the same examples. Sorted, prompts that share a prefix lie side by side, and the
lengths of the common prefixes of neighbours span a tree: k prompts of a node that share m tokens save (k - 1) m of
them as one group. Groups are formed from the leaves to the root, and dissolved where a larger one saves more.

>>> shared_headers([[1, 2, 3, 4], [9], [1, 2, 3, 5], [1, 2, 3, 6]], cost=0)
[(0, [1]), (3, [0, 2, 3])]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

COST = 192  # tokens: what a group costs more than it saves, in compilation and in a last batch that is not full


def shared_headers(prompts: Sequence[Sequence[int]], cost: int | None = None) -> list[tuple[int, list[int]]]:
    """Return (length of the common header, the prompts that have it), those without one together under 0.

    A header leaves at least one token of each prompt, the one from which the first target is predicted. `cost` is in
    tokens, `COST` by default.
    """
    cost = COST if cost is None else cost
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    arrays = [np.asarray(prompts[i]) for i in order]
    common = [_common(a, b) for a, b in itertools.pairwise(arrays)]
    groups = [(length, sorted(order[i] for i in members)) for length, members in _best_groups(common, cost)]
    inside = {i for _, members in groups for i in members}
    alone = [i for i in range(len(prompts)) if i not in inside]
    return ([(0, alone)] if alone else []) + groups


def header_bucket(length: int) -> int:
    """Return the padded length of a header: 32 times 1, 2, 3, 4, 6, 8, 12, 16 ...

    >>> [header_bucket(n) for n in (5, 65, 100, 130, 600)]
    [32, 96, 128, 192, 768]
    """
    size = 32
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 and size > 32 else (size * 4 // 3 if size > 32 else 64)
    return size


def _common(a: np.ndarray, b: np.ndarray) -> int:
    size = min(len(a), len(b)) - 1
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size


class _Node(NamedTuple):
    """Neighbours in the sorted order, with the groups found among them and those that are in none."""

    loose: list[int]
    groups: list[tuple[int, list[int]]]  # (header, members)


def _best_groups(common: Sequence[int], cost: int) -> list[tuple[int, list[int]]]:
    """Return (header, members) of the groups; `common[i]` is what the i-th and the next have in common."""
    open_nodes: list[tuple[_Node, int]] = []  # what lies left of a common prefix, and its length
    node = _Node([], [])
    for i, header in enumerate([*common, 0]):
        node = _Node([i], [])
        # A node is complete when its right neighbour shares less with it.
        while open_nodes and open_nodes[-1][1] >= header:
            left, shared = open_nodes.pop()
            node = _together(left, node, shared, cost)
        open_nodes.append((node, header))
    return node.groups


def _together(left: _Node, right: _Node, shared: int, cost: int) -> _Node:
    """Join two nodes whose members have `shared` tokens in common; a group joins the others if that saves more."""
    if len(left.loose) < len(right.loose):
        left, right = right, left
    left.loose.extend(right.loose)
    groups = left.groups + right.groups
    saved = [(len(members) - 1) * length - cost for length, members in groups]
    joining = [len(members) * shared >= own for (_, members), own in zip(groups, saved, strict=True)]
    members = left.loose + [i for (_, inside), joins in zip(groups, joining, strict=True) if joins for i in inside]
    if (len(members) - 1) * shared - cost <= sum(own for own, joins in zip(saved, joining, strict=True) if joins):
        return _Node(left.loose, groups)
    others = [group for group, joins in zip(groups, joining, strict=True) if not joins]
    return _Node([], [*others, (shared, members)])
