"""Safetensors, one file or shards with an index, as named arrays that are read one at a time from the mapped file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import Error, UsageError

FLOATS = ("F64", "F32", "F16", "BF16")


class SafetensorsFile:
    """The tensors of `paths`; `Error` names a file that is truncated or corrupt, or a tensor of another kind."""

    convention = "hf"

    def __init__(self, paths: list[Path], where: Path):
        from safetensors import SafetensorError, safe_open

        self.where = str(where)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        self.bytes = 0
        self._files: dict[str, Any] = {}
        for path in paths:
            try:
                file = safe_open(str(path), framework="numpy")
            except (SafetensorError, OSError, ValueError) as problem:
                raise Error(f"{path}: not a whole safetensors file ({problem}); fetch it again") from problem
            for name in file.keys():  # noqa: SIM118 (a handle, not a mapping)
                view = file.get_slice(name)
                if view.get_dtype() not in FLOATS:
                    raise Error(f"{path}: tensor {name} is {view.get_dtype()}; jaxft reads {', '.join(FLOATS)}")
                self.shapes[name], self.types[name] = tuple(view.get_shape()), view.get_dtype()
                self._files[name] = file
            self.bytes += path.stat().st_size

    def read(self, name: str) -> np.ndarray:
        return self._files[name].get_tensor(name)


def open_folder(folder: Path) -> SafetensorsFile:
    """Open the weights of a model directory: `model.safetensors`, or the shards that its index lists."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return SafetensorsFile([single], folder)
    if index.is_file():
        return SafetensorsFile(_shards(index), folder)
    pickles = [path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)]
    if pickles:
        raise UsageError(
            f"{folder}: weights only as {pickles[0]}, a pickle, which can run code when it is read; convert them with "
            "transformers' save_pretrained, which writes safetensors"
        )
    other = next((path.name for path in [*folder.glob("*.gguf"), *folder.glob("*.safetensors")]), None)
    hint = f"; it holds {other}: load that file by its path" if other and other.endswith(".gguf") else ""
    raise UsageError(f"{folder}: no model.safetensors and no model.safetensors.index.json{hint}")


def _shards(index: Path) -> list[Path]:
    try:
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        paths = [index.parent / Path(name).name for name in files]
    except (ValueError, KeyError, AttributeError, TypeError) as problem:
        raise Error(f"{index}: not an index of shards ({type(problem).__name__}: {problem})") from problem
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise Error(f"{index}: {len(missing)} of {len(paths)} shards are missing, first {missing[0]}; fetch them again")
    return paths
