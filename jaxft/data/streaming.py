"""Data sets on the hub that are read as a stream and written once to a local file, row by row.

Training needs every row again each epoch, in an order of its own: a stream cannot give that, a file can.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError


def streamed(source: str, split: str, cache: Path | None = None) -> Path:
    """Return the `.jsonl.gz` file of a split of `owner/name` or `owner/name:config`, written if it is not there.

    It lies under `cache` (default: `$JAXFT_CACHE/data`, else `~/.cache/jaxft/data`), appears whole or not at all, and
    is used again by whoever asks for the same. UsageError where the data set cannot be opened, Error where the stream
    breaks off.
    """
    default = Path(os.environ.get("JAXFT_CACHE", Path.home() / ".cache" / "jaxft")) / "data"
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{source}-{split}")
    digest = hashlib.sha256(f"{source}\n{split}".encode()).hexdigest()[:8]
    path = (cache or default) / f"{name}-{digest}.jsonl.gz"
    if not path.exists():
        write_rows(path, _rows(source, split), source)
    return path


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], source: str) -> None:
    """Write rows as gzipped JSON lines, whole or not at all; Error where reading or writing them fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=3) as file:
            for row in _read(rows, source):
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        Path(temporary).replace(path)
    except OSError as error:
        raise Error(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def _read(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[Mapping[str, Any]]:
    count = 0
    try:
        for row in rows:
            yield row
            count += 1
    except Exception as error:  # whatever the stream raises is about the source
        raise Error(f"{source}: the stream broke off after {count} rows ({error}); try again") from None


def _rows(source: str, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    name, _, config = source.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=split, streaming=True)
    except Exception as error:  # the library's errors share no base class
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{source}: cannot be streamed from the hub ({first})") from None
