"""Selective tuning of norms in PEFT: LN_TUNING, the whole weight of each norm, under the module's own name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.methods import trees
from jaxft.methods.peft.files import refuse_unsupported
from jaxft.methods.peft.modules import every, exactly, modules, read_places, shortest, write_place
from jaxft.models import Model
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSOR = "ln_tuning_layers.weight"


def write(settings: Mapping[str, Any], trainable: Any, own: Any, model: Model) -> tuple[dict, dict] | None:
    known, scales = modules(model, "scale"), trees.flatten(trainable)
    if settings["last"] is not None or any(path[-1] != "scale" for path in scales):
        return None  # other weights than norms, or not those of all layers
    tensors: dict[str, Any] = {}
    for path, scale in scales.items():
        tensors |= write_place(known[path[:-1]], TENSOR, scale if "layers" in path else scale[None])
    targets = shortest(every({path[:-1]: known[path[:-1]] for path in scales}), every(known))
    return {"peft_type": "LN_TUNING", "target_modules": targets}, tensors


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    refuse_unsupported(config, "", where)
    found = read_places(file, model, modules(model, "scale"), lambda place, layers: {TENSOR: (model.config.width,)})
    leaves = {
        (*place, "scale"): tensors[TENSOR] if "layers" in place else tensors[TENSOR][0]
        for place, tensors in found.items()
    }
    return {"name": "selective", "targets": exactly(found, "scale")}, trees.nest(leaves), {}
