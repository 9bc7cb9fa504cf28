"""Configurations: Hugging Face's `config.json` and GGUF metadata to ours, and ours back.

`config.json` is data: read as plain JSON, and nothing it names is imported. A setting that would change what the model
computes, and that our architectures do not have, is refused by its name rather than ignored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import Error, UsageError, nearest
from jaxft.models import DecoderConfig, T5Config
from jaxft.models.attention import RopeScaling
from jaxft.pretrained.families import BY_GGUF, BY_TYPE, Config
from jaxft.pretrained.families.family import refuse_unless
from jaxft.pretrained.gguf_file import GgufFile

# Keys of GGUF, behind the architecture's name, that change what is computed, with the values under which nothing does.
GGUF_NEUTRAL: dict[str, tuple] = {
    "expert_count": (0,),
    "attention.scale": (),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "rope.scale_linear": (1.0,),
    "logit_scale": (1.0,),
    "embedding_scale": (1.0,),
    "residual_scale": (1.0,),
}


def read_folder(folder: Path) -> Config:
    """Read a model directory's `config.json`, and the tokens that end a text from `generation_config.json`."""
    config, generation = folder / "config.json", folder / "generation_config.json"
    return from_hf(read_json(config), read_json(generation) if generation.is_file() else {}, str(folder))


def read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path.parent}: no {path.name}, so this is no model directory") from None
    except (ValueError, OSError) as problem:
        raise Error(f"{path}: not readable as JSON ({problem})") from problem
    if not isinstance(value, dict):
        raise Error(f"{path}: not a JSON object")
    return value


def from_hf(config: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> Config:
    """Return ours for the contents of a `config.json` and a `generation_config.json`.

    Raises `UsageError` for an architecture or a setting that the models do not have, `Error` for a missing field.
    """
    kind = config.get("model_type")
    if kind not in BY_TYPE:
        raise _unknown(kind, BY_TYPE, where)
    try:
        stated = {name: value for name, value in generation.items() if value is not None}
        return checked(BY_TYPE[kind].from_hf({**_filled(config, where), **stated}, config, where), where)
    except KeyError as problem:
        raise Error(f"{where}/config.json: field {problem} is missing") from problem
    except (TypeError, AttributeError) as problem:
        raise Error(f"{where}/config.json: a field has a value of the wrong kind ({problem})") from problem


def _unknown(kind: Any, known: Mapping[str, Any], where: str) -> UsageError:
    hint = nearest(str(kind), known)
    hint += "" if "known" in hint else f" Known: {', '.join(known)}"
    return UsageError(f"{where}: architecture {kind!r} is not supported{hint}")


def _filled(config: Mapping[str, Any], where: str) -> dict:
    """Return all fields; what the file leaves out, or spells as of old, is as transformers reads it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**config).to_dict()
    except Exception as problem:  # transformers' own checks raise many kinds
        reason = " ".join(str(problem).split())
        raise Error(f"{where}/config.json: transformers cannot read it ({reason})") from problem


def checked(config: Config, where: str) -> Config:
    """Return `config`; raise `Error` if a field that is a size is no positive whole number."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and (not isinstance(value, int) or value < (0 if "token" in field.name else 1)):
            raise Error(f"{where}: {field.name} = {value!r} is not a size that a model can have")
    return config


def to_hf(config: Config) -> tuple[dict, dict]:
    """Return the contents of `config.json` and `generation_config.json` for ours."""
    family = BY_TYPE[config.family]
    ends: Any = list(config.eos_token_ids)
    ends = ends[0] if len(ends) == 1 else ends or None
    tokens = {"eos_token_id": ends, "pad_token_id": config.pad_token_id}
    written = {"architectures": [family.architecture], "model_type": family.model_type, **family.to_hf(config)}
    if isinstance(config, T5Config):
        tokens["decoder_start_token_id"] = config.decoder_start_token_id
        return written | tokens, tokens
    tokens["bos_token_id"] = config.bos_token_id
    # PyTorch gives the embedding of a configuration's padding token no gradient: never name a token that is trained.
    pad = None if config.pad_token_id in config.eos_token_ids else config.pad_token_id
    return {**written, **tokens, "pad_token_id": pad}, tokens


def from_gguf(file: GgufFile) -> Config:
    """Return the configuration that a GGUF file's metadata and the shapes of its tensors describe.

    Raises `UsageError` for an architecture or setting that the models do not have, `Error` for a missing key.
    """
    metadata, where = file.metadata, file.where
    kind = metadata.get("general.architecture")
    if kind not in BY_GGUF:
        raise _unknown(kind, BY_GGUF, where)
    if metadata.get("split.count", 0) > 1:
        raise UsageError(f"{where}: one of {metadata['split.count']} parts; join them with llama-gguf-split --merge")
    stated = {key: metadata[f"{kind}.{key}"] for key in GGUF_NEUTRAL if f"{kind}.{key}" in metadata}
    refuse_unless(stated, GGUF_NEUTRAL, where)
    try:
        config = checked(BY_GGUF[kind].from_gguf(metadata, file.shapes, where), where)
        if "rope_freqs.weight" in file.shapes and isinstance(config, DecoderConfig):
            config = dataclasses.replace(config, rope_scaling=_llama3(file.read("rope_freqs.weight"), config, where))
        return config
    except KeyError as problem:
        raise Error(f"{where}: metadata or tensor {problem} is missing") from problem
    except (TypeError, ZeroDivisionError) as problem:
        raise Error(f"{where}: the metadata has a value of the wrong kind ({problem})") from problem


def rope_divisors(config: DecoderConfig) -> np.ndarray | None:
    """Return what GGUF's `rope_freqs.weight` holds: the numbers that divide the rotary frequencies, or None."""
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3" or config.rope_theta is None:
        return None
    width = int(config.head_dim * config.rotary_share)
    plain = config.rope_theta ** (-np.arange(0, width, 2) / width)
    return (plain / config.rope_scaling.scaled(plain)).astype(np.float32)


def _llama3(divisors: np.ndarray, config: DecoderConfig, where: str) -> RopeScaling:
    # The file holds the divisors and not what they were made of: the factors of Llama 3.1 to 3.3 are taken, and the
    # length that was first trained on follows from a divisor between the two.
    factor = round(float(divisors.max()), 4)
    for original in (8192, *_lengths(divisors.astype(np.float64), factor, config)):
        scaling = RopeScaling("llama3", factor, original=original)
        expected = rope_divisors(dataclasses.replace(config, rope_scaling=scaling))
        if expected is not None and expected.shape == divisors.shape and np.allclose(expected, divisors, rtol=1e-4):
            return scaling
    raise UsageError(f"{where}: rope_freqs.weight is not the scaling of Llama 3; no other is supported")


def _lengths(divisors: np.ndarray, factor: float, config: DecoderConfig) -> list[int]:
    if config.rope_theta is None or not np.isfinite(divisors).all() or factor <= 1:
        return []
    between = np.flatnonzero((divisors > 1.001) & (divisors < 0.999 * factor))
    kept = (1 / divisors[between] - 1 / factor) / (1 - 1 / factor)
    frequencies = config.rope_theta ** (-2 * between / int(config.head_dim * config.rotary_share))
    scaling = RopeScaling("llama3", factor)
    turns = scaling.low + kept * (scaling.high - scaling.low)
    return [round(length) for length in (2 * np.pi * turns / frequencies)[:1]]
