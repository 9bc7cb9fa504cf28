"""How many numbers a method trains and what they cost in memory, from shapes alone: nothing is compiled.

>>> from jaxft.models import Decoder, DecoderConfig, Model
>>> config = DecoderConfig("llama", vocab_size=32, num_layers=2, width=8, num_heads=2, num_kv_heads=1, head_dim=4,
...     mlp_width=16)
>>> architecture = Decoder(config)
>>> shapes = jax.eval_shape(architecture.init, jax.random.key(0))
>>> sizes(Model(architecture, shapes, None), {"name": "lora", "rank": 2}).trainable
224
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxft.methods import from_config
from jaxft.recipe import optimizer_config, published_optimizer
from jaxft.training.optimizer import OptimizerConfig, make_optimizer
from jaxft.training.state import init_state


class Sizes(NamedTuple):
    """Counts of numbers, and bytes of what lies in memory for the whole of training (activations aside)."""

    total: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int
    gradient_bytes: int
    moment_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.weight_bytes + self.trainable_bytes + self.gradient_bytes + self.moment_bytes


def sizes(model: Any, method: Mapping[str, Any], optimizer: OptimizerConfig | None = None) -> Sizes:
    """Return the sizes of training `model` (its params may be shapes) by a method's config and an optimizer's.

    The optimizer is the method's published one unless given. `weight_bytes` counts the base, which stays as it is.
    """
    chosen = from_config(method)
    update = make_optimizer(optimizer or optimizer_config(published_optimizer(chosen.config), 1), total_steps=2**30)

    def start(params):
        trainable, frozen = chosen.init(jax.random.key(0), {"params": params})
        return init_state(trainable, update), chosen.bind(trainable, frozen)

    state, variables = jax.eval_shape(start, model.params)
    trainable = _bytes(state.trainable)
    return Sizes(
        total=_count(variables),
        trainable=_count(state.trainable),
        weight_bytes=_bytes(model.params),
        trainable_bytes=trainable,
        gradient_bytes=trainable,
        moment_bytes=_bytes(state.opt_state),
    )


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
