"""LoRA's family in PEFT: rsLoRA and DoRA are switches of LORA, ranks and alphas of some modules are patterns.

PiSSA, whose base stays untouched here, is an ordinary LoRA of twice the rank there: `s (x A B - x A0 B0)` is
`s x [A | A0] [B; -B0]`, and alpha grows with the rank so that the scale s stays the same.

Where the model there has one module for several of our kernels (GPT-2's c_attn, Phi-3's qkv_proj), our updates are
written as one of their ranks' sum, with B in blocks and the scales in it, and one of PEFT's is read as several with the
same A.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods import trees
from jaxft.methods.lora import own_settings, scales
from jaxft.methods.peft.files import count, refuse_unsupported
from jaxft.methods.peft.modules import (
    Fused,
    every,
    exactly,
    fused,
    kernel_at,
    modules,
    read_places,
    shortest,
    write_place,
)
from jaxft.models import Model
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSORS = {"a": "lora_A.weight", "b": "lora_B.weight", "m": "lora_magnitude_vector"}
# Settings that are read here, or say how training went or started, or how PyTorch's base lies (fan_in_fan_out).
SETTINGS = """
    r lora_alpha lora_dropout use_rslora use_dora rank_pattern alpha_pattern init_lora_weights megatron_config
    megatron_core loftq_config eva_config corda_config lora_ga_config qalora_group_size runtime_config
    ensure_weight_tying fan_in_fan_out
"""
# Ways of starting LoRA that change the base's weights, which this base does not share.
CHANGED_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


def write(settings: Mapping[str, Any], trainable: Any, own: Mapping[str, Any], model: Model) -> tuple[dict, dict]:
    known, pairs = modules(model), trees.places(trainable)
    factors = scales(pairs, settings)
    alphas = own_settings(pairs, settings["alpha_pattern"], settings["alpha"], "alpha_pattern")
    wider = 2 if settings["name"] == "pissa" else 1
    louder = math.sqrt(wider) if settings["rslora"] else wider
    if wider == 2:
        pairs = _with_anchor(pairs, trees.places(own["pissa"]))
    alphas = {place: _number(louder * alpha) for place, alpha in alphas.items()}
    for first, module in fused(model).items():
        inside = {place: pairs.pop(place) for place in module.parts if place in pairs}
        if inside:
            pairs[first], known[first] = _joined(inside, module, factors), module.layers
            width = pairs[first]["a"].shape[-1]
            alphas[first] = math.sqrt(width) if settings["rslora"] else width
    tensors: dict[str, Any] = {}
    ranks = {}
    for place, pair in pairs.items():
        ranks[place] = pair["a"].shape[-1]
        for name, stacked in pair.items():
            array = stacked if name == "m" else jnp.swapaxes(stacked, -1, -2)
            tensors |= write_place(known[place], TENSORS[name], array)
    rank, alpha = wider * settings["rank"], _number(louder * settings["alpha"])
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": settings["dropout"],
        "target_modules": shortest(every({place: known[place] for place in pairs}), every(known)),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": settings["rslora"],
        "use_dora": settings["name"] == "dora",
        "rank_pattern": {module: ranks[place] for place in pairs for module in known[place] if ranks[place] != rank},
        "alpha_pattern": {
            module: alphas[place] for place in pairs for module in known[place] if alphas[place] != alpha
        },
    }
    return config, tensors


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    refuse_unsupported(config, SETTINGS, where)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise UsageError(f"{where}: init_lora_weights = {start!r} changed the base; convert it with peft")
    count(config, "r", where, "rank")
    dora = bool(config.get("use_dora"))
    joined = {} if dora else fused(model)

    def expected(place, layers):
        width, out = kernel_at(model, place)
        out = joined[place].parts[place][2] if place in joined else out
        rank = _own(config, "rank_pattern", "r", layers, where)
        shapes = {"a": (rank, width), "b": (out, rank)} | ({"m": (out,)} if dora else {})
        return {TENSORS[name]: shape for name, shape in shapes.items()}

    known = modules(model) | {place: module.layers for place, module in joined.items()}
    leaves: dict[trees.Path, Any] = {}
    ranks, alphas = {}, {}
    for first, tensors in read_places(file, model, known, expected).items():
        for place, (start, stop, _) in joined[first].parts.items() if first in joined else [(first, (0, None, 0))]:
            ranks[place] = _own(config, "rank_pattern", "r", known[first], where)
            alphas[place] = _own({"lora_alpha": 8, **config}, "alpha_pattern", "lora_alpha", known[first], where)
            leaves[(*place, "a")] = jnp.swapaxes(tensors[TENSORS["a"]], -1, -2)
            leaves[(*place, "b")] = jnp.swapaxes(tensors[TENSORS["b"]], -1, -2)[..., start:stop]
            if dora:
                leaves[(*place, "m")] = tensors[TENSORS["m"]]
    rank, alpha = config["r"], config.get("lora_alpha", 8)
    settings = {
        "name": "dora" if dora else "lora",
        "rank": rank,
        "alpha": alpha,
        "targets": exactly(ranks),
        "dropout": config.get("lora_dropout", 0.0),
        "rslora": bool(config.get("use_rslora")),
        "rank_pattern": {exactly([place])[0]: own for place, own in ranks.items() if own != rank},
        "alpha_pattern": {exactly([place])[0]: own for place, own in alphas.items() if own != alpha},
    }
    return settings, trees.nest(leaves), {}


def apart(trainable: Any) -> tuple[Any, dict]:
    """Take what `write` made of PiSSA, `[A | A0]` and `[B; -B0]`, apart again."""
    now: dict[trees.Path, Any] = {}
    start: dict[trees.Path, Any] = {}
    for place, pair in trees.places(trainable).items():
        rank = pair["a"].shape[-1] // 2
        now |= {(*place, "a"): pair["a"][..., :rank], (*place, "b"): pair["b"][..., :rank, :]}
        start |= {(*place, "a"): pair["a"][..., rank:], (*place, "b"): -pair["b"][..., rank:, :]}
    return trees.nest(now), {"pissa": trees.nest(start)}


def _with_anchor(pairs, starts):
    return {
        place: {
            "a": jnp.concatenate([pair["a"], starts[place]["a"]], axis=-1),
            "b": jnp.concatenate([pair["b"], -starts[place]["b"]], axis=-2),
        }
        for place, pair in pairs.items()
    }


def _joined(pairs: Mapping[trees.Path, Any], module: Fused, factors: Mapping[trees.Path, float]) -> dict[str, Any]:
    blocks = []
    for place, pair in pairs.items():
        start, stop, total = module.parts[place]
        blocks.append(jnp.pad(pair["b"] * factors[place], ((0, 0), (0, 0), (start, total - stop))))
    return {"a": jnp.concatenate([pair["a"] for pair in pairs.values()], axis=-1), "b": jnp.concatenate(blocks, axis=1)}


def _own(config: Mapping[str, Any], field: str, default: str, layers: Sequence[str], where: Path) -> Any:
    # As PEFT does: the first key that matches the end of a module's name.
    pattern = config.get(field) or {}
    try:
        keys = [next((key for key in pattern if re.match(rf"(.*\.)?({key})$", module)), None) for module in layers]
    except re.error as problem:
        raise UsageError(f"{where}: {field} is not a regular expression ({problem})") from None
    values = {config[default] if key is None else pattern[key] for key in keys}
    if len(values) > 1:
        raise UsageError(
            f"{where}: {field} gives {layers[0]} and the layers after it {sorted(values)}; jaxft stacks them: one value"
        )
    return values.pop()


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
