"""A model, with or without an adapter folded in, as files that others read.

    export("google/flan-t5-small", "gguf", "flan.gguf", adapter="runs/x/adapter", dtype="q8_0")

What can be known to fail does so before the weights are loaded: the names, the dtype, the target, what the format
cannot say, the room on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError, nearest
from jaxft.models import Model
from jaxft.runs.merging import card_of_run, merged_model, refuse_soft

FORMATS = ("hf", "gguf")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def export(
    source: str | Path,
    format: str,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str | None = None,
    max_shard_size: str | int | None = None,
) -> Path:
    """Write the model of `source` to `out`: a Hugging Face directory ("hf") or a file for llama.cpp ("gguf").

    Args:
        source: As `jaxft.load` takes it.
        format: "hf" or "gguf".
        out: The directory or file; must not exist yet.
        adapter: Folder of an adapter of that model, merged into the weights first.
        dtype: "float32", "bfloat16" or "float16"; for GGUF also "q8_0", "q5_1", "q5_0", "q4_1", "q4_0". Default: for
            hf float32 on CPU and bfloat16 on accelerators, for gguf float16.
        max_shard_size: Of a directory's files, in bytes or as in "5GB" (the default).

    Raises `UsageError` for what is asked wrongly, for an adapter that is no change of weights and for a model that the
    format cannot hold; `Error` for too little room on the disk and for what fails on the way. Nothing is left
    half-written.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format!r} is none of {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    if adapter is not None:
        refuse_soft(adapter)
    return (_as_hf if format == "hf" else _as_gguf)(str(source), Path(out), adapter, dtype, max_shard_size)


def _as_hf(source: str, out: Path, adapter: Any, dtype: str | None, shards: str | int | None) -> Path:
    from jaxft.pretrained import save
    from jaxft.pretrained.saving import check_dtype, hf_bytes
    from jaxft.pretrained.weights import default_dtype

    kind = check_dtype(dtype or default_dtype().__name__)
    size = byte_count("5GB" if shards is None else shards)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out}: exists already; choose a new directory")
    _check_room(source, out, lambda model: hf_bytes(model.config, model.params, kind))
    model = _model(source, adapter, kind if adapter is None else "float32")
    save(out, model, dtype=kind, max_shard_size=size, card=card_of_run(model, adapter or source))
    return out


def _as_gguf(source: str, out: Path, adapter: Any, dtype: str | None, shards: str | int | None) -> Path:
    from jaxft.pretrained import save_gguf
    from jaxft.pretrained.gguf_writing import check_kind, gguf_bytes, metadata_of

    kind = dtype or "float16"
    check_kind(kind)
    if shards is not None:
        raise UsageError("--max-shard-size: a GGUF file is written whole; llama-gguf-split --split cuts it")
    if out.exists():
        raise UsageError(f"{out}: exists already; choose a new name")

    def needed(model: Model) -> int:
        metadata_of(model, kind)  # refuses what the format cannot say
        return gguf_bytes(model.config, model.params, kind)

    _check_room(source, out, needed)
    save_gguf(out, _model(source, adapter, "float32"), dtype=kind)
    return out


def _check_room(source: str, out: Path, needed: Callable[[Model], int]) -> None:
    from jaxft.pretrained.atomic import check_room
    from jaxft.pretrained.peeking import peek

    check_room(out, needed(peek(source).abstract("float32")))


def _model(source: str, adapter: Any, dtype: str) -> Model:
    from jaxft.pretrained import load

    return load(source, dtype=dtype) if adapter is None else merged_model(adapter, source, dtype)


def byte_count(text: str | int) -> int:
    """Return the bytes in "5GB", "500MB", "2GiB" or a plain number; `UsageError` for anything else, or for none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(text).strip().upper())
    if not match or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] < 1:
        raise UsageError(f"{text!r} is not a number of bytes, as in 5GB or 500MB")
    return int(float(match[1]) * _UNITS[match[2]])
