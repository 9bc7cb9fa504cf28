"""`save`: a model as a directory that transformers, and `load`, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.models import Model
from jaxft.pretrained import config as configs
from jaxft.pretrained import names
from jaxft.pretrained.atomic import replaced


def save(directory: Path | str, model: Model, params: Any = None, *, max_shard_size: int = 5_000_000_000) -> None:
    """Write `params` (default: the model's own) as a Hugging Face model directory.

    That is `config.json`, `generation_config.json`, the tokenizer's files and safetensors in the dtype of the params,
    in one file or in shards of at most `max_shard_size` bytes with an index. The directory appears whole or not at
    all. Raises `UsageError` if it exists and is no model directory, `Error` if it cannot be written.
    """
    params = model.params if params is None else params
    with replaced(directory, ("config.json",)) as folder:
        config, generation = configs.to_hf(model.config)
        config["torch_dtype"] = str(params["embedding"].dtype)
        write_json(folder / "config.json", config)
        write_json(folder / "generation_config.json", generation)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(str(folder))
        _write_weights(folder, model.config, params, max_shard_size)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, config: Any, params: Any, limit: int) -> None:
    held = files_of(config, params, "hf")
    shards = _shards({file: sum(size for *_, size in parts) for file, parts in held.items()}, limit)
    place = {}
    for number, (members, _) in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / name, {file: whole(held[file], "hf", config) for file in members})
        place.update(dict.fromkeys(members, name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(size for _, size in shards)}, "weight_map": place}
        write_json(folder / "model.safetensors.index.json", index)


def _shards(sizes: dict[str, int], limit: int) -> list[tuple[list[str], int]]:
    shards: list[tuple[list[str], int]] = [([], 0)]
    for file, size in sizes.items():
        members, total = shards[-1]
        if members and total + size > limit:
            shards.append(([file], size))
        else:
            shards[-1] = ([*members, file], total + size)
    return shards


Parts = list[tuple[names.Leaf, Any, int | None, int]]


def files_of(config: Any, params: Any, convention: str) -> dict[str, Parts]:
    """Return `{tensor: parts}` of a file: of each part its leaf, the leaf's array, its layer there, and its bytes."""
    import jax

    held: dict[str, Parts] = {}
    for leaf, array in zip(names.leaves(config, params), jax.tree.leaves(params), strict=True):
        files = leaf.files(convention)
        for index, file in enumerate(files):
            part = leaf, array, None if leaf.layers is None else index, array.nbytes // len(files)
            held.setdefault(file, []).append(part)
    return held


def whole(parts: Parts, convention: str, config: Any) -> np.ndarray:
    """Return a file's tensor, joined from its parts where it has several."""
    parts = sorted(parts, key=lambda part: part[0].name.part or ())
    # A layer is taken on the device: fetching the whole leaf would leave its host copy in the array's cache.
    arrays = [
        names.to_file(np.asarray(array if layer is None else array[layer]), leaf, convention, config)
        for leaf, array, layer, _ in parts
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
