"""metrics.jsonl: one line of JSON a step, written as it happens; and files that are replaced whole.

cut(path, step=120)                  # after a resume: what the interrupted run wrote past its checkpoint goes
write = append_to(path)
write({"step": 121, "loss": 1.93})
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import Error

Write = Callable[[Mapping[str, Any]], None]


def append_to(path: str | Path) -> Write:
    """Return a function that appends a mapping as a line; the line is with the system when it returns."""

    def write(row: Mapping[str, Any]) -> None:
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise Error(f"{path}: cannot be written ({error.strerror}): free disk space there") from None

    return write


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file that may not exist and whose last line may be torn."""
    rows = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # a process killed while writing leaves part of a line
    return rows


def cut(path: str | Path, step: int) -> None:
    """Drop torn lines and those past `step`, so that each step stands in the file once."""
    write_lines(path, [row for row in read_lines(path) if row["step"] <= step])


def write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by one line of JSON for each row."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(path: str | Path, value: Any) -> None:
    """Replace a file by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Replace a file at once: whoever reads it sees the old text or the new, never a part."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise Error(f"{path}: cannot be written ({error.strerror}): free disk space there or change `out`") from None
    finally:
        temporary.unlink(missing_ok=True)
