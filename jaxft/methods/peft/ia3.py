"""IA3 in PEFT: one `ia3_l` a module, `[F, 1]` on its output or, of feed-forward modules, `[1, D]` on its input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.methods import trees
from jaxft.methods.peft.files import refuse_unsupported
from jaxft.methods.peft.modules import (
    every,
    exactly,
    kernel_at,
    modules,
    read_places,
    shortest,
    tensor_name,
    write_place,
)
from jaxft.models import Model
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSOR = "ia3_l"
SETTINGS = "feedforward_modules init_ia3_weights fan_in_fan_out"


def write(settings: Mapping[str, Any], trainable: Any, own: Any, model: Model) -> tuple[dict, dict] | None:
    known, scaled = modules(model), trees.places(trainable)
    if any(len(vectors) > 1 for vectors in scaled.values()):
        return None  # a module scaled on both sides
    tensors: dict[str, Any] = {}
    for place, vectors in scaled.items():
        for name, vector in vectors.items():
            tensors |= write_place(known[place], TENSOR, vector[:, None] if name == "input" else vector[..., None])
    targeted = every({place: known[place] for place in scaled})
    forward = every({place: known[place] for place, vectors in scaled.items() if "input" in vectors})
    # PEFT matches these two differently, and wants the names of the one among those of the other.
    targets, inputs = shortest(targeted, every(known)), shortest(forward, targeted, dot="")
    if not set(inputs) <= set(targets):
        targets, inputs = sorted(targeted), sorted(forward)
    config = {"peft_type": "IA3", "target_modules": targets, "feedforward_modules": inputs, "fan_in_fan_out": False}
    return config, tensors


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    refuse_unsupported(config, SETTINGS, where)

    def is_input(layers):
        # By the tensor's form: the names in the configuration need not be whole ones.
        return file.shapes.get(tensor_name(layers[0], TENSOR), (0,))[0] == 1

    def expected(place, layers):
        width, out = kernel_at(model, place)
        return {TENSOR: (1, width) if is_input(layers) else (out, 1)}

    known = modules(model)
    leaves, sides = {}, {}
    for place, tensors in read_places(file, model, known, expected).items():
        sides[place] = "input" if is_input(known[place]) else "output"
        vectors = tensors[TENSOR]
        leaves[(*place, sides[place])] = vectors.reshape(len(vectors), -1)
    settings = {
        "name": "ia3",
        **{f"{side}s": exactly(place for place in sides if sides[place] == side) for side in ("output", "input")},
    }
    return settings, trees.nest(leaves), {}
