"""Directories that appear whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxft.errors import Error, UsageError


@contextmanager
def replaced(directory: Path | str, marks: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty folder beside `directory` that takes its place when the block ends without an error.

    An existing `directory` is replaced only if it is empty or holds one of the files `marks`, which tell that it is
    something of the same kind; otherwise `UsageError`. When writing fails (a full disk, say) the new folder is removed,
    what was there stays, and `Error` names the cause.
    """
    directory = Path(directory).absolute()
    if directory.exists() and not _ours(directory, marks):
        raise UsageError(f"{directory}: exists and holds something else; choose a new directory")
    fresh = _beside(directory)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _swap(fresh, directory)
    except OSError as problem:
        raise Error(f"{directory}: could not be written ({problem.strerror or problem}); nothing was left") from problem
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _ours(directory: Path, marks: tuple[str, ...]) -> bool:
    if not directory.is_dir():
        return False
    return any((directory / mark).is_file() for mark in marks) or not any(directory.iterdir())


def _beside(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}")


def _swap(fresh: Path, directory: Path) -> None:
    if not directory.exists():
        fresh.rename(directory)
        return
    old = _beside(directory)
    directory.rename(old)
    try:
        fresh.rename(directory)
    except OSError:
        old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)
