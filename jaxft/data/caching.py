"""Token ids kept on disk: a split that was tokenised before is not tokenised again.

    ids = cached_tokens(tokenizer, texts, special=True)

An entry is named by a hash of all that its ids depend on: the texts (so: rows, template and shots), whether special
tokens are added, everything in the tokenizer, and the version of the library that runs it. A changed one has another
name, so nothing goes stale; and what is found is tested before it is used. Entries lie in `$JAXFT_CACHE/tokens` (or
~/.cache/jaxft/tokens) as plain arrays; those unused for longest go once there are more than `BOUND` bytes of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

BOUND = 2_000_000_000
LEAST = 200_000  # characters: fewer are tokenised sooner than looked up, for the key takes the tokenizer as JSON
SAMPLE = 16
Ids = list[list[int]]


def cached_tokens(
    tokenizer: Any, texts: Sequence[str], special: bool, *, folder: Path | None = None, least: int | None = None
) -> Ids:
    """Return the token ids of each text, with special tokens if `special`, from the cache where it has them.

    Texts of fewer than `least` characters together (by default `LEAST`) are simply tokenised. A cache that cannot be
    read or written costs a warning, never the run; a corrupt entry, or one that does not agree with the tokenizer, is
    made again.
    """
    if not texts or sum(map(len, texts)) < (LEAST if least is None else least):
        return tokenise(tokenizer, texts, special)
    key = entry_key(tokenizer, texts, special)
    path = (folder or token_folder()) / f"{key}.npz"
    ids = _read(path, key, len(texts), lambda some: tokenise(tokenizer, [texts[i] for i in some], special))
    if ids is None:
        ids = tokenise(tokenizer, texts, special)
        _write(path, key, ids)
    return ids


def tokenise(tokenizer: Any, texts: Sequence[str], special: bool) -> Ids:
    """Return the token ids of each text; a fast tokenizer uses all cores (`TOKENIZERS_PARALLELISM`)."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]


def token_folder() -> Path:
    """Return where entries lie: `$JAXFT_CACHE/tokens`, or `~/.cache/jaxft/tokens`."""
    return Path(os.environ.get("JAXFT_CACHE") or "~/.cache/jaxft").expanduser().absolute() / "tokens"


def entry_key(tokenizer: Any, texts: Sequence[str], special: bool) -> str:
    """Return the name of an entry: a digest of all that the ids depend on."""
    digest = hashlib.blake2b(json.dumps([1, special, len(texts)]).encode(), digest_size=20)
    for part in _content(tokenizer):
        digest.update(len(part).to_bytes(8, "little") + part)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def prune(folder: Path, bound: int = BOUND) -> None:
    """Delete the entries that were unused for longest until at most `bound` bytes are left, and what writers left."""
    entries = []
    for path in [*folder.glob("*.npz"), *folder.glob(".*.part")]:
        with contextlib.suppress(OSError):  # another process may be faster
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for time_used, size, path in sorted(entries, reverse=True):
        left_over = path.suffix == ".part"
        total += 0 if left_over else size
        if (left_over and time.time() - time_used > 86400) or (not left_over and total > bound):
            with contextlib.suppress(OSError):
                path.unlink()


def _content(tokenizer: Any) -> list[bytes]:
    versions = [metadata.version("transformers"), metadata.version("tokenizers")]
    settings = [type(tokenizer).__qualname__, getattr(tokenizer, "split_special_tokens", None), *versions]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return [json.dumps(settings).encode(), backend.to_str().encode("utf-8", "surrogatepass")]
    settings += [tokenizer.special_tokens_map, getattr(tokenizer, "init_kwargs", {})]
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    parts = [json.dumps(settings, default=str, sort_keys=True).encode(), json.dumps(vocabulary).encode()]
    model: Any = getattr(tokenizer, "sp_model", None)
    return parts + ([model.serialized_model_proto()] if hasattr(model, "serialized_model_proto") else [])


def _read(path: Path, key: str, count: int, again: Callable[[Sequence[int]], Ids]) -> Ids | None:
    """Return the ids of a sound entry, None where there is none."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            flat, ends, stored = entry["ids"], entry["ends"], entry["key"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        logger.warning("%s: not readable (%s); the texts are tokenised again", path, problem)
        return None
    ids = _apart(flat, ends, count) if str(stored) == key else None
    # A few texts are tokenised to see that whoever wrote the entry had the same tokenizer at work.
    some = range(0, count, max(count // SAMPLE, 1))
    if ids is None or [ids[i] for i in some] != again(some):
        logger.warning("%s: not what its name says; the texts are tokenised again", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return ids


def _apart(flat: np.ndarray, ends: np.ndarray, count: int) -> Ids | None:
    whole = flat.dtype == np.int32 and ends.dtype == np.int64 and flat.ndim == ends.ndim == 1
    if not whole or len(ends) != count or (np.diff(ends, prepend=0) < 0).any() or ends[-1:].tolist() != [len(flat)]:
        return None
    numbers, stops = flat.tolist(), ends.tolist()
    return [numbers[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _write(path: Path, key: str, ids: Ids) -> None:
    ends = np.cumsum([len(one) for one in ids], dtype=np.int64)
    flat = np.fromiter((number for one in ids for number in one), np.int32, int(ends[-1]))
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, ids=flat, ends=ends, key=np.array(key))
        partial.replace(path)
        prune(path.parent)
    except OSError as problem:
        logger.warning("%s: the token ids could not be kept (%s)", path.parent, problem.strerror or problem)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
