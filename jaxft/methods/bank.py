"""A bank: several members of one kind of method over one base, and every example uses the one that it names.

    method = bank(lora(rank=8), lora(rank=4))                     # to train: batches carry "adapter_ids" [B]
    variables = stack([bound_0, bound_1], capacity=8)             # to use: what each member's bind gave
    variables = put(variables, 2, bound_2)                        # one more, without compiling again
    texts = generate(model, variables, prompts, adapter_ids=[0, 1, 2, 0])

Members lie stacked, `[M, ...]`, in the collection `bank`; `for_rows` gathers each row's own before the model is run, so
the model sees a leading B where it knows none of banks. Members may differ in rank, width and length: what is
shorter is padded with zeros, which neither act nor learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError
from jaxft.methods.method import Method, Variables, bound
from jaxft.methods.trees import flatten, nest, refilled, without


def bank(*methods: Method) -> Method:
    """Return the method that trains each of `methods` on the examples whose `adapter_ids` name it.

    The trainable tree is theirs, padded and stacked, `[M, ...]`; wrap the optimizer in `jaxft.per_member`, and take a
    member out again with `member`. Raises
    `UsageError` at `init` for members of different structure and for weights that no example can have for itself
    (embeddings and head).
    """
    if not methods:
        raise UsageError("bank: no members")
    if any(method.config["name"] == "full" for method in methods):
        raise UsageError("bank: full tuning changes the base itself, which the members share")

    def init(key, variables):
        keys = jax.random.split(key, len(methods))
        parts = [method.init(own, variables) for method, own in zip(methods, keys, strict=True)]
        frozen = parts[0][1]
        if any(flatten(other["params"]).keys() != flatten(frozen["params"]).keys() for _, other in parts):
            raise UsageError("bank: the members train different weights; give them the same targets")
        kept = tuple({name: tree for name, tree in other.items() if name not in variables} for _, other in parts)
        # Empty arrays that tell each member's own shapes.
        shapes = tuple(jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape)), trainable) for trainable, _ in parts)
        shared = {name: tree for name, tree in frozen.items() if name in variables}
        return stacked([trainable for trainable, _ in parts]), {**shared, "bank": {"kept": kept, "shapes": shapes}}

    def bind(trainable, frozen):
        shared = {name: tree for name, tree in frozen.items() if name != "bank"}
        parts = [member(methods, trainable, frozen, number) for number in range(len(methods))]
        return _banked(shared, [method.bind(own, variables) for method, own, variables in parts])

    return Method(init, bind, {"name": "bank", "methods": [dict(method.config) for method in methods]})


def member(
    methods: Sequence[Method], trainable: Any, frozen: Variables, number: int
) -> tuple[Method, Any, dict[str, Any]]:
    """Return the method, trainable tree and frozen variables of one member of `bank(*methods)`, to save it, say."""
    kept, shapes = (frozen["bank"][name][number] for name in ("kept", "shapes"))
    own = unpadded(jax.tree.map(lambda leaf: leaf[number], trainable), shapes)
    shared = {name: tree for name, tree in frozen.items() if name != "bank"}
    return methods[number], own, {**shared, **kept}


def stack(members: Sequence[Variables], capacity: int | None = None) -> dict[str, Any]:
    """Return one set of variables for `generate` and `log_likelihood`, from what each member's `bind` gave.

    Room is made for `capacity` members; members added by `put` within it, of no greater rank, width or length, compile
    nothing. Raises `UsageError` for members of different structure or of another base.
    """
    if capacity is not None and capacity < len(members):
        raise UsageError(f"bank: {len(members)} members exceed the capacity of {capacity}")
    if not members:
        raise UsageError("bank: no members")
    params = [flatten(member["params"]) for member in members]
    shared = {
        path for path, leaf in params[0].items() if all(path in other and other[path] is leaf for other in params)
    }
    base = nest({path: leaf for path, leaf in params[0].items() if path in shared})
    return _banked({"params": base}, [*members, *[members[-1]] * ((capacity or 0) - len(members))])


def put(variables: Variables, member: int, new: Variables) -> dict[str, Any]:
    """Return the bank with `new`, what a method's `bind` gave, as its member number `member`.

    Raises `UsageError` for a number outside the bank's capacity, another base or structure, and a greater rank or
    length.
    """
    count = members_of(variables)
    if not 0 <= member < count:
        raise UsageError(f"bank: member {member} is outside the bank of {count}")
    theirs = flatten(new["params"])
    if any(theirs.get(path) is not leaf for path, leaf in flatten(variables["params"]).items()):
        raise UsageError("bank: the new member is bound to another base; bind it to the params of this one")
    old, fresh = flatten(variables["bank"]), flatten(_with_lengths(_own(variables, new)))
    _same_structure([old, fresh])
    made = {}
    for path, leaf in old.items():
        own = fresh[path]
        if any(a > b for a, b in zip(own.shape, leaf.shape[1:], strict=True)):
            where = "/".join(map(str, path))
            raise UsageError(f"bank: {where} {list(own.shape)} does not fit into {list(leaf.shape[1:])}; stack it anew")
        made[path] = leaf.at[member].set(_padded(path, own, leaf.shape[1:]).astype(leaf.dtype))
    return {**variables, "bank": nest(made)}


def for_rows(variables: Variables, ids: Any) -> Variables:
    """Return variables in which each row has its own member's leaves: `[B, ...]`, in stacked layers `[n, B, ...]`.

    `ids` is `[B]`, or None where there is no bank; then the variables come back as they are.
    """
    if "bank" not in variables:
        if ids is not None:
            raise UsageError("adapter_ids: these variables are no bank; make one with jaxft.methods.bank.stack")
        return variables
    if ids is None:
        raise UsageError("adapter_ids: the variables are a bank; say which member each row uses")
    rest = {name: tree for name, tree in variables.items() if name != "bank"}
    return bound(rest, **rows_of(variables["bank"], ids))


def rows_of(banked: Mapping[str, Any], ids: jax.Array) -> dict[str, Any]:
    """Return each row's own leaves of the collections in a bank."""
    return nest(
        {
            path: jnp.moveaxis(leaf[ids], 0, 1) if "layers" in path else leaf[ids]
            for path, leaf in flatten(banked).items()
        }
    )


