"""Soft prompts in PEFT: one tensor of embeddings, whether a network made them (P_TUNING) or not (PROMPT_TUNING)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxft.methods.peft.files import check_tensors, count, refuse_unsupported
from jaxft.models import Model, T5Config
from jaxft.pretrained.safetensors_file import SafetensorsFile

TENSOR = "prompt_embeddings"
SETTINGS = """
    num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers
    prompt_tuning_init prompt_tuning_init_text prompt_tuning_init_state_dict_path tokenizer_name_or_path
    tokenizer_kwargs encoder_reparameterization_type encoder_hidden_size encoder_num_layers encoder_dropout
"""


def write(settings: Mapping[str, Any], trainable: Any, own: Any, model: Model) -> tuple[dict, dict] | None:
    if isinstance(model.config, T5Config):
        if set(trainable) != {"encoder"}:
            return None  # PEFT's prompts stand before the encoder's input
        trainable = trainable["encoder"]
    embedding = np.asarray(trainable["embedding"])
    config = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": embedding.shape[0],
        "token_dim": embedding.shape[1],
        # One: PEFT gives T5 a second set of rows for the decoder, which no gradient ever reaches.
        "num_transformer_submodules": 1,
        "num_attention_heads": model.config.num_heads,
        "num_layers": model.config.num_layers,
        "prompt_tuning_init": "RANDOM",
    }
    return config, {TENSOR: np.ascontiguousarray(embedding)}


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[dict, Any, dict]:
    refuse_unsupported(config, SETTINGS, where)
    length = count(config, "num_virtual_tokens", where, "length")
    t5 = isinstance(model.config, T5Config)
    sets = config.get("num_transformer_submodules") or (2 if t5 else 1)
    check_tensors(file, {TENSOR: (length * sets, model.config.width)}, model)
    trainable = {"embedding": jnp.asarray(file.read(TENSOR)[:length], jnp.float32)}
    return {"name": "prompt", "length": length}, {"encoder": trainable} if t5 else trainable, {}
