"""What a step of training holds in memory, for models that fit nowhere here: shapes, and the compiler's own count.

A train step is compiled for abstract arguments, so nothing is allocated; layers are rolled into loops, so compiling
takes as long for 80 of them as for 8. What stays (weights, what is trained, moments) and the gradients are exact, from
shapes. The rest of the compiled step's temporary memory are the activations, and what else it holds for a while.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from jaxft.errors import UsageError
from jaxft.models import Model, T5Config
from jaxft.runs.sizes import Sizes, Start, sizes, start
from jaxft.training.loss import token_loss
from jaxft.training.optimizer import OptimizerConfig
from jaxft.training.sharding import shardings
from jaxft.training.step import train_step

# The code is never run: how well LLVM polishes it changes no buffer, and takes half of the time to compile.
_UNPOLISHED: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Need(NamedTuple):
    """What tuning by a method holds, in bytes (on one device of a mesh).

    `activation_bytes` are all that the step holds for a while beside the gradients; `compiled` says whether they are
    the compiler's count for the very step, or estimated from it for a mesh.
    """

    method: Mapping[str, Any]
    optimizer: str
    sizes: Sizes
    activation_bytes: int
    compiled: bool

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.sizes.bytes + self.activation_bytes


def need(
    model: Model,
    method: Mapping[str, Any],
    optimizer: OptimizerConfig,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: AbstractMesh | None = None,
) -> Need:
    """Return what a step of `method` on `model`, whose params may be shapes, and on shapes of a `batch` holds.

    On a `mesh` rows are split over all devices; `UsageError` if they do not divide.
    """
    size = sizes(model, method, optimizer, mesh)
    twin = _twin(model)
    begun = start(twin.params, method, optimizer)
    if mesh is None:
        return Need(method, optimizer.name, size, _step_bytes(twin, begun, batch), True)
    whole = sizes(model, method, optimizer)
    rows = batch["tokens"].shape[0]
    if rows % mesh.size:
        raise UsageError(f"--batch-size: {rows} rows do not divide over {mesh.size} devices; change it or --mesh")
    own = {name: jax.ShapeDtypeStruct((rows // mesh.size, x.shape[1]), x.dtype) for name, x in batch.items()}
    # While there are activations, kernels are gathered; while there are temporaries of the optimizer, as large as
    # what is trained and as divided, there is neither.
    gradient = (
        _gradient_bytes(twin, begun, own) + _gathered(model.params, mesh) + _gathered(begun.state.trainable, mesh)
    )
    update = _step_bytes(twin, begun, own) * size.trainable_bytes // whole.trainable_bytes
    return Need(method, optimizer.name, size, max(gradient, update), False)


def abstract_batch(
    config: Any, rows: int, length: int, prompt_length: int | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch of `rows` of `length` tokens; an encoder reads `prompt_length` (default: as many).

    Raises `UsageError` for a length below 1 or beyond the model's context.
    """
    encoder_decoder = isinstance(config, T5Config)
    sides = {"": length} | ({"encoder_": prompt_length or length} if encoder_decoder else {})
    if rows < 1 or length < 1 or (prompt_length or 1) < 1:
        raise UsageError(f"--batch-size, --length: {rows} rows of {length} tokens are no batch")
    if max(sides.values()) > config.max_length:
        raise UsageError(f"--length: {max(sides.values())} is beyond the model's context of {config.max_length}")
    names = {side: [f"{side}{name}" for name in ("tokens", "positions", "segments")] for side in sides}
    batch = {name: jax.ShapeDtypeStruct((rows, sides[side]), jnp.int32) for side in sides for name in names[side]}
    batch["targets"] = batch["tokens"]
    batch["weights"] = jax.ShapeDtypeStruct((rows, length), jnp.float32)
    return batch


def abstract_mesh(data: int = 1, fsdp: int = 1) -> AbstractMesh | None:
    """Return a mesh of `data` x `fsdp` devices that need not be there; None for a single one."""
    if data < 1 or fsdp < 1:
        raise UsageError(f"--mesh: data={data}, fsdp={fsdp} are not device counts")
    return None if data * fsdp == 1 else AbstractMesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def _twin(model: Model) -> Model:
    # XLA on CPU rewrites bfloat16 into float32 and then holds copies of all weights, as no accelerator does; float16,
    # of the same size, it leaves alone but where products are wanted in float32 (the head, DoRA's norms): a bound.
    numerics = model.architecture.numerics
    if jax.default_backend() != "cpu" or numerics.dtype != jnp.bfloat16:
        return model
    architecture = dataclasses.replace(model.architecture, numerics=numerics._replace(dtype=jnp.dtype(jnp.float16)))
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float16 if x.dtype == jnp.bfloat16 else x.dtype), model.params
    )
    return dataclasses.replace(model, architecture=architecture, params=params)


def _step_bytes(model: Model, begun: Start, batch: Any) -> int:
    step = train_step(model, begun.method, begun.update).jitted  # type: ignore[attr-defined]
    temporary = _temporary(step.lower(begun.state, begun.frozen, batch, _key()))
    trained = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(begun.state.trainable))
    return max(0, temporary - trained)


def _gradient_bytes(model: Model, begun: Start, batch: Any) -> int:
    loss_of = token_loss()

    def loss(trainable, frozen, batch, key):
        return loss_of(model.architecture, begun.method.bind(trainable, frozen), batch, key)[0]

    return _temporary(jax.jit(jax.grad(loss)).lower(begun.state.trainable, begun.frozen, batch, _key()))


def _temporary(lowered: Any) -> int:
    options = _UNPOLISHED if jax.default_backend() == "cpu" else {}
    return lowered.compile(options).memory_analysis().temp_size_in_bytes


def _gathered(tree: Any, mesh: AbstractMesh) -> int:
    """Bytes of what `fsdp` splits and a device gathers at one time: a layer of each stack, and what is outside them."""
    total = 0
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings(tree, mesh)), strict=True):
        if not sharding.is_fully_replicated:
            layers = leaf.shape[0] if any(getattr(key, "key", None) == "layers" for key in path) else 1
            total += leaf.size * leaf.dtype.itemsize // layers
    return total


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))
