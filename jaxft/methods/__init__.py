"""A tuning method is a pair of pure functions that say what is trained.

    method = lora(rank=16, alpha=32, targets="attention")
    trainable, frozen = method.init(key, {"params": model.params})
    variables = method.bind(trainable, frozen)         # what the model sees

The optimizer is given `trainable` and nothing else; `frozen` is an argument of the step that no gradient reaches.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jaxft.errors import UsageError, nearest
from jaxft.methods.adapter import adapter
from jaxft.methods.bank import bank
from jaxft.methods.dora import dora
from jaxft.methods.finalize import finalize
from jaxft.methods.full import full
from jaxft.methods.ia3 import ia3
from jaxft.methods.lora import lora
from jaxft.methods.merge import merge
from jaxft.methods.method import Method, Trainable, Variables
from jaxft.methods.pissa import pissa
from jaxft.methods.prefix import prefix
from jaxft.methods.prompt import prompt
from jaxft.methods.selective import selective
from jaxft.methods.union import union
from jaxft.methods.vera import vera

__all__ = [
    "METHODS", "Method", "Trainable", "Variables", "adapter", "bank", "dora", "finalize", "from_config", "full", "ia3",
    "lora", "merge", "pissa", "prefix", "prompt", "selective", "union", "vera",
]  # fmt: skip

METHODS = {
    constructor.__name__: constructor
    for constructor in (full, selective, lora, dora, pissa, vera, adapter, prompt, prefix, ia3)
}
GROUPS = {"union": union, "bank": bank}


def from_config(config: Mapping[str, Any]) -> Method:
    """Make the method that `config` (`{"name": "lora", "rank": 8, ...}`) describes; refuse names it does not know.

    A union is `{"name": "union", "methods": [config, ...]}`, and so is a bank.
    """
    settings = dict(config)
    name = settings.pop("name", None)
    if name in GROUPS:
        members = settings.pop("methods", None)
        if settings or not isinstance(members, list):
            raise UsageError(f"method: a {name} has methods: [...], a list of methods, and nothing else")
        return GROUPS[name](*(from_config(member) for member in members))
    if name not in METHODS:
        raise UsageError(f"method.name: unknown method {name!r}{nearest(str(name), [*METHODS, *GROUPS])}")
    known = inspect.signature(METHODS[name]).parameters
    for setting in settings:
        if setting not in known:
            raise UsageError(f"method.{setting}: {name} has no such setting{nearest(setting, known)}")
    return METHODS[name](**settings)
