"""Recipes as people write them: a YAML file, and flags laid over it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError
from jaxft.recipe.fields import Recipe
from jaxft.recipe.schema import Section, check, field_types, make_recipe, members, to_dict


def load_recipe(path: str | Path | None = None, flags: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file with `--any.field=value` flags laid over it.

    A flag for a whole section or mapping replaces it (`--method=prompt`), one for a field sets that field.
    Raises UsageError naming each unknown key, wrong value and missing field.
    """
    values, lines = read_yaml(path) if path is not None else ({}, {})
    for key in lay_over(values, parse_flags(flags)):
        lines.pop(key, None)
    recipe = make_recipe(values, name=str(path) if path is not None else "recipe", lines=lines)
    return recipe if recipe.out else dataclasses.replace(recipe, out=f"runs/{Path(path or 'run').stem}")


def override(recipe: Recipe, flags: Sequence[str]) -> Recipe:
    """Return the recipe with `--any.field=value` flags laid over it."""
    values = to_dict(recipe)
    lay_over(values, parse_flags(flags))
    return make_recipe(values)


def lay_over(values: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> list[str]:
    """Put `(dotted key, value)` pairs into nested values, in place, and return the keys."""
    for key, value in pairs:
        _set(values, key, value)
    return [key for key, _ in pairs]


def parse_section(section: type[Section], name: str, flags: Sequence[str]) -> Section:
    """Return one section of a recipe (its class and name) from flags alone: `--name.field=value`."""
    values: dict[str, Any] = {name: {}}
    lay_over(values, parse_flags(flags))
    for other in set(values) - {name}:
        raise UsageError(f"--{other}: only fields of {name!r} are known here: --{name}.field=value")
    return check(section, values[name], prefix=name)


def parse_flags(flags: Sequence[str]) -> list[tuple[str, Any]]:
    """Return `(key, value)` of each `--key=value` or `--key value`; values are YAML, and text where the field is text.

    >>> parse_flags(["--train.steps=3", "--data.prompt", "Say: {{ x }}", "--optimizer.learning_rate", "2e-4"])
    [('train.steps', 3), ('data.prompt', 'Say: {{ x }}'), ('optimizer.learning_rate', 0.0002)]
    """
    hints = field_types(Recipe)
    pairs, rest = [], list(flags)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if not flag.startswith("--") or len(flag) < 3:
            raise UsageError(f"{flag!r} is no flag: write --section.field=value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{flag} needs a value: {flag}=...")
            text = rest.pop(0)
        key = flag[2:].replace("-", "_")
        pairs.append((key, _flag_value(flag, text, hints.get(key, Any))))
    return pairs


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a YAML file's mapping, and the line of each dotted key."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from None
    try:
        node = yaml.compose(text, Loader=_loader())
        values = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{place}: not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: {'the recipe is empty' if values is None else 'a recipe is a mapping of sections'}")
    return values, dict(_key_lines(node, str(path)))


def _loader():
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 reads 2e-4 as text; people mean the number."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
    return Loader


def _key_lines(node, path: str, prefix: str = "") -> Iterator[tuple[str, int]]:
    seen = set()
    for key, value in node.value:
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if name in seen:
            raise UsageError(f"{path}:{line}: {name} stands there twice: keep one")
        seen.add(name)
        yield name, line
        if value.id == "mapping":
            yield from _key_lines(value, path, f"{name}.")


def _flag_value(flag: str, text: str, hint: Any) -> Any:
    import yaml

    kinds = {typing.get_origin(kind) or kind for kind in members(hint)}
    plain = str in kinds and not (text in ("null", "None", "") and type(None) in kinds)
    if plain and not (text.startswith(("{", "[")) and kinds & {dict, list}):
        return text
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError:
        raise UsageError(f"{flag}: {text!r} is not YAML") from None


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for i, parent in enumerate(parents):
        if parent == "method" and isinstance(values.get(parent), str):
            values[parent] = {"name": values[parent]}
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UsageError(f"--{key}: {'.'.join(parents[: i + 1])} is not a section")
    values[last] = value
