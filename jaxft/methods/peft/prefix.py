"""Prefixes of decoder-only models in PEFT: the keys and values of all layers, flat, in one row for each token.

    prompt_embeddings [P, L * 2 * K * H], of each layer its keys and then its values, head after head

PEFT hands them to the model as its cache. The tokens after it then count their positions from P, while here they
count from 0 and a prefix has no position. A query rotated by P more meets a key as the query would a key rotated by P
less: so keys are rotated by -P on the way in and by P on the way out (values are never rotated).

PEFT's prefixes of T5 reach the decoder's self-attention alone and are shared between layers: they are not exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError
from jaxft.methods.peft.files import check_tensors, count, refuse_unsupported
from jaxft.models import DecoderConfig, Model
from jaxft.models.attention import rotary, rotate
from jaxft.models.decoder import FULL
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSOR = "prompt_embeddings"
SETTINGS = """
    num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers encoder_hidden_size
    prefix_projection init_weights
"""


def write(settings: Mapping[str, Any], trainable: Any, own: Any, model: Model) -> tuple[dict, dict] | None:
    if not isinstance(model.config, DecoderConfig) or not _rotates_alike(model.config):
        return None
    prefix = trainable["layers"][0]["attention"]
    key = _turned(prefix["key"], model.config, prefix["key"].shape[1])
    flat = jnp.stack([key, prefix["value"]], axis=1)  # [L, 2, P, K*H]
    length = flat.shape[2]
    config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": length, **_sizes(model.config)}
    return config, {TENSOR: np.ascontiguousarray(np.asarray(flat.transpose(2, 0, 1, 3)).reshape(length, -1))}


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    if isinstance(model.config, DecoderConfig) and not _rotates_alike(model.config):
        raise UsageError(
            f"{where}: PEFT counts a prefix as positions, which {model.config.family}'s layers do not all rotate by"
        )
    if not isinstance(model.config, DecoderConfig):
        raise UsageError(
            f"{where}: PEFT's PREFIX_TUNING of an encoder-decoder is not supported: it has a prefix in the decoder's "
            "self-attention alone, and its layers share them"
        )
    refuse_unsupported(config, SETTINGS, where)
    length = count(config, "num_virtual_tokens", where, "length")
    for name, size in _sizes(model.config).items():
        if config.get(name) not in (None, size):
            raise UsageError(f"{where}: {name} = {config[name]!r}, but {model.source or 'this model'} has {size}")
    sizes = (model.config.num_layers, 2, model.config.num_kv_heads * model.config.head_dim)
    check_tensors(file, {TENSOR: (length, int(np.prod(sizes)))}, model)
    key, value = jnp.asarray(file.read(TENSOR), jnp.float32).reshape(length, *sizes).transpose(2, 1, 0, 3)
    prefix = {"key": _turned(key, model.config, -length), "value": value}
    return {"name": "prefix", "length": length, "hidden": 0}, {"layers": ({"attention": prefix},)}, {}


def _sizes(config: DecoderConfig) -> dict[str, int]:
    return {
        "num_layers": config.num_layers,
        "num_attention_heads": config.num_kv_heads,
        "token_dim": config.num_kv_heads * config.head_dim,
        "num_transformer_submodules": 1,
    }


def _turned(key: jax.Array, config: DecoderConfig, by: int) -> jax.Array:
    heads = key.reshape(*key.shape[:2], config.num_kv_heads, config.head_dim)  # [L, P, K, H]
    width, theta = int(config.head_dim * config.rotary_share), config.rope_theta or 0.0
    return rotate(heads, rotary(jnp.full((1, 1), by), width, theta, config.rope_scaling)).reshape(key.shape)


def _rotates_alike(config: DecoderConfig) -> bool:
    # A prefix of ours has no position: in PEFT's files its keys are turned back by as much as positions grow there.
    return config.rope_theta is not None and config.kinds == (FULL,)
