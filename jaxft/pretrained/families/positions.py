"""How a decoder-only model's layers see positions: windows and rotary settings, in config.json and in GGUF metadata."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.models import DecoderConfig
from jaxft.models.attention import RopeScaling
from jaxft.models.decoder import FULL, LOCAL, PLAIN
from jaxft.pretrained.families.family import Fields, refuse_unless


def decimal(value: float) -> float:
    # Kept as float32 in the file: 9.999999747378752e-06 was 1e-05.
    return float(str(np.float32(value)))


def layers_from_hf(fields: Fields, count: int, where: str) -> dict[str, Any]:
    window = fields.get("sliding_window") if fields.get("use_sliding_window", True) else None
    types = fields.get("layer_types") or ["sliding_attention"] * count
    known = {"sliding_attention": LOCAL if window else FULL, "full_attention": FULL}
    unknown = sorted(set(types) - set(known))
    if unknown:
        raise UsageError(f"{where}: layers of type {unknown[0]!r} are not supported")
    kinds = [known[name] for name in types]
    for layer, turned in enumerate(fields.get("no_rope_layers") or ()):
        if not turned and kinds[layer] == LOCAL:
            raise UsageError(f"{where}: a layer with a sliding window and without rotary positions is not supported")
        kinds[layer] = kinds[layer] if turned else PLAIN
    if len(kinds) != count:
        raise UsageError(f"{where}: {len(kinds)} layer_types for {count} layers")
    return {"layer_kinds": () if set(kinds) == {FULL} else tuple(kinds), "window": window if LOCAL in kinds else None}


def layers_to_hf(config: DecoderConfig) -> dict[str, Any]:
    if not config.layer_kinds:
        return {"sliding_window": None}
    made: dict[str, Any] = {"sliding_window": config.window}
    made["layer_types"] = ["sliding_attention" if kind == LOCAL else "full_attention" for kind in config.layer_kinds]
    if LOCAL in config.layer_kinds:
        made["use_sliding_window"] = True
    if PLAIN in config.layer_kinds:
        made["no_rope_layers"] = [int(kind != PLAIN) for kind in config.layer_kinds]
    return made


def rope_from_hf(fields: Fields, where: str) -> dict[str, Any]:
    parameters = fields.get("rope_parameters") or {}
    local = parameters.get("sliding_attention")
    if local is not None:
        parameters = parameters["full_attention"]
        refuse_unless(local, {"rope_type": ("default",)}, f"{where}: sliding_attention")
    made: dict[str, Any] = {"rope_theta": float(parameters.get("rope_theta") or 10000.0)}
    made["rotary_share"] = parameters.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1.0
    if local is not None:
        made["local_theta"] = float(local["rope_theta"])
    kind = parameters.get("rope_type", "default")
    if kind == "linear":
        made["rope_scaling"] = RopeScaling("linear", parameters["factor"])
    elif kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        made["rope_scaling"] = RopeScaling("llama3", *(parameters[name] for name in names))
    elif kind != "default":
        raise UsageError(f"{where}: rope_type {kind!r} is not supported (linear and llama3 are)")
    return made


def rope_to_hf(config: DecoderConfig) -> dict[str, Any]:
    made: dict[str, Any] = {"rope_theta": config.rope_theta}
    if config.rotary_share != 1:
        made["partial_rotary_factor"] = config.rotary_share
    if config.local_theta is not None:
        made["rope_local_base_freq"] = config.local_theta
    scaling = config.rope_scaling
    if scaling is not None:
        made["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            made["rope_scaling"] |= {
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.original,
            }
    return made


def scaling_from_gguf(metadata: Fields, gguf: str, where: str) -> RopeScaling | None:
    kind = metadata.get(f"{gguf}.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise UsageError(f"{where}: rope.scaling.type = {kind!r} is not supported (linear is)")
    return RopeScaling("linear", decimal(metadata[f"{gguf}.rope.scaling.factor"]))


def scaling_to_gguf(config: DecoderConfig, gguf: str) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None:
        return {}
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if gguf != "llama":
        raise UsageError(f"GGUF's {config.family} has no rope scaling of kind {scaling.kind!r}")
    return {}  # a tensor of its own says it
