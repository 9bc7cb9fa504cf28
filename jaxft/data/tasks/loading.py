"""Tasks by name, from YAML, or from a mapping; a family's record gives one task per value.

A record with `each` is a family. `each: subject` gives a task for each value of that column (`mmlu/{subject}`), with
`where` set to it; `each: {en-de: {...}, ...}` one for each key, with the keys below laid over the record. `also` names
files with a row per value (a column of the same name): a task sees its own as `about`.

    load_task("mmlu/anatomy", root="data"); load_tasks(["superni/*", "my_task.yaml"], root="data")
"""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jaxft.data.sources import column_values, read_cached, split_name, split_names
from jaxft.data.tasks.converting import converted
from jaxft.data.tasks.task import Task, Template
from jaxft.data.templates import evaluate, is_template
from jaxft.errors import Error, UsageError, nearest

Record = Mapping[str, Any]
_LIBRARY = Path(__file__).parent / "library"


def load_task(task: str | Path | Record | Task, root: str | Path | None = None) -> Task:
    """Return one task: by a name of ours, from a YAML file, a mapping, or a Task itself.

    `root` stands for `{root}` in its source; by default it is the environment's JAXFT_DATA. Raises UsageError for a
    name that does not exist, naming the nearest, and for each thing that is wrong with a record.
    """
    found = load_tasks([task], root)
    if len(found) > 1:
        raise UsageError(f"{task!r} is a family of {len(found)} tasks; name one, such as {found[0].name}")
    return found[0]


def load_tasks(tasks: Sequence[str | Path | Record | Task], root: str | Path | None = None) -> list[Task]:
    """Return the tasks of names of ours, globs over them, YAML files and mappings, families taken apart."""
    root = str(root) if root is not None else os.environ.get("JAXFT_DATA")
    found = [one for task in tasks for one in _found(task, root)]
    repeated = [one.name for i, one in enumerate(found) if one.name in {other.name for other in found[:i]}]
    if repeated:
        raise UsageError(f"the task {repeated[0]!r} is asked for twice")
    return found


def task_names(root: str | Path | None = None) -> list[str]:
    """Return the names of our tasks; of a family whose data are not there, its pattern, such as `mmlu/{subject}`."""
    root = str(root) if root is not None else os.environ.get("JAXFT_DATA")
    names: list[str] = []
    for record in _library().values():
        try:
            names += _family(record, root)
        except Error:
            names.append(str(record["name"]))
    return names


def _found(task: str | Path | Record | Task, root: str | None) -> Iterator[Task]:
    if isinstance(task, Task):
        yield task
    elif isinstance(task, Mapping):
        yield from (make_task(record, root=root) for record in _family(task, root).values())
    elif str(task).endswith((".yaml", ".yml")) or isinstance(task, Path):
        record = _read_yaml(Path(task).expanduser())
        yield from (make_task(one, place=str(task), root=root) for one in _family(record, root).values())
    else:
        yield from _ours(str(task), root)


def _ours(name: str, root: str | None) -> Iterator[Task]:
    count = 0
    for record in _library().values():
        head = str(record["name"]).split("{")[0]  # a family's files are read where its names may match
        if head != record["name"] and not fnmatch.fnmatchcase(head, name[: len(head)].rstrip("*") + "*"):
            continue
        for one, values in _family(record, root).items():
            if fnmatch.fnmatchcase(one, name):
                count += 1
                yield make_task(values, place=one, root=root)
    if not count:
        raise UsageError(f"no task {name!r}{nearest(name, task_names(root))}")


@functools.lru_cache(maxsize=1)
def _library() -> dict[str, Record]:
    return {str(path): _read_yaml(path) for path in sorted(_LIBRARY.rglob("*.yaml"))}


def _read_yaml(path: Path) -> Record:
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            record = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Error(f"{path}: broken YAML ({' '.join(str(error).split())})") from None
    if not isinstance(record, Mapping):
        raise UsageError(f"{path}: a task is a mapping of its fields")
    return record


def _family(record: Record, root: str | None) -> dict[str, Record]:
    """The records of a family's tasks by their names; a task of its own is a family of one."""
    name = str(record.get("name", ""))
    rest = {key: value for key, value in record.items() if key not in ("each", "also")}
    each = record.get("each")
    if each is None:
        return {name: rest | {"splits": _splits(rest, root)}}
    if isinstance(each, Mapping):
        members = {name.replace("{each}", str(value)): rest | dict(laid or {}) for value, laid in each.items()}
        return {one: values | {"name": one, "splits": _splits(values, root)} for one, values in members.items()}
    if root is None and "{root}" in str(record.get("source")):
        raise UsageError(f"{name}: its names are in its data; say where they lie with `root` or JAXFT_DATA")
    splits = _splits(rest, root)
    having: dict[Any, dict[str, Any]] = {}
    for split, wanted in splits.items():
        for value in column_values(*_part(rest, root, wanted), each, name=split):
            having.setdefault(value, {})[split] = wanted
    about = _about(record.get("also"), each, root)
    return {
        (one := name.replace("{" + each + "}", str(value))): _described(
            rest | {"name": one, "splits": has, "where": {**rest.get("where", {}), each: value}}, about.get(value, {})
        )
        for value, has in having.items()
    }


