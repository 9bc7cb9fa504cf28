"""What the members of a sweep are: a grid or a list of overrides of one recipe.

    sweep:                                             sweep:
      optimizer.learning_rate: [1e-4, 3e-4]              - {method.rank: 4, method.alpha: 8}
      train.seed: [0, 1, 2]                              - {method.rank: 16, method.alpha: 32}

The mapping is a grid of six members, the list names each one. Flags say the same as the mapping, and are added to it:
`--sweep.optimizer.learning_rate=1e-4,3e-4`. Only what leaves the program as it is may differ.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError, nearest
from jaxft.recipe import Recipe, lay_over, make_recipe, parse_flags, resolve, to_dict
from jaxft.recipe.text import read_yaml

VARY = (
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "method.alpha",
    "method.rank",
    "train.seed",
    "data.seed",
    "data.source",
)
SEEDS = ("train.seed", "data.seed")
RANKED = ("lora", "dora", "pissa")  # a narrower member of these is a wider one with zeros

Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def load_sweep(path: str | Path | None = None, flags: Sequence[str] = ()) -> tuple[Recipe, Grid]:
    """Return the recipe and the grid of a YAML file with a `sweep` key and of `--sweep.any.field=1,2` flags.

    Other flags are laid over the recipe as `load_recipe` does. The run folder is by default `runs/NAME-sweep`.
    """
    values, lines = read_yaml(path) if path is not None else ({}, {})
    grid = values.pop("sweep", {})
    own, swept = _split(flags)
    if swept and not isinstance(grid, Mapping):
        raise UsageError(f"--sweep.{swept[0][0]}: {path} lists its members; add it to the list, or write a mapping")
    for key in lay_over(values, parse_flags(own)):
        lines.pop(key, None)
    recipe = make_recipe(values, name=str(path) if path is not None else "recipe", lines=lines)
    if not recipe.out:
        recipe = dataclasses.replace(recipe, out=f"runs/{Path(path or 'run').stem}-sweep")
    return recipe, {**_flat(grid), **dict(swept)} if isinstance(grid, Mapping) else grid


def members_of(recipe: Recipe, grid: Grid) -> list[tuple[dict[str, Any], Recipe]]:
    """Return `(overrides, resolved recipe)` of each member of a grid: mapping of lists, or list of mappings.

    >>> members_of(recipe, {"method.rank": [4, 16], "train.seed": [0, 1]})    # doctest: +SKIP
    Raises UsageError for fields that cannot vary, values that do not fit, two equal members, and none.
    """
    overrides = _product(_flat(grid)) if isinstance(grid, Mapping) else [_flat(one) for one in _list(grid)]
    for one in overrides:
        for key in one:
            if key not in VARY:
                raise UsageError(
                    f"sweep.{key}: members cannot differ in {key!r}{nearest(key, VARY).partition('; known')[0]}; "
                    f"they can in {', '.join(VARY)}"
                )
    if not any(overrides):
        raise UsageError("sweep: there is nothing to vary: give --sweep.optimizer.learning_rate=1e-4,3e-4 or `sweep:`")
    members = []
    for one in overrides:
        values = to_dict(recipe)
        lay_over(values, list(one.items()))
        members.append((one, resolve(make_recipe(values, name=f"sweep member {_shown(one)}"))))
    _check(members)
    return members


def varied(recipes: Sequence[Recipe]) -> list[str]:
    """Return the keys of `VARY` in which recipes differ."""
    return [key for key in VARY if len({json.dumps(value_of(recipe, key)) for recipe in recipes}) > 1]


def value_of(recipe: Recipe, key: str) -> Any:
    """Return the value of a dotted key; None where the method has no such setting."""
    section, name = key.split(".")
    return to_dict(recipe)[section].get(name)


def _check(members: Sequence[tuple[dict[str, Any], Recipe]]) -> None:
    seen: dict[str, dict] = {}
    for one, recipe in members:
        same = seen.setdefault(json.dumps([value_of(recipe, key) for key in VARY]), one)
        if same is not one:
            raise UsageError(f"sweep: two members are the same, {_shown(same)} and {_shown(one)}: keep one")
    differ, recipe = varied([recipe for _, recipe in members]), members[0][1]
    method, adafactor = recipe.method, recipe.optimizer.name == "adafactor"
    if "method.rank" in differ:
        if method["name"] not in RANKED:
            raise UsageError(
                f"sweep.method.rank: the rank of {method['name']} cannot vary, only of {', '.join(RANKED)}"
            )
        if method.get("rank_pattern"):
            raise UsageError("sweep.method.rank: it cannot vary beside method.rank_pattern; remove one of them")
        if adafactor:
            raise UsageError("sweep.method.rank: adafactor clips by a mean that would see the padding; use adamw")
    if "optimizer.weight_decay" in differ and adafactor:
        raise UsageError("sweep.optimizer.weight_decay: it cannot vary with adafactor; use adamw")
    for axis in ("data", "fsdp"):
        if (getattr(recipe.mesh, axis) or 1) > 1:
            raise UsageError(f"mesh.{axis}: a sweep runs on one device; leave it out")
    train = recipe.train
    held = {"train.kl_to_base": train.kl_to_base, "train.l2_to_base": train.l2_to_base, "train.start": train.start,
            "probes.stop.drop": recipe.probes.stop.drop}  # fmt: skip
    for key, value in held.items():
        if value:
            raise UsageError(f"{key}: a sweep's members share one step and have no base of their own; leave it out")
    if recipe.train.batch_size % recipe.train.accumulate:
        raise UsageError(
            f"train.accumulate: {recipe.train.batch_size} rows do not fall into {recipe.train.accumulate} equal parts"
        )


def _product(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    for key, choices in axes.items():
        if isinstance(choices, (str, Mapping)) or not isinstance(choices, Sequence) or not choices:
            raise UsageError(f"sweep.{key}: {choices!r} is no list of values: write [1, 2] or, as a flag, 1,2")
    return [dict(zip(axes, choice, strict=True)) for choice in itertools.product(*axes.values())]


def _list(grid: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(grid, str) or not isinstance(grid, Sequence) or not all(isinstance(one, Mapping) for one in grid):
        raise UsageError("sweep: write a mapping of lists (a grid) or a list of mappings (its members)")
    return grid


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, Mapping) and key not in VARY else {key: value}
    return flat


def _split(flags: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    own, swept, rest = [], [], list(flags)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        if not flag.startswith("--sweep."):
            own.append(flag + equals + text)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{flag} needs values: {flag}=1,2")
            text = rest.pop(0)
        key = flag.removeprefix("--sweep.")
        swept += parse_flags([f"--{key}={text if text.startswith('[') else f'[{text}]'}"])
    return own, swept


def _shown(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in one.items())