def check_ids(ids: Any, rows: int, members: int) -> None:
    """Raise `UsageError` unless there is an id for every row, each a member's number."""
    ids = np.asarray(ids)
    if ids.shape != (rows,) or not np.issubdtype(ids.dtype, np.integer):
        raise UsageError(f"adapter_ids: give one whole number for each of the {rows} rows")
    outside = ids[(ids < 0) | (ids >= members)]
    if outside.size:
        raise UsageError(f"adapter_ids: {outside[0]} is outside the bank of {members} members")


def members_of(variables: Variables) -> int:
    """Return how many members a bank has room for."""
    return jax.tree.leaves(variables["bank"])[0].shape[0]


def stacked(trees: Sequence[Any]) -> Any:
    """Stack trees of one structure on a new first axis, padded with zeros to the largest."""
    flat = [flatten(tree) for tree in trees]
    _same_structure(flat)
    leaves = {}
    for path in flat[0]:
        own = [tree[path] for tree in flat]
        shape = tuple(max(sizes) for sizes in zip(*(leaf.shape for leaf in own), strict=True))
        leaves[path] = jnp.stack([_padded(path, leaf, shape) for leaf in own])
    return refilled(trees[0], leaves)


def unpadded(tree: Any, like: Any) -> Any:
    """Cut the leaves of a member's padded `tree` to the shapes that the empty leaves `[0, ...]` of `like` tell."""
    shapes = flatten(like)
    return refilled(tree, {path: _cut(path, leaf, shapes[path].shape[1:]) for path, leaf in flatten(tree).items()})


def _banked(shared, members):
    own = [_own(shared, member) for member in members]
    for path in flatten(own[0].get("params", {})):
        if path[0] in ("embedding", "head"):
            raise UsageError(f"bank: {'/'.join(map(str, path))} is too large for every example to have its own")
    return {**shared, "bank": stacked([_with_lengths(collections) for collections in own])}


def _own(shared, member):
    """Return the collections of a member that are not the shared base's."""
    trained = without(member["params"], flatten(shared["params"]))
    own = {name: tree for name, tree in member.items() if name != "params"}
    return own | ({"params": trained} if flatten(trained) else {})


def _with_lengths(collections):
    # Told even where all are equal: a shorter one may be put in later.
    leaves = flatten(collections)
    for path, leaf in list(leaves.items()):
        if (path[0], path[-1]) in (("prompt", "embedding"), ("prefix", "key")):
            *stack, length, _ = leaf.shape
            leaves[(*path[:-1], "length")] = jnp.full(stack, length, jnp.int32)
    return nest(leaves)


def _same_structure(flat):
    for tree in flat[1:]:
        for path in flat[0].keys() ^ tree.keys():
            raise UsageError(f"bank: not all members have {'/'.join(map(str, path))}; give them one structure")


def _padded(path, leaf, shape):
    room = [(0, big - small) for big, small in zip(shape, leaf.shape, strict=True)]
    if not room:
        return leaf
    # Soft tokens end where the text begins, whatever their number.
    return jnp.pad(leaf, [r[::-1] for r in room] if path[-1] == "embedding" else room)


def _cut(path, leaf, shape):
    if path[-1] == "embedding":
        return leaf[tuple(slice(size - own, None) for size, own in zip(leaf.shape, shape, strict=True))]
    return leaf[tuple(map(slice, shape))]
