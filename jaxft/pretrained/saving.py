"""`save`: a model as a directory that transformers, and `load`, read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import Error, UsageError, nearest
from jaxft.models import Model
from jaxft.models.quantised import is_quantised
from jaxft.pretrained import config as configs
from jaxft.pretrained import names
from jaxft.pretrained.atomic import check_room, replaced
from jaxft.pretrained.card import model_card

# numpy's names of the dtypes that are saved, and safetensors'.
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def save(
    directory: Path | str,
    model: Model,
    params: Any = None,
    *,
    dtype: str | None = None,
    max_shard_size: int = 5_000_000_000,
    card: str | None = None,
) -> None:
    """Write `params` (default: the model's own) as a Hugging Face model directory.

    That is `config.json`, `generation_config.json`, the tokenizer's files, a model card (`card`, default `model_card`)
    and safetensors in `dtype` ("float32", "bfloat16" or "float16"; default: that of the params), in one file or in
    shards of at most `max_shard_size` bytes with an index. The host holds one tensor at a time. The directory appears
    whole or not at all. Raises `UsageError` if it exists and is no model directory, for quantised params and for
    another dtype; `Error` if there is no room for it or it cannot be written.
    """
    params = model.params if params is None else params
    kind = check_dtype(str(params["embedding"].dtype) if dtype is None else dtype)
    held = files_of(model.config, params, "hf")
    check_room(directory, sum(_bytes(parts, dtype) for parts in held.values()))
    with replaced(directory, ("config.json",)) as folder:
        config, generation = configs.to_hf(model.config)
        write_json(folder / "config.json", {**config, "dtype": kind, "torch_dtype": kind})
        write_json(folder / "generation_config.json", generation)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(str(folder))
        (folder / "README.md").write_text(model_card(model) if card is None else card, encoding="utf-8")
        _write_weights(folder, model.config, held, max_shard_size, dtype)


def check_dtype(dtype: str) -> str:
    """Return `dtype`; raise `UsageError` if no model directory is saved in it."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is none of a model directory's{nearest(str(dtype), DTYPES)}")
    return dtype


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, config: Any, held: dict[str, Parts], limit: int, dtype: str | None) -> None:
    shards = _shards({file: _bytes(parts, dtype) for file, parts in held.items()}, limit)
    place = {}
    for number, (members, _) in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, config, {file: held[file] for file in members}, dtype)
        place.update(dict.fromkeys(members, name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(size for _, size in shards)}, "weight_map": place}
        write_json(folder / "model.safetensors.index.json", index)


def _write_shard(path: Path, config: Any, held: dict[str, Parts], dtype: str | None) -> None:
    # The library's writer wants all tensors of a file at once; the format is a length, a header in JSON, and the bytes.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for file, parts in held.items():
        start, end = end, end + _bytes(parts, dtype)
        shape, kind = list(names.file_shape(parts[0][0], "hf")), DTYPES[_kind(parts, dtype)]
        header[file] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for file, parts in held.items():
            array = whole(parts, "hf", config)
            with np.errstate(over="ignore"):  # refused by name instead
                made = array.astype(_kind(parts, dtype), copy=False)
            check_finite(file, array, made)
            out.write(made.reshape(-1).view(np.uint8).data)


def check_finite(file: str, before: np.ndarray, after: np.ndarray) -> None:
    """Raise `Error` if a tensor has numbers that its new dtype has not."""
    if after.dtype == np.float16 and not np.isfinite(after).all() and np.isfinite(before.astype(np.float32)).all():
        raise Error(f"{file} has numbers beyond 65,504, the largest of float16; choose bfloat16 or float32")


def _shards(sizes: dict[str, int], limit: int) -> list[tuple[list[str], int]]:
    shards: list[tuple[list[str], int]] = [([], 0)]
    for file, size in sizes.items():
        members, total = shards[-1]
        if members and total + size > limit:
            shards.append(([file], size))
        else:
            shards[-1] = ([*members, file], total + size)
    return shards


Parts = list[tuple[names.Leaf, Any, int | None]]


def files_of(config: Any, params: Any, convention: str) -> dict[str, Parts]:
    """Return `{tensor: parts}` of a file: of each part its leaf, the leaf's array (or shape), and its layer there."""
    import jax

    held: dict[str, Parts] = {}
    for leaf, array in zip(names.leaves(config, params), jax.tree.leaves(params, is_leaf=is_quantised), strict=True):
        if is_quantised(array):
            path = "/".join(map(str, leaf.path))
            raise UsageError(f"params: {path} is held as {array.name}; save jaxft.dequantize_params(params)")
        for index, file in enumerate(leaf.files(convention)):
            held.setdefault(file, []).append((leaf, array, None if leaf.layers is None else index))
    return held


def hf_bytes(config: Any, params: Any, dtype: str | None = None) -> int:
    """Return how many bytes the tensors of `params` (arrays, or only their shapes) take in a model directory."""
    return sum(_bytes(parts, dtype) for parts in files_of(config, params, "hf").values())


def _kind(parts: Parts, dtype: str | None) -> str:
    return check_dtype(str(parts[0][1].dtype)) if dtype is None else dtype


def _bytes(parts: Parts, dtype: str | None) -> int:
    return math.prod(names.file_shape(parts[0][0], "hf")) * (4 if _kind(parts, dtype) == "float32" else 2)


def whole(parts: Parts, convention: str, config: Any) -> np.ndarray:
    """Return a file's tensor, joined from its parts where it has several."""
    parts = sorted(parts, key=lambda part: part[0].name.part or ())
    # A layer is taken on the device: fetching the whole leaf would leave its host copy in the array's cache.
    arrays = [
        names.to_file(np.asarray(array if layer is None else array[layer]), leaf, convention, config)
        for leaf, array, layer in parts
    ]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=names.out_axis(parts[0][0], convention))


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file as PyTorch's libraries expect it; `OSError` if the disk does not take it."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, str(path), metadata={"format": "pt"})
    except SafetensorError as problem:
        raise OSError(str(problem)) from problem
