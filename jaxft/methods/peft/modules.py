"""PEFT's tensors lie at Hugging Face's modules, one a layer; ours are stacked at a place of the tree.

base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight     # prefix, module, tensor
layers/0/attention/q                                               # the place of that module in all layers
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.methods.peft.files import check_tensors, refuse
from jaxft.methods.trees import Path, flatten, spelled
from jaxft.models import Model
from jaxft.pretrained import names
from jaxft.pretrained.safetensors_file import SafetensorsFile

PREFIX = "base_model.model."
Modules = Mapping[Path, Sequence[str]]
Expected = Callable[[Path, Sequence[str]], Mapping[str, tuple[int, ...]]]
Shared = Callable[[Iterable[Path]], Mapping[str, tuple[int, ...]]]


def modules(model: Model, leaf: str = "kernel") -> dict[Path, list[str]]:
    """Return the modules, one a layer, of each place that has the leaf: the layers' kernels, or every norm's scale."""
    return {
        found.path[:-1]: [file.removesuffix(".weight") for file in found.files("hf")]
        for found in names.leaves(model.config, model.params)
        if found.path[-1] == leaf and (found.layers is not None or leaf != "kernel") and found.name.part is None
    }


class Fused(NamedTuple):
    """A module that holds several of our kernels side by side: its names, and where each one's outputs lie."""

    layers: list[str]  # the module's name in each layer
    parts: dict[Path, tuple[int, int, int]]  # place: start, stop, of so many


def fused(model: Model) -> dict[Path, Fused]:
    """Return GPT-2's and Phi-3's joined modules by the place of their first kernel."""
    found: dict[tuple[str, ...], Fused] = {}
    for leaf in names.leaves(model.config, model.params):
        if leaf.path[-1] == "kernel" and leaf.name.part is not None:
            layers = [file.removesuffix(".weight") for file in leaf.files("hf")]
            found.setdefault(tuple(layers), Fused(layers, {})).parts[leaf.path[:-1]] = leaf.name.part
    return {min(one.parts, key=one.parts.__getitem__): one for one in found.values()}


def unnamed(model: Model) -> set[Path]:
    """Return the places that are no module of their own there: several share one, or it trains a bias with them."""
    return {
        found.path[:-1]
        for found in names.leaves(model.config, model.params)
        if found.name.part is not None or (found.path[-1] == "bias" and found.path[-2].endswith("norm"))
    }


def write_place(layers: Sequence[str], tensor: str, stacked: Any) -> dict[str, np.ndarray]:
    """Return the tensors of one place, `stacked` over its layers."""
    arrays = np.asarray(stacked)
    pairs = zip(layers, arrays, strict=True)
    return {f"{PREFIX}{module}.{tensor}": np.ascontiguousarray(array) for module, array in pairs}


def read_places(
    file: SafetensorsFile, model: Model, known: Modules, expected: Expected, shared: Shared = lambda places: {}
) -> dict[Path, dict[str, jax.Array]]:
    """Return `{place: {tensor: stacked}}` of all places that the file holds something of, in float32.

    `expected(place, layers)` gives the tensors of one layer and their shapes; `shared(places)` those outside modules.
    Raises `Error` listing every tensor that is missing, unknown or of another shape.
    """
    heads = {name[:at] for name in file.shapes for at, letter in enumerate(name) if letter == "."}
    found = {
        place: expected(place, layers)
        for place, layers in known.items()
        if not heads.isdisjoint(PREFIX + module for module in layers)
    }
    if not found:
        first = next(iter(file.shapes), "none")
        refuse([f"no tensor of {len(file.shapes)} lies at one of its modules (the first: {first})"], file, model)
    shapes = dict(shared(found))
    for place, tensors in found.items():
        shapes |= {tensor_name(module, name): tensors[name] for module in known[place] for name in tensors}
    check_tensors(file, shapes, model)
    return {
        place: {name: _stacked(file, [tensor_name(module, name) for module in known[place]]) for name in tensors}
        for place, tensors in found.items()
    }


def tensor_name(module: str, tensor: str) -> str:
    return f"{PREFIX}{module}.{tensor}"


def shortest(targeted: Iterable[str], known: Iterable[str], dot: str = ".") -> list[str]:
    """Return `targeted` as PEFT takes a list of modules: by the ends of names where that takes nothing else."""
    targeted = set(targeted)
    short = {module.rsplit(".", 1)[1] for module in targeted}
    taken = {module for module in known if any(f"{dot}{module}".endswith(f"{dot}{name}") for name in short)}
    return sorted(short if taken == targeted else targeted)


def every(known: Modules) -> set[str]:
    """Return all modules of all places."""
    return {module for layers in known.values() for module in layers}


def exactly(places: Iterable[Path], leaf: str = "") -> list[str]:
    """Return targets that match these places (or this leaf in them) and nothing else."""
    return sorted({f"^{spelled((*place, leaf) if leaf else place)}$" for place in places})


def kernel_at(model: Model, place: Path) -> tuple[int, ...]:
    """Return the shape `(in, out)` of a layer's kernel."""
    return flatten(model.params)[(*place, "kernel")].shape[1:]


def _stacked(file: SafetensorsFile, tensors: Sequence[str]) -> jax.Array:
    return jnp.asarray(np.stack([file.read(name) for name in tensors]), jnp.float32)
