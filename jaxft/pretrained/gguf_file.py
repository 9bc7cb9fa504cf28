"""GGUF, llama.cpp's container: metadata and (mostly quantised) tensors, dequantised one at a time.

    file = GgufFile("model.Q4_1.gguf")
    file.metadata["general.architecture"], file.read("blk.0.attn_q.weight")      # "llama", float32 [out, in]

Nothing here knows of a model: names and metadata are the file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import Error

# What the reader raises on bytes that make no sense, depending on where they are.
BROKEN = (ValueError, IndexError, KeyError, EOFError, OverflowError, TypeError, MemoryError, RecursionError)


class Metadata(Mapping[str, Any]):
    """The file's key-value pairs, decoded when asked for: vocabularies are long."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        self._fields = fields
        self._where = where

    def __getitem__(self, key: str) -> Any:
        field = self._fields[key]
        try:
            return field.contents()
        except BROKEN as problem:
            raise Error(f"{self._where}: corrupt GGUF metadata {key} ({problem}); fetch it again") from problem

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class GgufFile:
    """The metadata and tensors of `path`; `Error` names a file that is truncated, corrupt or cannot be dequantised."""

    convention = "gguf"

    def __init__(self, path: Path | str):
        self.where = str(path)
        try:
            reader = _reader(path)
        except BROKEN as problem:
            raise Error(f"{path}: truncated or corrupt GGUF ({problem}); fetch it again") from problem
        self.metadata = Metadata(reader.fields, self.where)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        # ggml counts dimensions from the fastest one.
        self.shapes = {name: tuple(int(n) for n in reversed(t.shape)) for name, t in self._tensors.items()}
        self.types = {name: t.tensor_type.name for name, t in self._tensors.items()}
        self.bytes = Path(path).stat().st_size

    def read(self, name: str) -> np.ndarray:
        """Return the tensor as float32 `[out, in]`."""
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        try:
            return dequantize(tensor.data, tensor.tensor_type).reshape(self.shapes[name])
        except NotImplementedError as problem:
            raise Error(
                f"{self.where}: {name} is stored as {tensor.tensor_type.name}, which the gguf package cannot read; "
                "use a file quantised otherwise, or a newer gguf"
            ) from problem


def _reader(path: Path | str) -> Any:
    from gguf import GGUFReader

    class Reader(GGUFReader):
        # The package's reader takes a short read at the end of the file for an empty value, and where a corrupt length
        # asks for billions of them it would go on for hours. And it slices a memmap per token of the vocabulary: a
        # plain view of the same mapped bytes is three times faster.
        def _get(self, offset, dtype, count=1, override_order=None):
            if isinstance(self.data, np.memmap):
                self.data = self.data.view(np.ndarray)
            value = super()._get(offset, dtype, count, override_order)
            if len(value) < count:
                raise EOFError(f"it ends inside a value at byte {offset}")
            return value

    return Reader(path)
