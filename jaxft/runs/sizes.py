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

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AbstractMesh, Mesh

from jaxft.errors import UsageError
from jaxft.methods import METHODS, Method, from_config
from jaxft.models.quantised import is_quantised
from jaxft.pretrained.peeking import peek
from jaxft.recipe import OptimizerRecipe, check, lay_over, optimizer_config, published_optimizer
from jaxft.training.optimizer import OptimizerConfig, make_optimizer
from jaxft.training.sharding import shardings
from jaxft.training.state import TrainState, init_state


class Sizes(NamedTuple):
    """Counts of numbers, and bytes of what lies in memory for the whole of training (activations aside).

    A quantised kernel counts for the numbers that it stands for, and for the bytes of its codes and scales.
    """

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


class Start(NamedTuple):
    """A method and its optimizer, and the shapes of what they begin with."""

    method: Method
    update: optax.GradientTransformation
    state: TrainState
    frozen: Any
    variables: Any


def start(params: Any, method: Mapping[str, Any], optimizer: OptimizerConfig | None = None) -> Start:
    """Return how training of `params` (which may be shapes) by a method's config would begin; nothing is computed.

    The optimizer is the method's published one unless given.
    """
    chosen = from_config(method)
    update = make_optimizer(optimizer or optimizer_config(published_optimizer(chosen.config), 1), total_steps=2**30)

    def begin(params):
        trainable, frozen = chosen.init(jax.random.key(0), {"params": params})
        return init_state(trainable, update), frozen, chosen.bind(trainable, frozen)

    return Start(chosen, update, *jax.eval_shape(begin, params))


def sizes(
    model: Any,
    method: Mapping[str, Any],
    optimizer: OptimizerConfig | None = None,
    mesh: Mesh | AbstractMesh | None = None,
) -> Sizes:
    """Return the sizes of training `model` (its params may be shapes) by a method's config and an optimizer's.

    The optimizer is the method's published one unless given. `weight_bytes` counts the base, which stays as it is, and
    what the method keeps beside it. With a `mesh`, which needs no devices, bytes are those on one of its devices.
    """
    begun = start(model.params, method, optimizer)
    kept = {name: tree for name, tree in begun.frozen.items() if name != "params"}
    trainable = _bytes(begun.state.trainable, mesh)
    return Sizes(
        total=_count(begun.variables),
        trainable=_count(begun.state.trainable),
        weight_bytes=_bytes(model.params, mesh) + _bytes(kept, mesh),
        trainable_bytes=trainable,
        gradient_bytes=trainable,
        moment_bytes=_bytes(begun.state.opt_state, mesh),
    )


def sizes_of_methods(source: str, settings: Sequence[tuple[str, Any]] = ()) -> dict[str, Sizes]:
    """Return the sizes of every method on a source's model, whose weights are not read.

    Or of the one method that `settings` (recipe keys and values) describe.
    """
    chosen, rates = read_settings(settings)
    model = peek(source).abstract()
    configs = [chosen] if chosen else [{"name": name} for name in METHODS]
    return {label(config): sizes(model, config, optimizer_of(config, rates)) for config in configs}


def read_settings(settings: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the method's config, empty where nothing is said of it, and the optimizer's fields in `settings`.

    Raises `UsageError` for a key (`method.rank`, `optimizer.name`) of another section.
    """
    values: dict[str, Any] = {"method": {}, "optimizer": {}}
    lay_over(values, [("method.name" if key == "method" else key, value) for key, value in settings])
    chosen, rates = values.pop("method"), values.pop("optimizer")
    if values:
        raise UsageError(f"--{next(iter(values))}: only fields of method and optimizer matter here")
    return {"name": "lora", **chosen} if chosen else {}, rates


def optimizer_of(method: Mapping[str, Any], rates: Mapping[str, Any]) -> OptimizerConfig:
    """Return the published optimizer of a method's config with the fields `rates` in place of its own."""
    defaults = dataclasses.asdict(published_optimizer(from_config(method).config))
    return optimizer_config(check(OptimizerRecipe, {**defaults, **rates}, prefix="optimizer"), 1)


def label(method: Mapping[str, Any]) -> str:
    """Return a method's config in a few words, as tables name it."""
    return " ".join(str(value) for value in method.values())


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree, is_leaf=is_quantised))


def _bytes(tree: Any, mesh: Mesh | AbstractMesh | None = None) -> int:
    leaves = jax.tree.leaves(tree)
    shapes = [leaf.shape for leaf in leaves]
    if mesh is not None:
        placed = jax.tree.leaves(shardings(tree, mesh))
        shapes = [sharding.shard_shape(shape) for sharding, shape in zip(placed, shapes, strict=True)]
    return sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(shapes, leaves, strict=True))
