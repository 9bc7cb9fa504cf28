"""`save`: a model as a directory that transformers, and `load`, read."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    shards = _plan(config, params, limit)
    arrays = _arrays(config, params)
    place = {}
    for number, members in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / name, {file: next(arrays)[1] for file in members})
        place.update(dict.fromkeys(members, name))
    if len(shards) > 1:
        total = sum(size for members in shards for size in members.values())
        index = {"metadata": {"total_size": total}, "weight_map": place}
        write_json(folder / "model.safetensors.index.json", index)


def _plan(config: Any, params: Any, limit: int) -> list[dict[str, int]]:
    shards: list[dict[str, int]] = [{}]
    for leaf, array in _with_leaves(config, params):
        files = leaf.files("hf")
        for file in files:
            size = array.nbytes // len(files)
            if shards[-1] and sum(shards[-1].values()) + size > limit:
                shards.append({})
            shards[-1][file] = size
    return shards


def _arrays(config: Any, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    for leaf, array in _with_leaves(config, params):
        for index, file in enumerate(leaf.files("hf")):
            # A layer is taken on the device: fetching the whole leaf would leave its host copy in the array's cache.
            one = np.asarray(array if leaf.layers is None else array[index])
            yield file, np.ascontiguousarray(one.T if leaf.name.transposed else one)


def _with_leaves(config: Any, params: Any) -> Iterator[tuple[names.Leaf, Any]]:
    import jax

    return zip(names.leaves(config, params), jax.tree.leaves(params), strict=True)


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file as PyTorch's libraries expect it; `OSError` if the disk does not take it."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, str(path), metadata={"format": "pt"})
    except SafetensorError as problem:
        raise OSError(str(problem)) from problem
