"""Tensors from a file into a params tree, one leaf at a time.

The architecture says what the tree is (the shapes of its `init`), the name tables say where each leaf lies. A leaf's
layers are stacked into one host array of the wanted dtype, handed to the device, and freed before the next one: what
is alive beside the device's copy is one leaf and one tensor. Of a kernel that is to be quantised, one layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import Error
from jaxft.models.quantised import Quantised, check_some, fits, quantize_kernel
from jaxft.pretrained import names
from jaxft.pretrained.families import BY_TYPE

Put = Callable[[str, np.ndarray], jax.Array]


class Tensors(Protocol):
    """Named arrays in a file: safetensors or GGUF."""

    where: str
    convention: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> np.ndarray: ...


def default_dtype() -> Any:
    """Return float32 on CPU and bfloat16 on accelerators."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def read_params(
    tensors: Tensors, architecture: Any, dtype: Any, put: Put | None = None, quantize: str | None = None
) -> dict:
    """Return the params tree of `architecture`, read from `tensors` in `dtype`.

    `put(path, array)` takes each leaf to the device, the path as in "layers/0/attention/q/kernel"; the default is
    `jax.device_put`. `quantize` is a kind of `jaxft.models.quantised`, for the layers' kernels. Raises `Error` with
    every tensor that is missing, unknown or of another shape.
    """
    put = put or (lambda path, array: jax.device_put(array))
    shapes = jax.eval_shape(lambda: architecture.init(jax.random.key(0)))
    plan = list(names.leaves(architecture.config, shapes))
    check(tensors, architecture.config, plan)
    arrays = []
    for leaf in plan:
        array = _placed(tensors, architecture.config, leaf, dtype, put, quantize)
        # Transfers are asynchronous: without waiting, every leaf's host copy would be alive at once.
        arrays.append(jax.block_until_ready(array))
    params = jax.tree.unflatten(jax.tree.structure(shapes), arrays)
    if quantize is not None:
        check_some(params, quantize)
    return params


def _placed(tensors: Tensors, config: Any, leaf: names.Leaf, dtype: Any, put: Put, kind: str | None) -> Any:
    path = "/".join(map(str, leaf.path))
    if kind is None or not fits(path, leaf.shape, kind):
        return put(path, _host_array(tensors, config, leaf, dtype))
    held = _quantised(tensors, config, leaf, dtype, kind)
    return jax.tree_util.tree_map_with_path(lambda keys, part: put(f"{path}/{keys[-1].name}", part), held)


def _host_array(tensors: Tensors, config: Any, leaf: names.Leaf, dtype: Any) -> np.ndarray:
    host = _aligned(leaf.shape, np.dtype(dtype))
    for place, file in zip([host] if leaf.layers is None else host, _files(tensors, config, leaf), strict=True):
        _read_into(place, tensors, config, leaf, file)
    return host


def _quantised(tensors: Tensors, config: Any, leaf: names.Leaf, dtype: Any, kind: str) -> Quantised:
    layer = np.empty((1, *leaf.one), dtype)
    held = []
    for file in _files(tensors, config, leaf):
        _read_into(layer[0], tensors, config, leaf, file)
        held.append(jax.device_get(quantize_kernel(layer, kind)))
    return jax.tree.map(lambda *layers: np.concatenate(layers), *held)


def _read_into(place: np.ndarray, tensors: Tensors, config: Any, leaf: names.Leaf, file: str) -> None:
    array = names.from_file(tensors.read(file), leaf, tensors.convention, config)
    if leaf.name.transposed(tensors.convention):
        _transpose(place, array)
    else:
        place[...] = array


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # At a multiple of 64 bytes JAX on CPU takes the array as it lies; anywhere else it would copy it.
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _transpose(place: np.ndarray, array: np.ndarray) -> None:
    # In strips: across a whole large matrix every element would miss the cache, which takes four times as long.
    for start in range(0, len(array), 256):
        place[..., start : start + 256] = array[start : start + 256].T


def _files(tensors: Tensors, config: Any, leaf: names.Leaf) -> list[str]:
    files = leaf.files(tensors.convention)
    if tensors.convention == "gguf" or files[0] in tensors.shapes:
        return files
    bare = [file.removeprefix(BY_TYPE[config.family].bare) for file in files]
    if bare[0] in tensors.shapes:
        return bare
    return [leaf.name.otherwise] if leaf.name.otherwise else files


def check(tensors: Tensors, config: Any, plan: list[names.Leaf], values: bool = True) -> None:
    """Raise `Error` with every tensor that is missing, unknown or of another shape than `plan`'s.

    With `values`, also where a second copy of a tied tensor differs from the first: only that reads tensors.
    """
    problems = set()
    expected = set()
    for leaf in plan:
        shape = names.file_shape(leaf, tensors.convention)
        for file in _files(tensors, config, leaf):
            expected.add(file)
            if file not in tensors.shapes:
                problems.add(f"{file} is missing")
            elif tensors.shapes[file] != shape:
                problems.add(f"{file} is {list(tensors.shapes[file])}, not {list(shape)}")
    copies = BY_TYPE[config.family].copies
    for file in tensors.shapes.keys() - expected:
        if file in copies:
            problems |= _contradiction(tensors, file, copies[file]) if values else set()
        elif not file.endswith(names.IDLE):
            problems.add(f"{file} is unknown")
    if problems:
        raise Error(f"{tensors.where}: the tensors do not fit its configuration: {listed(sorted(problems))}")


def _contradiction(tensors: Tensors, copy: str, original: str) -> set[str]:
    if original in tensors.shapes and not np.array_equal(tensors.read(copy), tensors.read(original)):
        return {f"{copy} differs from {original}, which the configuration ties to it"}
    return set()


def listed(items: list[str], limit: int = 8) -> str:
    """Join `items` with semicolons, the first `limit` of them in full."""
    more = f"; and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
