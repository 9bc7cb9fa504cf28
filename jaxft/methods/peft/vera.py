"""VeRA in PEFT: two vectors a module, and the shared pair of random matrices in the file itself.

PEFT can draw the pair again from a seed, with torch's generator: such files are refused, for they hold half of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError
from jaxft.methods import trees
from jaxft.methods.peft.files import count, refuse_unsupported
from jaxft.methods.peft.modules import every, exactly, kernel_at, modules, read_places, shortest, write_place
from jaxft.models import Model
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSORS = {"d": "vera_lambda_d", "b": "vera_lambda_b"}
SHARED = {"a": "base_model.vera_A", "b": "base_model.vera_B"}
SETTINGS = "r vera_dropout d_initial save_projection projection_prng_key init_weights"


def write(settings: Mapping[str, Any], trainable: Any, own: Mapping[str, Any], model: Model) -> tuple[dict, dict]:
    known, vectors = modules(model), trees.places(trainable)
    tensors = {SHARED[name]: np.ascontiguousarray(np.asarray(matrix).T) for name, matrix in own["vera"].items()}
    for place, pair in vectors.items():
        for name, stacked in pair.items():
            tensors |= write_place(known[place], TENSORS[name], stacked)
    config = {
        "peft_type": "VERA",
        "r": settings["rank"],
        "target_modules": shortest(every({place: known[place] for place in vectors}), every(known)),
        "d_initial": settings["d_initial"],
        "vera_dropout": settings["dropout"],
        "save_projection": True,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    return config, tensors


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    refuse_unsupported(config, SETTINGS, where)
    rank = count(config, "r", where, "rank")
    if not config.get("save_projection", True):
        raise UsageError(
            f"{where}: save_projection is off, so vera_A and vera_B are not in the file; save it with them"
        )

    def expected(place, layers):
        return {TENSORS["d"]: (rank,), TENSORS["b"]: kernel_at(model, place)[1:]}

    def shared(found):
        width, out = (max(kernel_at(model, place)[axis] for place in found) for axis in (0, 1))
        return {SHARED["a"]: (rank, width), SHARED["b"]: (out, rank)}

    found = read_places(file, model, modules(model), expected, shared)
    leaves = {(*place, name): tensors[TENSORS[name]] for place, tensors in found.items() for name in TENSORS}
    settings = {
        "name": "vera",
        "rank": rank,
        "targets": exactly(found),
        "d_initial": config.get("d_initial", 0.1),
        "dropout": config.get("vera_dropout", 0.0),
    }
    pair = {name: jnp.asarray(file.read(tensor).T, jnp.float32) for name, tensor in SHARED.items()}
    return settings, trees.nest(leaves), {"vera": pair}
