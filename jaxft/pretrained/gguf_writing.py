"""A model as a GGUF file, for llama.cpp and what is built on it.

    save_gguf("model.gguf", model, params, dtype="q8_0")

Kernels and embeddings are stored in the wanted kind, everything else (norms, biases, learned positions) in float32.
Tensors are laid out and quantised one at a time: the host holds one of them, never the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.models import DecoderConfig, Model
from jaxft.pretrained import config as configs
from jaxft.pretrained import names, tokenizer_writing
from jaxft.pretrained.atomic import check_room, replaced_file
from jaxft.pretrained.card import license_of
from jaxft.pretrained.families import BY_TYPE
from jaxft.pretrained.saving import Parts, check_finite, files_of, whole

# What a person may write, and ggml's name of it: kinds that the gguf package can quantise to.
KINDS = {
    **{"f32": "F32", "float32": "F32", "f16": "F16", "float16": "F16", "bf16": "BF16", "bfloat16": "BF16"},
    **{name: name.upper() for name in ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")},
}


def save_gguf(path: Path | str, model: Model, params: Any = None, *, dtype: str = "f16") -> None:
    """Write `params` (default: the model's own) with configuration and tokenizer as one GGUF file.

    `dtype` is a kind of `KINDS`; a tensor whose rows do not divide into its blocks is stored in float16. The file
    appears whole or not at all. Raises `UsageError` for an unknown kind, for a model, configuration or tokenizer that
    GGUF (or llama.cpp, where a file cannot say it) does not have, and if `path` is another kind of file; `Error` if
    there is no room for it or it cannot be written.
    """
    params = model.params if params is None else params
    config: Any = model.config
    metadata = metadata_of(model, dtype)
    held = files_of(config, params, "gguf")
    kinds = {file: kind_of(parts, dtype) for file, parts in held.items()}
    divisors = configs.rope_divisors(config) if isinstance(config, DecoderConfig) else None
    check_room(path, gguf_bytes(config, params, dtype))
    with replaced_file(path, b"GGUF") as fresh:
        writer = _writer(fresh, BY_TYPE[config.family].gguf, metadata)
        try:
            if divisors is not None:
                _announce(writer, "rope_freqs.weight", divisors.shape, "F32")
            for file, parts in held.items():
                _announce(writer, file, names.file_shape(parts[0][0], "gguf"), kinds[file])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if divisors is not None:
                writer.write_tensor_data(divisors)
            for file, parts in held.items():
                writer.write_tensor_data(stored(file, whole(parts, "gguf", config), kinds[file]))
        finally:
            writer.close()


def check_kind(dtype: str) -> str:
    """Return ggml's name of a kind; `UsageError` naming the known ones for another."""
    if str(dtype).lower() not in KINDS:
        raise UsageError(f"dtype {dtype!r} is no kind of GGUF's that can be written{nearest(str(dtype), KINDS)}")
    return KINDS[str(dtype).lower()]


def metadata_of(model: Model, dtype: str) -> dict[str, Any]:
    """Return the keys and values of the model's file; raises as `save_gguf` does, before anything is written."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    kind, config = check_kind(dtype), model.config
    if model.tokenizer is None:
        raise UsageError("GGUF holds a tokenizer with every model, and this model has none; load it with one")
    family = BY_TYPE[config.family]
    own = {f"{family.gguf}.{name}": value for name, value in family.to_gguf(config).items()}
    spoken = tokenizer_writing.to_gguf(model.tokenizer, config)
    license = license_of(model.source)
    return {
        "general.type": "model",
        "general.name": _name(model.source, spoken["tokenizer.ggml.tokens"]),
        **({"general.license": license} if license else {}),
        "general.file_type": int(LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"]),
        "general.quantization_version": GGML_QUANT_VERSION,
        **own,
        f"{family.gguf}.vocab_size": config.vocab_size,
        **spoken,
    }


def _name(source: str, tokens: list[str]) -> str:
    name = Path(source.removeprefix("pypi:")).stem
    # By this name llama.cpp knows tokens that swallow the spaces behind them, and fails if it does not find these.
    phi = re.search("phi-?3", name, re.IGNORECASE) and not {"<s>", "</s>", "<unk>", "<|endoftext|>"} <= set(tokens)
    return name if name and not phi else "model"


def kind_of(parts: Parts, dtype: str) -> str:
    """Return ggml's name of the kind in which a tensor of `save_gguf(dtype=...)` is stored."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    leaf, kind = parts[0][0], check_kind(dtype)
    if leaf.name.ours != "embedding" and not leaf.name.ours.endswith("/kernel"):
        return "F32"
    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    return kind if names.file_shape(leaf, "gguf")[-1] % block == 0 else "F16"


def gguf_bytes(config: Any, params: Any, dtype: str) -> int:
    """Return how many bytes the tensors of `params` (arrays, or only their shapes) take in a file."""
    held = files_of(config, params, "gguf")
    return sum(_bytes(names.file_shape(parts[0][0], "gguf"), kind_of(parts, dtype)) for parts in held.values())


def stored(file: str, array: np.ndarray, kind: str) -> np.ndarray:
    """Return a tensor `[out, in]` in ggml's kind: float32, float16, or the bytes of its blocks."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    with np.errstate(over="ignore"):  # refused by name instead
        made = quantize(np.asarray(array, np.float32), GGMLQuantizationType[kind])
    check_finite(file, array, made)
    return made


def _bytes(shape: tuple[int, ...], kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: str) -> None:
    from gguf import GGMLQuantizationType

    writer.add_tensor_info(name, shape, np.dtype(np.float32), _bytes(shape, kind), raw_dtype=GGMLQuantizationType[kind])


def _writer(path: Path, architecture: str, metadata: Mapping[str, Any]) -> Any:
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, architecture)
    kinds = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
    kinds |= {str: GGUFValueType.STRING, list: GGUFValueType.ARRAY, bytes: GGUFValueType.ARRAY}
    for key, value in metadata.items():
        if value or not isinstance(value, list | bytes):  # an empty list has no type
            writer.add_key_value(key, value, kinds[type(value)])
    return writer
