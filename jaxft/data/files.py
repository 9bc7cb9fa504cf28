"""One data file to rows: JSON lines, JSON, CSV, TSV and Parquet, plain or gzip.

Content that cannot be read is an `Error` naming the file and, for text, the line; a missing or empty file is a
`UsageError`. Whole files are read at once: the rows have to fit in memory anyway.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError, nearest

Parsed = list[tuple[dict[str, Any], int]]  # each row with the line it starts on (Parquet: its number), from 1


def is_data_file(path: Path) -> bool:
    """Say whether the file's name has a suffix that can be read."""
    return _suffix(path) in _PARSERS


def read_file(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a data file and each one's place, `name:line`."""
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir() if is_data_file(p)] if path.parent.is_dir() else []
        raise UsageError(f"{path}: no such file{nearest(path.name, siblings) if siblings else ''}")
    parser = _PARSERS.get(_suffix(path))
    if parser is None:
        raise UsageError(f"{path}: unknown data format; use {', '.join(_PARSERS)}, plain or with .gz")
    data = _contents(path)
    if not data.strip():
        raise UsageError(f"{path}: the file is empty")
    parsed = parser(data, path)
    if not parsed:
        raise UsageError(f"{path}: the file has no rows")
    return [row for row, _ in parsed], [f"{path.name}:{line}" for _, line in parsed]


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _contents(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        # Some files are gzip without saying so (a download that was stored as it came).
        if data and (path.name.lower().endswith(".gz") or data[:2] == b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Error(f"{path}: the gzip data is truncated or corrupt ({error}); fetch the file again") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    return data


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Error(f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from None


def _json_lines(data: bytes, path: Path) -> Parsed:
    parsed: Parsed = []
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(_text(data, path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise Error(f"{path}:{number}: broken JSON ({error.msg} at column {error.colno})") from None
        parsed.append((_object(row, path, number), number))
    return parsed


def _json(data: bytes, path: Path) -> Parsed:
    text = _text(data, path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and _is_json(text.lstrip().split("\n")[0]):
            return _json_lines(data, path)  # many .json files hold one object a line
        raise Error(f"{path}:{error.lineno}: broken JSON ({error.msg} at column {error.colno})") from None
    rows = rows if isinstance(rows, list) else [rows]
    return [(_object(row, path, number), number) for number, row in enumerate(rows, start=1)]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _object(row: object, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Error(f"{path}:{number}: expected an object with named fields, got {type(row).__name__}")
    return row


def _csv(data: bytes, path: Path, delimiter: str = ",") -> Parsed:
    reader = csv.reader(io.StringIO(_text(data, path), newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(2**31 - 1)  # the default of 131072 characters is shorter than many documents
    parsed: Parsed = []
    header: list[str] | None = None
    start = 1
    try:
        for values in reader:
            if header is None:
                header = _header(values, path)
            elif len(values) > len(header):
                raise Error(f"{path}:{start}: {len(values)} fields where the header has {len(header)}; quote fields "
                            f"that contain {delimiter!r}")  # fmt: skip
            elif values:
                padded: list[str | None] = [*values, *[None] * (len(header) - len(values))]
                parsed.append((dict(zip(header, padded, strict=True)), start))
            start = reader.line_num + 1
    except csv.Error as error:
        raise Error(f"{path}:{start}: broken CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)
    return parsed


def _header(names: list[str], path: Path) -> list[str]:
    if len(set(names)) < len(names) or "" in names:
        raise UsageError(f"{path}:1: the header has an empty or repeated column name: {', '.join(names)}")
    return names


def _tsv(data: bytes, path: Path) -> Parsed:
    return _csv(data, path, delimiter="\t")


def _parquet(data: bytes, path: Path) -> Parsed:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise Error(f"{path}: truncated or corrupt Parquet ({str(error).splitlines()[0]})") from None
    return [(row, number) for number, row in enumerate(table.to_pylist(), start=1)]


_PARSERS: dict[str, Callable[[bytes, Path], Parsed]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
