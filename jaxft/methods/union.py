"""Several methods as one: each is given the same base, and what they bind is joined."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from jaxft.errors import UsageError
from jaxft.methods.method import Method
from jaxft.methods.trees import Path, flatten, split_last, without

OWN_WEIGHTS = ("full", "selective")
ON_KERNELS = ("lora", "dora", "pissa", "vera")


def union(*methods: Method) -> Method:
    """Train what each of `methods` trains: LoRA and the norms, say, in either order.

    The trainable tree is the tuple of theirs. Raises `UsageError` for fewer than two methods and, at `init`, where two
    of them claim the same leaf, or one trains a kernel and another its low-rank update.
    """
    if len(methods) < 2:
        raise UsageError("method.methods: a union needs two methods or more")
    if any(method.config["name"] == "full" for method in methods):
        raise UsageError("method.methods: full tuning leaves nothing for another method; drop it or the others")

    def init(key, variables):
        for method in methods:  # every boundary between segments first: all trees are then cut alike
            if method.config.get("last"):
                variables = {**variables, "params": split_last(variables["params"], method.config["last"])}
        _refuse_overlap(methods, key, variables)
        trainable, kept, taken = [], [], set()
        before = flatten(variables["params"])
        for method, own in zip(methods, jax.random.split(key, len(methods)), strict=True):
            part, frozen = method.init(own, variables)
            trainable.append(part)
            taken |= before.keys() - flatten(frozen["params"]).keys()
            kept.append({name: tree for name, tree in frozen.items() if name not in variables})
        return tuple(trainable), {**variables, "params": without(variables["params"], taken), "union": tuple(kept)}

    def bind(trainable, frozen):
        variables = dict(frozen)
        kept = variables.pop("union")
        for method, part, own in zip(methods, trainable, kept, strict=True):
            variables = method.bind(part, {**variables, **own})
        return variables

    return Method(init, bind, {"name": "union", "methods": [dict(method.config) for method in methods]})


def _refuse_overlap(methods, key, variables):
    claimed: dict = {}
    for method in methods:
        trainable, _ = jax.eval_shape(method.init, key, variables)
        for claim in set(_claims(method, trainable)):
            if claim in claimed:
                path = "/".join(map(str, claim[1]))
                names = f"{claimed[claim]} and {method.config['name']}"
                raise UsageError(f"method.methods: {names} both train {claim[0]} {path}; leave it to one of them")
            claimed[claim] = method.config["name"]


def _claims(method: Method, trainable: object) -> Iterator[tuple[str, Path]]:
    name = method.config["name"]
    for path in flatten(trainable):
        if name in ON_KERNELS:
            yield "params", (*path[:-1], "kernel")
        else:
            yield "params" if name in OWN_WEIGHTS else name, path
