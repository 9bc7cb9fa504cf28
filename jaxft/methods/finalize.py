"""What is left of a method once training is over."""

from __future__ import annotations

from typing import Any

from jaxft.methods.method import Method, Trainable, Variables


def finalize(method: Method, trainable: Trainable, frozen: Variables) -> tuple[Method, Trainable]:
    """Return the method and tree without what only training needs: the networks of prefixes and prompts.

    What they generate takes their place, so the bound variables stay the same. Other methods come back as they are.
    """
    from jaxft.methods import from_config, union

    config: dict[str, Any] = dict(method.config)
    if config["name"] == "union":
        members = [from_config(member) for member in config["methods"]]
        kept = frozen["union"]
        done = [
            finalize(member, part, {**frozen, **own})
            for member, part, own in zip(members, trainable, kept, strict=True)
        ]
        return union(*(member for member, _ in done)), tuple(part for _, part in done)
    if not config.get("hidden"):
        return method, trainable
    return from_config(config | {"hidden": 0}), method.bind(trainable, frozen)[config["name"]]
