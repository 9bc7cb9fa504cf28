"""Where rows come from, and their splits.

A source is a data file, a directory that holds one file per split (`train.jsonl.gz`, `dev.csv`, `test-00000-of-00001.
parquet`), a directory saved by `datasets`, or the name of a data set on the hub (`owner/name` or `owner/name:config`).
Splits that the source lacks are carved from its training rows by a seeded permutation. `generated:support`,
`generated:dialogues` and `generated:probes` are made up here.

    rows = read("dialogsum/train.jsonl.gz", columns=["dialogue", "summary"])
    parts = splits("dialogsum", limit={"train": 1000})              # given splits
    parts = splits("all.csv", validation=0.05, test=200, seed=0)     # carved
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.data.files import is_data_file, read_file
from jaxft.data.rows import Rows, check_columns
from jaxft.data.shuffling import permutation
from jaxft.data.streaming import streamed
from jaxft.errors import Error, UsageError, nearest

_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation", "eval": "validation"}
_SPLIT_FILE = re.compile(r"(train|test|validation|valid|val|dev|eval)([-_.]\d+(-of-\d+)?)?$", re.IGNORECASE)
_UNSPLIT = "rows"  # the one split of a source that has no named ones

Loaders = dict[str, Callable[[], Rows]]


def split_name(name: str) -> str:
    """Return `validation` for dev, val, valid and eval, and any other name in lower case.

    >>> split_name("dev")
    'validation'
    """
    return _SPLIT_NAMES.get(name.lower(), name.lower())


def read(source: str | Path, split: str | None = None, *, columns: Sequence[str] = (), name: str | None = None) -> Rows:
    """Return the rows of one split of `source`.

    `split` may be left out where the source has only one. `columns` are checked to exist. `name` replaces the split's
    name in ids such as `test:17`. Raises UsageError for what is missing or misnamed, Error for what is corrupt.
    """
    loaders = _loaders(source)
    if split is None:
        if len(loaders) > 1:
            raise UsageError(f"{source}: has several splits; name one of {', '.join(loaders)}")
        wanted = next(iter(loaders))
    else:
        wanted = split_name(split)
        if wanted not in loaders:
            has = nearest(split, loaders) if _UNSPLIT not in loaders else "; it is a single file without named splits"
            raise UsageError(f"{source}: no split {split!r}{has}")
    return _load(loaders[wanted], source, columns, name)


def read_cached(
    source: str,
    split: str | None,
    *,
    name: str,
    where: Mapping[str, Any] | None = None,
    streaming: bool = False,
) -> Rows:
    """Return what `read` does, kept in memory until the files change: many tasks may share one file.

    A single file is the split `train`, or with `split=None` whatever is asked for. `where` keeps the rows whose fields
    have a value, or one of a list of them. `streaming` is for data sets on the hub that do not fit into memory while
    they are loaded. The rows are shared: do not change them.
    """
    if streaming:
        source, split = str(streamed(source, split or "train")), None
    key = source, split, name, _stamp(Path(source).expanduser())
    rows = _read_cached(*key)
    if not where:
        return rows
    kept = set(range(len(rows)))
    for column, values in where.items():
        index = _index(*key, column)
        kept &= {i for value in (values if isinstance(values, list) else [values]) for i in index.get(value, ())}
    return rows.take(sorted(kept))


def column_values(source: str, split: str | None, column: str, *, name: str) -> list[Any]:
    """Return the values that a column has, in the order of their first rows."""
    return list(_index(source, split, name, _stamp(Path(source).expanduser()), column))


def split_names(source: str) -> tuple[str, ...]:
    """Return the names of a source's splits; of a single file, `train`."""
    return tuple("train" if name == _UNSPLIT else name for name in _loaders(source))


@functools.lru_cache(maxsize=16)
def _read_cached(source: str, split: str | None, name: str, stamp: object) -> Rows:
    loaders = _loaders(source)
    if _UNSPLIT in loaders and (split is None or split_name(split) == "train"):
        return _load(loaders[_UNSPLIT], source, (), name)
    return read(source, split, name=name)


@functools.lru_cache(maxsize=64)
def _index(source: str, split: str | None, name: str, stamp: object, column: str) -> dict[Any, list[int]]:
    rows = _read_cached(source, split, name, stamp)
    index: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        if column not in row:
            raise UsageError(f"{source}: {rows.place(i)} has no column {column!r}{nearest(column, row)}")
        index.setdefault(tuple(row[column]) if isinstance(row[column], list) else row[column], []).append(i)
    return index


def _stamp(path: Path) -> object:
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def splits(
    source: str | Path | Mapping[str, str | Path],
    *,
    validation: float | int | None = None,
    test: float | int | None = None,
    seed: int = 0,
    limit: Mapping[str, int | None] | None = None,
    columns: Sequence[str] = (),
) -> dict[str, Rows]:
    """Return the `train`, `validation` and `test` rows of a source, or of one source for each.

    `validation` and `test` (a fraction below 1, or a count) say how much of the training rows becomes the split where
    the source has none of its own; without them, no split is made. `limit` keeps the first rows of a split. Splits with
    other names are not read.
    """
    parts: dict[str, Rows] = {}
    if isinstance(source, Mapping):
        for key, path in source.items():
            name = split_name(key)
            loaders = _loaders(path)
            only = next(iter(loaders.values())) if len(loaders) == 1 else None
            parts[name] = _load(only, path, columns, name) if only else read(path, name, columns=columns)
    else:
        loaders = _loaders(source)
        for name in ("train", "validation", "test"):
            if name in loaders:
                parts[name] = _load(loaders[name], source, columns, None)
        if _UNSPLIT in loaders:
            parts["train"] = _load(loaders[_UNSPLIT], source, columns, "train")
    if "train" in parts:
        wanted = {"test": test, "validation": validation}
        sizes = {name: size for name, size in wanted.items() if size and name not in parts}
        parts |= carve(parts["train"], sizes, seed)
    limit = {split_name(name): count for name, count in (limit or {}).items()}
    order = sorted(parts, key=lambda name: ("train", "validation", "test", name).index(name))
    return {name: parts[name].limit(limit.get(name)) for name in order}


