"""Tensors from a file into a params tree, one leaf at a time.

The architecture says what the tree is (the shapes of its `init`), the name tables say where each leaf lies. A leaf's
layers are stacked into one host array of the wanted dtype, handed to the device, and freed before the next one: what
is alive beside the device's copy is one leaf and one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import Error
from jaxft.pretrained import names

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


def read_params(tensors: Tensors, architecture: Any, dtype: Any, put: Put | None = None) -> dict:
    """Return the params tree of `architecture`, read from `tensors` in `dtype`.

    `put(path, array)` takes each leaf to the device, the path as in "layers/0/attention/q/kernel"; the default is
    `jax.device_put`. Raises `Error` with every tensor that is missing, unknown or of another shape.
    """
    put = put or (lambda path, array: jax.device_put(array))
    shapes = jax.eval_shape(lambda: architecture.init(jax.random.key(0)))
    plan = list(names.leaves(architecture.config, shapes))
    _check(tensors, architecture.config, plan)
    arrays = []
    for leaf in plan:
        array = put("/".join(map(str, leaf.path)), _host_array(tensors, architecture.config, leaf, dtype))
        # Transfers are asynchronous: without waiting, every leaf's host copy would be alive at once.
        arrays.append(jax.block_until_ready(array))
    return jax.tree.unflatten(jax.tree.structure(shapes), arrays)


def _host_array(tensors: Tensors, config: Any, leaf: names.Leaf, dtype: Any) -> np.ndarray:
    host = np.empty(leaf.shape, dtype)
    for place, file in zip([host] if leaf.layers is None else host, _files(tensors, leaf), strict=True):
        array = tensors.read(file)
        if tensors.convention == "gguf" and leaf.name.rotary:
            array = _halves(array, getattr(config, leaf.name.rotary))
        if leaf.name.transposed:
            _transpose(place, array)
        else:
            place[...] = array
    return host


def _transpose(place: np.ndarray, array: np.ndarray) -> None:
    # In strips: across a whole large matrix every element would miss the cache, which takes four times as long.
    for start in range(0, len(array), 256):
        place[..., start : start + 256] = array[start : start + 256].T


def _files(tensors: Tensors, leaf: names.Leaf) -> list[str]:
    files = leaf.files(tensors.convention)
    if tensors.convention == "hf" and leaf.name.otherwise and files[0] not in tensors.shapes:
        return [leaf.name.otherwise]
    return files


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
    # ggml rotates neighbouring rows of a head, Hugging Face a row of the first half with its row of the second.
    rows = array.shape[0] // heads
    return array.reshape(heads, rows // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _check(tensors: Tensors, config: Any, plan: list[names.Leaf]) -> None:
    problems = []
    expected = set()
    for leaf in plan:
        shape = leaf.shape if leaf.layers is None else leaf.shape[1:]
        shape = shape[::-1] if leaf.name.transposed else shape
        for file in _files(tensors, leaf):
            expected.add(file)
            if file not in tensors.shapes:
                problems.append(f"{file} is missing")
            elif tensors.shapes[file] != shape:
                problems.append(f"{file} is {list(tensors.shapes[file])}, not {list(shape)}")
    copies = names.COPIES[config.family]
    for file in tensors.shapes.keys() - expected:
        if file in copies:
            problems += _contradiction(tensors, file, copies[file])
        elif not file.endswith(names.IDLE):
            problems.append(f"{file} is unknown")
    if problems:
        raise Error(f"{tensors.where}: the tensors do not fit its configuration: {listed(sorted(problems))}")


def _contradiction(tensors: Tensors, copy: str, original: str) -> list[str]:
    if original in tensors.shapes and not np.array_equal(tensors.read(copy), tensors.read(original)):
        return [f"{copy} differs from {original}, which the configuration ties to it"]
    return []


def listed(items: list[str], limit: int = 8) -> str:
    """Join `items` with semicolons, the first `limit` of them in full."""
    more = f"; and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