def _described(values: dict[str, Any], about: dict[str, Any]) -> Record:
    licence = values.get("licence") or ""
    if about and is_template(licence):
        values["licence"] = str(evaluate("licence", licence, {"about": about}))
    return values | {"about": {**values.get("about", {}), **about}}


def _about(also: str | list[str] | None, each: str, root: str | None) -> dict[Any, dict[str, Any]]:
    paths = [also] if isinstance(also, str) else also or []
    rows = [row for path in paths for row in read_cached(_rooted(path, root), None, name="about")]
    return {row.get(each): dict(row) for row in rows}


def _splits(record: Record, root: str | None) -> dict[str, Any]:
    """The task's splits and what each is of the source; for a source without `splits`, its own."""
    source = record.get("source")
    if isinstance(record.get("splits"), Mapping) and record["splits"]:
        return {split_name(str(name)): wanted for name, wanted in record["splits"].items()}
    if isinstance(source, Mapping):
        return {split_name(str(name)): name for name in source}
    path = _rooted(str(source), root)
    known = Path(path).expanduser().exists() or path.startswith("generated:")
    return {name: name for name in split_names(path)} if known else {}


def _part(record: Record, root: str | None, wanted: Any) -> tuple[str, str | None]:
    # Where a split lies: a source, and its split there (None: the whole file). What is carved is carved of train.
    source = record["source"]
    wanted = wanted if isinstance(wanted, str) else "train"
    if isinstance(source, Mapping):
        return _rooted(str(source[wanted]), root), None
    return _rooted(str(source), root), wanted


def _rooted(source: str, root: str | None) -> str:
    return source if root is None else source.replace("{root}", str(Path(root).expanduser()))


def make_task(values: Record, *, place: str = "task", root: str | None = None) -> Task:
    """Return the task that a mapping describes; `place` says in errors where it stands.

    `templates` is a list, or a mapping from ids to prompts or to templates; one of promptsource (`promptsource`,
    `answer_choices`) or FLAN (`input`, `target`) is converted.
    """
    values = {**values, "templates": [*_templates(values.get("templates") or {}, place)]}
    source = values.get("source")
    if isinstance(source, Mapping):
        values["source"] = {key: _rooted(str(path), root) for key, path in source.items()}
    elif source is not None:
        values["source"] = _rooted(str(source), root)
    try:
        return TypeAdapter(Task).validate_python(values)
    except ValidationError as error:
        raise UsageError("\n".join(_explained(error, values, place))) from None


def _templates(templates: Any, place: str) -> Iterator[Any]:
    if isinstance(templates, Mapping):
        templates = [{"id": str(id), **(one if isinstance(one, Mapping) else {"prompt": one})}
                     for id, one in templates.items()]  # fmt: skip
    if not isinstance(templates, Sequence) or isinstance(templates, str):
        raise UsageError(f"{place}: templates is neither a mapping from ids to prompts nor a list of templates")
    for one in templates:
        try:
            yield converted(one) if isinstance(one, Mapping) else one
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from None


def _explained(error: ValidationError, values: Record, place: str) -> Iterator[str]:
    known = {"": Task.__dataclass_fields__, "templates": Template.__dataclass_fields__}
    for problem in error.errors():
        loc = [str(part) for part in problem["loc"]]
        key = ".".join(_by_id(loc, values))
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            section = "templates" if loc[0] == "templates" else ""
            others = ["each", "also"] if not section else ["promptsource", "input", "target"]
            yield f"{place}: unknown key {key!r}{nearest(loc[-1], [*known[section], *others])}"
        elif problem["type"] in ("missing", "missing_argument"):
            yield f"{place}: {key} is missing"
        else:
            message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
            given = repr(problem["input"])
            about = f" (it is {given})" if problem["type"] != "value_error" and len(given) < 60 else ""
            yield f"{place}: {key + ': ' if key else ''}{message}{about}"


def _by_id(loc: list[str], values: Record) -> list[str]:
    # A template's number says less than its id.
    if len(loc) > 1 and loc[0] == "templates" and loc[1].isdigit():
        one = values["templates"][int(loc[1])]
        loc[1] = str(one.get("id", loc[1])) if isinstance(one, Mapping) else loc[1]
    return loc