def carve(rows: Rows, sizes: Mapping[str, float | int], seed: int = 0) -> dict[str, Rows]:
    """Return disjoint parts of `rows` named by `sizes` (fractions below 1, or counts), and the rest as `train`.

    The choice is a function of (seed, number of rows); each part keeps the source's order.

    >>> parts = carve(Rows([{"x": i} for i in range(10)]), {"test": 0.2}, seed=0)
    >>> len(parts["test"]), len(parts["train"])
    (2, 8)
    """
    counts = {name: round(size * len(rows)) if isinstance(size, float) else size for name, size in sizes.items()}
    if any(size < 0 or (isinstance(size, float) and size >= 1) for size in sizes.values()):
        raise UsageError(f"split sizes {dict(sizes)}: give fractions between 0 and 1, or counts")
    if sum(counts.values()) >= len(rows) or 0 in counts.values():
        raise UsageError(f"split sizes {dict(sizes)} of {len(rows)} rows leave a split empty")
    order = permutation(seed, len(rows), stream=2)  # 0 and 1 draw the order of batches
    parts, start = {}, 0
    for name, count in counts.items():
        parts[name] = rows.take(sorted(order[start : start + count].tolist()))
        start += count
    return {"train": rows.take(sorted(order[start:].tolist())), **parts}


def _load(loader: Callable[[], Rows], source: Any, columns: Sequence[str], name: str | None) -> Rows:
    rows = loader()
    if not len(rows):
        raise UsageError(f"{source}: the split {rows.split!r} has no rows")
    check_columns(rows, columns, str(source))
    return rows if name is None else Rows(rows.rows, name, rows.indices, rows.places)


def _loaders(source: str | Path) -> Loaders:
    kind, _, made = str(source).partition(":")
    if kind == "generated":
        return _generated(made)
    path = Path(source).expanduser()
    if path.is_dir():
        return _directory(path)
    # A name on the hub has at most one slash.
    if path.exists() or is_data_file(path) or str(source).startswith(("/", ".", "~")) or len(path.parts) > 2:
        return {_UNSPLIT: lambda: _from_files([path], _UNSPLIT)}
    return _hub(str(source))


def _generated(name: str) -> Loaders:
    from jaxft.data.dialogues import dialogues
    from jaxft.data.dialogues.support import support
    from jaxft.data.probes import probes

    makers: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
        **{"dialogues": dialogues, "support": support, "probes": probes}
    }
    if name not in makers:
        raise UsageError(f"generated:{name}: nothing of this name is made here{nearest(name, makers)}")
    sizes = {"train": 2000, "validation": 200, "test": 200}
    return {
        split: (lambda seed=seed, split=split: Rows(makers[name](seed, sizes[split]), split))  # type: ignore[misc]
        for seed, split in enumerate(sizes)
    }


def _from_files(paths: Sequence[Path], split: str) -> Rows:
    rows, places = [], []
    for path in paths:
        new_rows, new_places = read_file(path)
        rows += new_rows
        places += new_places
    return Rows(rows, split, places=places)


def _directory(path: Path) -> Loaders:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _saved(path)
    files = [p for folder in (path, path / "data") if folder.is_dir() for p in sorted(folder.iterdir())]
    files = [p for p in files if p.is_file() and is_data_file(p)]
    found: dict[str, list[Path]] = {}
    whole: dict[str, list[Path]] = {}
    for file in files:
        match = _SPLIT_FILE.match(file.name.split(".")[0])
        if match:
            found.setdefault(split_name(match[1]), []).append(file)
            if not match[2]:
                whole.setdefault(split_name(match[1]), []).append(file)
    for name, paths in whole.items():
        if len(found[name]) > 1:
            raise UsageError(f"{path}: both {paths[0].name} and {next(p.name for p in found[name] if p != paths[0])} "
                             f"could be the split {name!r}; name the file")  # fmt: skip
    if not found and len(files) == 1:
        return {_UNSPLIT: lambda: _from_files(files, _UNSPLIT)}
    if not found:
        listing = f" (found {', '.join(p.name for p in files[:5])})" if files else ""
        raise UsageError(f"{path}: no train, validation or test file in .jsonl, .json, .csv, .tsv or .parquet{listing}")
    return {name: (lambda name=name: _from_files(found[name], name)) for name in found}  # type: ignore[misc]


def _saved(path: Path) -> Loaders:
    import datasets

    try:
        return _dataset(datasets.load_from_disk(str(path)))
    except Exception as error:  # whatever the library raises is about this directory
        raise Error(f"{path}: cannot be read as a saved data set ({_first_line(error)})") from None


def _hub(source: str) -> Loaders:
    import datasets

    name, _, config = source.partition(":")
    try:
        return _dataset(datasets.load_dataset(name, config or None))
    except Exception as error:  # the library's errors share no base class
        raise UsageError(f"{source}: neither a file or directory here nor loadable from the hub "
                         f"({_first_line(error)})") from None  # fmt: skip


def _dataset(loaded: Any) -> Loaders:
    if not isinstance(loaded, Mapping):
        return {_UNSPLIT: lambda: Rows(loaded, _UNSPLIT)}
    return {split_name(key): (lambda key=key: Rows(loaded[key], split_name(key))) for key in loaded}  # type: ignore[misc]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
