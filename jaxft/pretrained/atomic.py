"""Directories and files that appear whole or not at all, where there is room for them."""

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


@contextmanager
def replaced_file(path: Path | str, magic: bytes) -> Iterator[Path]:
    """Yield a name beside `path` for a file that takes its place when the block ends without an error.

    An existing `path` is replaced only if it begins with `magic`, the mark of files of the same kind; otherwise
    `UsageError`. When writing fails nothing is left of the new file, what was there stays, and `Error` names the cause.
    """
    path = Path(path).absolute()
    if path.exists() and not (path.is_file() and _begins(path, magic)):
        raise UsageError(f"{path}: exists and is something else; choose a new name")
    fresh = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        fresh.replace(path)
    except OSError as problem:
        raise Error(f"{path}: could not be written ({problem.strerror or problem}); nothing was left") from problem
    finally:
        fresh.unlink(missing_ok=True)


def check_room(path: Path | str, needed: int) -> None:
    """Raise `Error`, with both numbers, if the disk of `path` has fewer than `needed` bytes free."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise Error(f"{path}: needs {_size(needed)}, and its disk has {_size(free)} free; nothing was written")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count:,} bytes"


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


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
