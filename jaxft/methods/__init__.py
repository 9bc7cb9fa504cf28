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
from jaxft.methods.full import full
from jaxft.methods.lora import lora
from jaxft.methods.merge import merge
from jaxft.methods.method import Method, Trainable, Variables
from jaxft.methods.prompt import prompt

__all__ = ["METHODS", "Method", "Trainable", "Variables", "from_config", "full", "lora", "merge", "prompt"]

METHODS = {constructor.__name__: constructor for constructor in (full, lora, prompt)}


def from_config(config: Mapping[str, Any]) -> Method:
    """Make the method that `config` (`{"name": "lora", "rank": 8, ...}`) describes; refuse names it does not know."""
    settings = dict(config)
    name = settings.pop("name", None)
    if name not in METHODS:
        raise UsageError(f"method.name: unknown method {name!r}{nearest(str(name), METHODS)}")
    known = inspect.signature(METHODS[name]).parameters
    for setting in settings:
        if setting not in known:
            raise UsageError(f"method.{setting}: {name} has no such setting{nearest(setting, known)}")
    return METHODS[name](**settings)
