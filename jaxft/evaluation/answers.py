"""Answers that a model has given, kept in a file as they come, so that an evaluation can be stopped and gone on with.

The file is JSON, a line each: first the version and what the answers depend on (model, data, settings ...), then one
line for each answer. Lines are only ever appended, and are with the system when `add` returns: a killed process loses
at most the line that it was writing, which the next one drops.

>>> with Answers(None, {"model": "t5"}) as answers:
...     answers.add(Answers.key("ranked", [3, 4]), [-1.5, -0.25])
...     answers[Answers.key("ranked", [3, 4])]
[-1.5, -0.25]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxft.errors import Error, UsageError

VERSION = 1
_MARK = "jaxft answers"


class Answers:
    """JSON values by key, in a file that only grows; without a path, in memory.

    `identity` says what the answers depend on, as JSON. Raises UsageError for a file of another identity or version,
    naming the difference, and for one that is something else; Error for one that is broken or cannot be written.
    """

    def __init__(self, path: Path | str | None, identity: Mapping[str, Any]):
        self.path = None if path is None else Path(path)
        self._values: dict[str, Any] = {}
        self._file: BinaryIO | None = None
        if self.path is None:
            return
        header = {_MARK: VERSION, "identity": json.loads(_line(identity))}
        self._file = _opened(self.path)
        try:
            kept = self._read(header)
            self._file.truncate(kept)  # without the half line of a process that was killed
            if not kept:
                self._write(_line(header) + b"\n")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def key(*parts: Any) -> str:
        """Return a digest of the parts: JSON values and arrays; the same in every process."""
        return hashlib.sha256(_line(parts)).hexdigest()[:24]

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return True  # an empty one is there all the same

    def add(self, key: str, value: Any) -> None:
        """Keep one answer."""
        self.add_all([(key, value)])

    def add_all(self, items: Iterable[tuple[str, Any]]) -> None:
        """Keep the answers of a batch; they are written together."""
        lines = {key: _line({"key": key, "value": value}) for key, value in items}
        if self._file is not None:
            self._write(b"".join(line + b"\n" for line in lines.values()))
        # What is held is what a later process will read: tuples are lists, keys are texts.
        self._values |= {key: json.loads(line)["value"] for key, line in lines.items()}

    def close(self) -> None:
        """Close the file; what was added stays readable."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, header: Mapping[str, Any]) -> int:
        """Take over the file's answers; return the length of its complete lines."""
        assert self.path is not None and self._file is not None
        self._file.seek(0)
        data = self._file.read()
        kept = data.rfind(b"\n") + 1
        if data and not kept and not data.startswith(f'{{"{_MARK}"'.encode()[: len(data)]):
            raise UsageError(f"{self.path}: exists and holds no answers; choose another file")
        for number, line in enumerate(data[:kept].splitlines(), 1):
            if number == 1:
                _check_header(self.path, line, header["identity"], whole=True)
            else:
                row = _parsed(self.path, line, number)
                self._values[row["key"]] = row["value"]
        return kept

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise Error(f"{self.path}: cannot be written ({error.strerror}): free disk space there") from None


def check_answers(path: Path | str | None, identity: Mapping[str, Any]) -> None:
    """Raise what `Answers` would for a file of another version or `identity`, of which a part will do."""
    if path is None or not Path(path).is_file():
        return
    with Path(path).open("rb") as file:
        line = file.readline()
    if line.endswith(b"\n"):
        _check_header(Path(path), line, json.loads(_line(identity)), whole=False)


def _opened(path: Path) -> BinaryIO:
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another file") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system when the process dies
    except OSError:
        file.close()
        raise Error(f"{path}: another process writes its answers there: wait for it or choose another file") from None
    return file


def _check_header(path: Path, line: bytes, wanted: Mapping[str, Any], whole: bool) -> None:
    try:
        found = json.loads(line)
        version, identity = found[_MARK], dict(found["identity"])
    except (ValueError, TypeError, KeyError, UnicodeDecodeError):
        raise UsageError(f"{path}: exists and holds no answers; choose another file") from None
    remedy = "choose another file, or remove this one to begin anew"
    if version != VERSION:
        raise UsageError(f"{path}: its answers are of version {version!r}, this jaxft writes {VERSION}; {remedy}")
    for name in dict.fromkeys([*wanted, *(identity if whole else ())]):
        there, here = identity.get(name), wanted.get(name)
        if there != here:
            what = f"{name}: {_short(there)}, not {_short(here)}"
            raise UsageError(f"{path}: its answers are of another {what}; {remedy}")


def _parsed(path: Path, line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row["key"], str) and "value" in row:
            return row
    except (ValueError, TypeError, KeyError):
        pass
    raise Error(f"{path}, line {number}: is broken; remove the line, and its answer will be made again")


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
