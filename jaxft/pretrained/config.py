"""Configurations: Hugging Face's `config.json` and GGUF metadata to ours, and ours back to `config.json`.

`config.json` is data: read as plain JSON, and nothing it names is imported. A setting that would change what the model
computes, and that our architectures do not have, is refused by its name rather than ignored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError, nearest
from jaxft.models import DecoderConfig, T5Config

Config = DecoderConfig | T5Config

# Hugging Face's names of the activations that the models have.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}

# Settings of the Llama family with the values under which our decoder computes the same.
LLAMA_NEUTRAL: dict[str, tuple] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "rope_scaling": (None, {}),
    "rope_interleaved": (False, None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
}
T5_NEUTRAL: dict[str, tuple] = {"quantization_config": (None,), "is_encoder_decoder": (True,)}


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
    if kind not in READERS:
        raise UsageError(f"{where}: architecture {kind!r} is not supported{nearest(str(kind), READERS)}")
    try:
        stated = {name: value for name, value in generation.items() if value is not None}
        return checked(READERS[kind](config, {**config, **stated}, where), where)
    except KeyError as problem:
        raise Error(f"{where}/config.json: field {problem} is missing") from problem
    except TypeError as problem:
        raise Error(f"{where}/config.json: a field has a value of the wrong kind ({problem})") from problem


def checked(config: Config, where: str) -> Config:
    """Return `config`; raise `Error` if a field that is a size is no positive whole number."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and (not isinstance(value, int) or value < (0 if "token" in field.name else 1)):
            raise Error(f"{where}: {field.name} = {value!r} is not a size that a model can have")
    return config


def _llama(config: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> DecoderConfig:
    _refuse_unless(config, LLAMA_NEUTRAL, where)
    rope = config.get("rope_parameters") or {}
    _refuse_unless(rope, {"rope_type": ("default",), "partial_rotary_factor": (1, None)}, where)
    ends = _tokens(generation.get("eos_token_id", 2))
    heads = config["num_attention_heads"]
    pad = generation.get("pad_token_id")
    return DecoderConfig(
        family="llama",
        vocab_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp_width=config["intermediate_size"],
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation=_activation(config.get("hidden_act", "silu"), where),
        tie_embeddings=config.get("tie_word_embeddings", False),
        max_length=config.get("max_position_embeddings", 2048),
        bos_token_id=generation.get("bos_token_id", 1),
        eos_token_ids=ends,
        pad_token_id=pad if pad is not None else next(iter(ends), 0),
    )


def _mistral(config: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> DecoderConfig:
    length = config.get("max_position_embeddings", 131072)
    window = config.get("sliding_window", 4096)
    if window is not None and window < length:
        raise UsageError(f"{where}: sliding_window = {window} is not supported: attention here sees the whole context")
    return _llama({"num_key_value_heads": 8, "max_position_embeddings": length, **config}, generation, where)


def _t5(config: Mapping[str, Any], generation: Mapping[str, Any], where: str) -> T5Config:
    _refuse_unless({"is_encoder_decoder": True, **config}, T5_NEUTRAL, where)
    gate, _, activation = config.get("feed_forward_proj", "relu").rpartition("-")
    if gate not in ("", "gated"):
        raise UsageError(f"{where}: feed_forward_proj = {config['feed_forward_proj']!r} is not supported")
    activation = "gelu_new" if (gate, activation) == ("gated", "gelu") else _activation(activation, where)
    # transformers 5 writes tie_word_embeddings = true for every T5 and keeps what it means here in the other field.
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    pad = config.get("pad_token_id", 0) or 0
    start = generation.get("decoder_start_token_id")
    return T5Config(
        family="t5",
        vocab_size=config["vocab_size"],
        num_layers=config["num_layers"],
        num_decoder_layers=config.get("num_decoder_layers") or config["num_layers"],
        width=config["d_model"],
        num_heads=config["num_heads"],
        head_dim=config["d_kv"],
        mlp_width=config["d_ff"],
        gated=gate == "gated",
        activation=activation,
        relative_buckets=config.get("relative_attention_num_buckets", 32),
        relative_max_distance=config.get("relative_attention_max_distance", 128),
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        tie_embeddings=tied is not False,
        eos_token_ids=_tokens(generation.get("eos_token_id", 1)),
        pad_token_id=pad,
        decoder_start_token_id=pad if start is None else start,
    )


READERS: dict[str, Callable[..., Config]] = {"llama": _llama, "mistral": _mistral, "t5": _t5}


def _refuse_unless(config: Mapping[str, Any], neutral: Mapping[str, tuple], where: str) -> None:
    for name, values in neutral.items():
        value = config.get(name, values[0])
        if isinstance(value, Mapping) and value.get("rope_type", value.get("type")) == "default":
            continue
        if value not in values:
            raise UsageError(f"{where}: {name} = {value!r} is not supported; it would change what the model computes")


def _activation(name: str, where: str) -> str:
    if name not in ACTIVATIONS:
        raise UsageError(f"{where}: activation {name!r} is not supported{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _tokens(value: int | list[int] | None) -> tuple[int, ...]:
    return () if value is None else (value,) if isinstance(value, int) else tuple(value)


def to_hf(config: Config) -> tuple[dict, dict]:
    """Return the contents of `config.json` and `generation_config.json` for ours."""
    ends: Any = list(config.eos_token_ids)
    ends = ends[0] if len(ends) == 1 else ends or None
    tokens = {"eos_token_id": ends, "pad_token_id": config.pad_token_id}
    if isinstance(config, T5Config):
        tokens["decoder_start_token_id"] = config.decoder_start_token_id
        return {**_t5_to_hf(config), **tokens}, tokens
    tokens["bos_token_id"] = config.bos_token_id
    # PyTorch gives the embedding of a configuration's padding token no gradient: never name a token that is trained.
    pad = None if config.pad_token_id in config.eos_token_ids else config.pad_token_id
    return {**_llama_to_hf(config), **tokens, "pad_token_id": pad}, tokens


def _llama_to_hf(config: DecoderConfig) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "gelu_pytorch_tanh" if config.activation == "gelu_new" else config.activation,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_length,
        "attention_bias": config.attention_bias,
        "mlp_bias": False,
    }


def _t5_to_hf(config: T5Config) -> dict:
    activation = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "d_model": config.width,
        "num_heads": config.num_heads,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_width,
        "feed_forward_proj": f"gated-{activation}" if config.gated else activation,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }
