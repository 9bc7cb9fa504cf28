"""Tasks by name, with their data, before any model is loaded; one that cannot be loaded does not lose the others."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.errors import Error, UsageError, nearest

TASKS = Path(__file__).parent / "tasks"


class Loaded(NamedTuple):
    """lm-eval's tasks and groups by name, and what could not be loaded, with the reason."""

    tasks: dict[str, Any]
    groups: dict[str, Any]
    members: dict[str, list[str]]  # every task of a group, those that could not be loaded too
    failed: dict[str, str]


def load_tasks(
    names: Sequence[str], data_root: str | Path | None = None, include_path: str | Path | None = None
) -> Loaded:
    """Return the tasks that `names` (tasks, groups and tags of lm-eval, of jaxft and of `include_path`) stand for.

    A task whose data set lies in `data_root` under its name on the hub (`cais/mmlu`) is read from there; the others
    are looked for on the hub. Raises `UsageError` for an unknown name and for a folder that is not there, `Error` if
    not one of the tasks could be loaded.
    """
    if data_root is not None and not Path(data_root).is_dir():
        raise UsageError(f"--data-root: {data_root} is no folder; it holds data sets by their names on the hub")
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(f"--include-path: {include_path} is no folder; it holds lm-eval's task files")
    manager = _manager(include_path)
    for name in names:
        if name not in manager.task_index and not Path(name).is_file():
            raise UsageError(f"--tasks: unknown task {name!r}{_nearest(name, manager.all_tasks)}")
    factory = _factory(None if data_root is None else Path(data_root).absolute())
    manager._factory = factory  # lm-eval's own would stop at the first task whose data are missing
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    with quiet():
        for name in names:
            try:
                loaded = manager.load([name])
            except Exception as error:  # a broken task file may raise anything
                factory.failed.setdefault(name, reason(error))
                continue
            tasks |= loaded["tasks"]
            groups |= loaded["groups"]
    if not tasks:
        first = "; ".join(f"{name}: {why}" for name, why in list(factory.failed.items())[:3])
        raise Error(f"none of the tasks can be loaded: {first}")
    return Loaded(tasks, groups, factory.members, factory.failed)


def _manager(include_path: str | Path | None) -> Any:
    with quiet():
        from lm_eval.tasks import TaskManager

        paths = [str(TASKS), *([str(include_path)] if include_path is not None else [])]
        return TaskManager(include_path=paths)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known)
    # lm-eval has thousands: no list of all.
    return close if close.startswith("; did") else "; `lm-eval ls tasks` lists lm-eval's"


def _factory(root: Path | None) -> Any:
    from lm_eval.tasks._factory import TaskFactory

    class Factory(TaskFactory):
        """Builds tasks on the data under `root`; of those that fail it keeps the reason and goes on."""

        def __init__(self) -> None:
            super().__init__()
            self.failed: dict[str, str] = {}
            self.members: dict[str, list[str]] = {}
            self.unreachable: dict[str, str] = {}

        def _build_task(self, entry: Any, overrides: Any) -> Any:
            path = None
            try:
                path = self._load_full_config(entry, overrides).get("dataset_path")
                if path in self.unreachable:
                    raise Error(self.unreachable[path])
                with _inside(root):
                    return super()._build_task(entry, overrides)
            except Exception as error:  # of any kind: data sets and task files are code of others
                why = reason(error) if isinstance(error, Error) else _why(path, root, error)
                if path is not None and isinstance(error, ConnectionError):
                    self.unreachable[path] = why  # the hub is not asked again for each of its tasks
                self.failed[entry.name] = why
                return None

        def _build_group_members(self, member_list: Any, group_name: str, *rest: Any) -> list[Any]:
            before = set(self.failed)
            built = super()._build_group_members(member_list, group_name, *rest)
            children = [child for child in built if child is not None]
            own = [child.task_name for child in children if hasattr(child, "task_name")]
            own += [name for child in children for name in self.members.get(getattr(child, "name", ""), [])]
            lost = [name for name in self.failed if name not in before and name not in own]
            self.members[group_name] = own + lost
            return children

        def _build_tag(self, *arguments: Any) -> list[Any]:
            return [task for task in super()._build_tag(*arguments) if task is not None]

    return Factory()


def _why(path: Any, root: Path | None, error: Exception) -> str:
    if path is None or "/" not in str(path):
        return reason(error)
    place = f"{path} is not in --data-root ({root / path})" if root else f"there is no --data-root with {path}"
    if root is not None and (root / path).is_dir():
        return f"{root / path}: {reason(error)}"
    offline = isinstance(error, (ConnectionError, FileNotFoundError)) or "offline" in str(error).lower()
    rest = "and the hub cannot be reached" if offline else f"and the hub's cannot be used ({reason(error)})"
    return f"{place}, {rest}; see `python -m jaxft.evaluation.harness.mirrors`"


def reason(error: BaseException) -> str:
    """Return the first line of an error, with its kind where that says more."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if isinstance(error, Error) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _inside(root: Path | None) -> Iterator[None]:
    # `datasets` looks for a relative path before it asks the hub.
    if root is None:
        yield
        return
    before = Path.cwd()
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what lm-eval and `datasets` tell on the way: warnings by the dozen, and a bar for every task."""
    from datasets.utils import disable_progress_bars, enable_progress_bars
    from tqdm.std import tqdm

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    init = tqdm.__init__

    def silent(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **{**options, "disable": True})

    disable_progress_bars()
    tqdm.__init__ = silent
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="sklearn")  # F1 of resamples without one of the labels
            yield
    finally:
        tqdm.__init__ = init
        enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
