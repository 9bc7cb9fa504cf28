"""GGUF metadata to our configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxft.errors import Error, UsageError, nearest
from jaxft.models import DecoderConfig, T5Config
from jaxft.pretrained.config import checked

Metadata = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# Keys (behind the architecture's name) that change what is computed, with the values under which nothing does.
NEUTRAL: dict[str, tuple] = {
    "rope.scaling.type": ("none",),
    "rope.scale_linear": (1.0,),
    "expert_count": (0,),
    "attention.sliding_window": (0,),
    "attention.scale": (),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "logit_scale": (1.0,),
    "embedding_scale": (1.0,),
    "residual_scale": (1.0,),
}


def from_gguf(metadata: Metadata, shapes: Shapes, where: str) -> DecoderConfig | T5Config:
    """Return the configuration that the metadata and the tensors' shapes describe.

    Raises `UsageError` for an architecture or setting that the models do not have, `Error` for a missing key.
    """
    kind = metadata.get("general.architecture")
    if kind not in READERS:
        raise UsageError(f"{where}: architecture {kind!r} is not supported{nearest(str(kind), READERS)}")
    if metadata.get("split.count", 0) > 1:
        raise UsageError(f"{where}: one of {metadata['split.count']} parts; join them with llama-gguf-split --merge")
    for name, values in NEUTRAL.items():
        if f"{kind}.{name}" in metadata and metadata[f"{kind}.{name}"] not in values:
            value = metadata[f"{kind}.{name}"]
            raise UsageError(f"{where}: {name} = {value!r} is not supported; it would change what the model computes")
    if "rope_freqs.weight" in shapes:
        raise UsageError(f"{where}: rope_freqs.weight (rope scaling) is not supported; it changes what is computed")
    try:
        return checked(READERS[kind](metadata, shapes, where), where)
    except KeyError as problem:
        raise Error(f"{where}: metadata or tensor {problem} is missing") from problem
    except (TypeError, ZeroDivisionError) as problem:
        raise Error(f"{where}: the metadata has a value of the wrong kind ({problem})") from problem


def _llama(metadata: Metadata, shapes: Shapes, where: str) -> DecoderConfig:
    def get(name, *default):
        return metadata.get(f"llama.{name}", *default) if default else metadata[f"llama.{name}"]

    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    rotated = get("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise UsageError(f"{where}: rope.dimension_count = {rotated} of {head_dim}: partial rotation is not supported")
    ends = _ends(metadata)
    return DecoderConfig(
        family="llama",
        vocab_size=shapes["token_embd.weight"][0],
        num_layers=get("block_count"),
        width=width,
        num_heads=heads,
        num_kv_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim,
        mlp_width=get("feed_forward_length"),
        rope_theta=float(get("rope.freq_base", 10000.0)),
        norm_eps=_decimal(get("attention.layer_norm_rms_epsilon")),
        tie_embeddings="output.weight" not in shapes,
        attention_bias="blk.0.attn_q.bias" in shapes,
        max_length=get("context_length", 2048),
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_ids=ends,
        pad_token_id=metadata.get("tokenizer.ggml.padding_token_id", next(iter(ends), 0)),
    )


def _t5(metadata: Metadata, shapes: Shapes, where: str) -> T5Config:
    def get(name, *default):
        return metadata.get(f"t5.{name}", *default) if default else metadata[f"t5.{name}"]

    # The file states no activation: llama.cpp takes gated for v1.1's GELU and plain for v1.0's ReLU.
    gated = "enc.blk.0.ffn_gate.weight" in shapes
    layers = get("block_count")
    return T5Config(
        family="t5",
        vocab_size=shapes["token_embd.weight"][0],
        num_layers=layers,
        num_decoder_layers=get("decoder_block_count", layers),
        width=get("embedding_length"),
        num_heads=get("attention.head_count"),
        head_dim=get("attention.key_length"),
        mlp_width=get("feed_forward_length"),
        gated=gated,
        activation="gelu_new" if gated else "relu",
        relative_buckets=get("attention.relative_buckets_count", 32),
        norm_eps=_decimal(get("attention.layer_norm_epsilon", get("attention.layer_norm_rms_epsilon", 1e-6))),
        tie_embeddings="output.weight" not in shapes,
        eos_token_ids=_ends(metadata) or (1,),
        pad_token_id=metadata.get("tokenizer.ggml.padding_token_id", 0),
        decoder_start_token_id=get("decoder_start_token_id", 0),
    )


def _decimal(value: float) -> float:
    # Kept as float32 in the file: 9.999999747378752e-06 was 1e-05.
    return float(str(np.float32(value)))


def _ends(metadata: Metadata) -> tuple[int, ...]:
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return tuple(dict.fromkeys(metadata[key] for key in keys if key in metadata))


READERS: dict[str, Callable[..., DecoderConfig | T5Config]] = {"llama": _llama, "t5": _t5}
