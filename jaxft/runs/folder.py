"""The folder of a run: whose it is, who is writing to it, and whether the run is done.

    with run_folder(recipe) as folder:       # the same recipe goes on, another one is refused
        ...

recipe.yaml and environment.json say what runs where; metrics.jsonl, checkpoints/ and predictions.jsonl grow; adapter/
and summary.json come at the end. Every file is replaced whole.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError
from jaxft.recipe import Recipe, differences, load_recipe, to_yaml
from jaxft.training.journal import read_lines, write_json, write_text

SUMMARY_VERSION = 2  # of summary.json; 1 had no n, intervals and comparison
RESULTS = ("metrics.jsonl", "checkpoints", "adapter", "predictions.jsonl", "summary.json")
FILES = (
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "checkpoints",
    "adapter",
    "predictions.jsonl",
    "summary.json",
    "report.html",
    "answers",
)
# What may change between the sessions of a run: nothing in its weights depends on them.
FREE = ("train.checkpoint_minutes", "train.keep", "train.log_every")
_PACKAGES = ("jaxft", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "tokenizers", "numpy")


@contextlib.contextmanager
def run_folder(recipe: Recipe, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield the folder of a resolved recipe, locked; with `overwrite` what an earlier run left there is deleted.

    Raises UsageError for a folder of another recipe (naming the fields), one in use, or one that holds other things
    by the names of a run's files.
    """
    folder = make_folder(recipe.out, "out")
    with _locked(folder):
        if overwrite:
            for name in FILES:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _check_owner(folder, recipe)
        yield folder


def make_folder(path: str | Path, field: str) -> Path:
    """Return a folder, made where it is not there; UsageError, naming the field, where it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{field}: {path} cannot be made ({error.strerror}): choose another") from None
    return Path(path)


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, or None; UsageError for one that another version of jaxft has written."""
    path = folder / "summary.json"
    return read_summary(path) if path.exists() else None


def read_summary(path: Path) -> dict[str, Any]:
    """Return what a summary.json holds; UsageError for one of another version, Error for a broken one."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Error(f"{path} cannot be read ({error}): delete it to let the run end again") from None
    version = summary.get("version", 1)
    if version != SUMMARY_VERSION:
        raise UsageError(
            f"{path} is of version {version} and this jaxft writes {SUMMARY_VERSION}: set another `out`, "
            f"--overwrite the run, or delete that file to have the run scored again"
        )
    return summary


def claim(folder: Path, recipe: Recipe) -> None:
    """Write recipe.yaml, and add this session to environment.json: versions, devices, command, commit."""
    import jax

    write_text(folder / "recipe.yaml", to_yaml(recipe))

    path = folder / "environment.json"
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.exists() else []
    devices = jax.devices()
    session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "directory": str(Path.cwd()),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "host_cpus": os.cpu_count(),
        "devices": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)},
    }
    write_json(path, {"sessions": [*sessions, session]})


def known_predictions(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what predictions.jsonl holds, by example id."""
    return {row["id"]: row for row in read_lines(folder / "predictions.jsonl")}


def _check_owner(folder: Path, recipe: Recipe) -> None:
    results = [name for name in RESULTS if (folder / name).exists()]
    if not results:
        return
    if not (folder / "recipe.yaml").exists():
        raise UsageError(f"out: {folder} holds {results[0]} and no recipe.yaml: choose another folder or --overwrite")
    earlier = load_recipe(folder / "recipe.yaml")
    changed = [
        f"{key} ({before!r} there, {now!r} here)"
        for key, before, now in differences(earlier, recipe)
        if key not in (*FREE, "out")
    ]
    if changed:
        raise UsageError(
            f"out: {folder} holds a run of another recipe; it differs in {', '.join(changed)}: "
            f"set another `out`, or --overwrite to delete that run"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    import fcntl

    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system when the process dies
        except OSError:
            raise Error(f"out: another process is running in {folder}: wait for it or set another `out`") from None
        yield


def git_commit() -> str | None:
    """Return the commit of the working directory; None where it is in no repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
