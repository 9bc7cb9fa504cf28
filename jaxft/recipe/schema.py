"""From nested values to a recipe and back; what is wrong with the values, and what the fields are."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from jaxft.errors import UsageError, nearest
from jaxft.recipe.fields import DataRecipe, Recipe

Section = TypeVar("Section")


def make_recipe(values: Mapping[str, Any], *, name: str = "recipe", lines: Mapping[str, int] | None = None) -> Recipe:
    """Return the recipe that a nested mapping describes; `name` and `lines` say in errors where a key stands."""
    values = dict(values)
    method = values.get("method")
    if isinstance(method, str):
        values["method"] = {"name": method}
    elif isinstance(method, Mapping):
        values["method"] = {"name": "lora", **method}
    if isinstance(values.get("probes"), bool):
        values["probes"] = {"enabled": values["probes"]}
    evaluate = values.get("evaluate")
    if isinstance(evaluate, Mapping) and isinstance(evaluate.get("in_context"), bool):
        values["evaluate"] = {**evaluate, "in_context": {"enabled": evaluate["in_context"]}}
    problems = [f"{_place(key, name, lines or {})}: {text}" for key, text in _data_problems(values.get("data", {}))]
    try:
        recipe = check(Recipe, values, name=name, lines=lines)
    except UsageError as error:
        raise UsageError("\n".join([str(error), *problems])) from None
    if problems:
        raise UsageError("\n".join(problems))
    return recipe


def check(
    section: type[Section],
    values: Mapping[str, Any],
    *,
    prefix: str = "",
    name: str = "recipe",
    lines: Mapping[str, int] | None = None,
) -> Section:
    """Return the dataclass that `values` fill; `prefix` is where it stands in a recipe."""
    try:
        return _adapter(section).validate_python(values)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        raise UsageError("\n".join(_explain(error, prefix, name, lines or {}))) from None


@functools.cache
def _adapter(section: Any) -> TypeAdapter[Any]:
    return TypeAdapter(section)  # made once: making one takes longer than what it checks


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as nested plain values: what `make_recipe` takes."""
    return dataclasses.asdict(recipe)


def to_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML that loads to an equal one."""
    import yaml

    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True, width=120)


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield `(key, value, other value)` for each field in which two recipes differ."""
    one, other = (to_dict(value) if isinstance(value, Recipe) else value for value in (one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif one != other:
        yield path, one, other


class RecipeField(NamedTuple):
    """A leaf of the recipe: what `--help` says about it."""

    key: str
    type: str
    default: Any
    help: str


def recipe_fields(section: type = Recipe, prefix: str = "") -> Iterator[RecipeField]:
    """Yield every field of the recipe, depth first."""
    hints = typing.get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from recipe_fields(hint, f"{key}.")  # type: ignore[arg-type]
        else:
            about = next(item for item in hint.__metadata__ if hasattr(item, "description"))
            yield RecipeField(key, _type_name(hint.__origin__), _default(field), about.description)


def _explain(error: ValidationError, prefix: str, name: str, lines: Mapping[str, int]) -> Iterator[str]:
    told = set()
    hints = field_types(Recipe)
    for problem in error.errors():
        parts = [*filter(None, [prefix]), *(str(part) for part in problem["loc"])]
        key = ".".join(parts)
        while key not in hints and key.count(".") > 0 and ".".join(parts[:-1]) in hints and _is_leaf(hints, parts[:-1]):
            parts.pop()  # inside a union or mapping: the field itself is what a person wrote
            key = ".".join(parts)
        if key in told:
            continue
        told.add(key)
        yield f"{_place(key, name, lines)}: {_problem(problem, key, hints)}"


def _place(key: str, name: str, lines: Mapping[str, int]) -> str:
    return f"{name}:{lines[key]}" if key in lines else name


_ROWS = ("source", "prompt", "completion")  # what a recipe without tasks needs
_NO_TASKS = (*_ROWS, "system", "validation", "test")  # what tasks bring along
_TASKS = ("mixture", "cap", "temperature", "shots", "rationale", "held_out_templates")


def _data_problems(data: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(data, Mapping):
        return
    if data.get("tasks"):
        for key in _NO_TASKS:
            if data.get(key) is not None:
                yield f"data.{key}", f"data.{key} beside data.tasks, which bring their own: remove one of the two"
        return
    missing = [f"data.{key}" for key in _ROWS if data.get(key) is None]
    if missing:
        text = f"{' and '.join(missing)} is missing: set it in the file or with --{missing[0]}=...; or set data.tasks"
        yield missing[0], text
    defaults = {field.name: _default(field) for field in dataclasses.fields(DataRecipe)}
    for key in _TASKS:
        if data.get(key, defaults[key]) != defaults[key]:
            yield f"data.{key}", f"data.{key} is about data.tasks, and there are none: remove it or set data.tasks"


def _problem(problem: Any, key: str, hints: Mapping[str, Any]) -> str:
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {key!r}{_nearest_key(key, hints)}"
    if problem["type"] in ("missing", "missing_argument"):
        required = [field.key for field in recipe_fields() if field.default is dataclasses.MISSING]
        named = [name for name in required if f"{name}.".startswith(f"{key}.")] or [key]
        return f"{' and '.join(named)} is missing: set it in the file or with --{named[0]}=..."
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    value = problem["input"] if len(repr(problem["input"])) < 60 else "..."
    return f"{key} {message} (it is {value!r}; type {_type_name(hints.get(key, Any))})"


def _nearest_key(key: str, hints: Mapping[str, Any]) -> str:
    section, _, leaf = key.rpartition(".")
    siblings = [known for known in hints if known.rpartition(".")[0] == section]
    # A field is often put into the wrong section, or into none: its own name says more than where it stands.
    closest = difflib.get_close_matches(leaf, {known.rpartition(".")[2]: None for known in hints}, n=1, cutoff=0.7)
    elsewhere = [known for known in hints if closest and known.rpartition(".")[2] == closest[0]]
    beside = [known for known in elsewhere if known in siblings]
    return nearest((beside or elsewhere)[0], hints) if elsewhere else nearest(key, siblings)


def field_types(section: type, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(section).items():
        if name.startswith("_"):
            continue
        found[prefix + name] = hint
        if dataclasses.is_dataclass(hint):
            found |= field_types(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def _is_leaf(hints: Mapping[str, Any], parts: Sequence[str]) -> bool:
    return not dataclasses.is_dataclass(hints[".".join(parts)])


def members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    names = []
    for member in members(hint):
        if typing.get_origin(member) is Literal:
            names.append("|".join(map(str, typing.get_args(member))))
        elif member is type(None):
            names.append("null")
        elif dataclasses.is_dataclass(member):
            names.append("mapping")
        else:
            origin = typing.get_origin(member) or member
            names.append({dict: "mapping", list: "list", str: "text"}.get(origin, getattr(origin, "__name__", "value")))
    return "|".join(names)


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
