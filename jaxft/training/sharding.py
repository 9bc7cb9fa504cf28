"""Where arrays live: one table for base weights, adapters and moments alike.

A mesh has two axes. Batches are split over both; weights are split over `fsdp` and repeated over `data`. With `jit`
over a `Mesh` XLA inserts the collectives: what `jax.pmap` did, which itself runs on `jit` now.
"""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxft.errors import UsageError

# Path pattern -> the axes, in order of preference, that `fsdp` may split. An axis that does not divide is passed over.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"relative_bias", ()),
    (r"embedding", (-2, -1)),
    (r"kernel", (-1, -2)),
    (r"/(a|b)(/|$)", (-2, -1)),
)


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """Return a mesh of `data` x `fsdp` devices; `data=-1` takes all that `fsdp` leaves."""
    devices = jax.devices()
    if fsdp < 1 or data == 0 or data < -1:
        raise UsageError(f"mesh: data={data}, fsdp={fsdp} are not device counts")
    if data == -1:
        data = max(1, len(devices) // fsdp)
    if data * fsdp > len(devices):
        raise UsageError(f"mesh: data={data} x fsdp={fsdp} needs {data * fsdp} devices; there are {len(devices)}")
    return jax.make_mesh(
        (data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices[: data * fsdp]
    )


def shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Return the `NamedSharding` of every leaf of `tree` (arrays or their shapes), by `RULES`."""

    def of(path, leaf):
        name = "/" + "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
        return NamedSharding(mesh, _spec(name, leaf.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(of, tree)


def _spec(name, shape, parts):
    if parts > 1 and len(shape) > 1:
        axes = next((axes for pattern, axes in RULES if re.search(pattern, name)), ())
        for axis in axes:
            if shape[axis] % parts == 0:
                spec: list = [None] * len(shape)
                spec[axis] = "fsdp"
                return PartitionSpec(*spec)
    return PartitionSpec()


def shard(tree: Any, mesh: Mesh | None) -> Any:
    """Put `tree` on the devices of `mesh` by `RULES`; without a mesh return it as it is."""
    return tree if mesh is None else jax.device_put(tree, shardings(tree, mesh))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Split the rows of `batch` over all devices; raise `UsageError` if they do not divide."""
    rows = batch["tokens"].shape[0]
    if rows % mesh.size:
        raise UsageError(f"batch: {rows} rows do not divide over {mesh.size} devices; change the batch size")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
