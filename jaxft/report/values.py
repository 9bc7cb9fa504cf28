"""Numbers with what is known about them, taken from files that may hold anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Value(NamedTuple):
    """A number, and its 95 % interval where it is known."""

    value: float
    low: float | None = None
    high: float | None = None


class Change(NamedTuple):
    """A difference on the same examples, its 95 % interval, and whether it is more than chance."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: str = ""
    stands: bool | None = None


class Measure(NamedTuple):
    """What was measured before and after training; `about` says how."""

    before: Value | None
    after: Value | None
    change: Change | None = None
    about: str = ""


def change_of(one: Measure) -> Change | None:
    """Return the change that was tested, or else the plain difference, or None."""
    if one.change is not None or one.before is None or one.after is None:
        return one.change
    return Change(one.after.value - one.before.value)


def part(value: Any, *keys: str) -> dict[str, Any]:
    """Return the mapping under `keys`, or an empty one."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if sound else None


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return those members of a list that are mappings."""
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, (list, tuple)) else []


def bounded(one: Any) -> Value | None:
    """Return the value of a mapping with value, low and high, or of a number; else None."""
    if not isinstance(one, Mapping):
        return valued(one)
    return valued(one.get("value"), (one.get("low"), one.get("high")))


def measures(one: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Measure]:
    """Return the measures of a mapping with before, after, intervals and comparison, by metric."""
    before, after = part(one, "before"), part(one, "after")
    lows = {when: part(one, "intervals", when) for when in ("before", "after")}
    return {
        name: Measure(
            valued(before.get(name), lows["before"].get(name)),
            valued(after.get(name), lows["after"].get(name)),
            change(part(one, "comparison").get(name), "difference"),
            str(about.get(name, "")),
        )
        for name in {**before, **after}
    }


def json_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """Return what a file holds, or an empty mapping with a note if it holds something else."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} cannot be read: it is no JSON object.")
        return {}
    return value


def change(one: Any, key: str = "value") -> Change | None:
    """Return the change in a mapping whose difference stands under `key`, or None."""
    one = part(one)
    found = number(one.get(key))
    if found is None:
        return None
    stands = one.get("stands")
    low, high, p = (number(one.get(name)) for name in ("low", "high", "p"))
    return Change(found, low, high, p, str(one.get("test", "")), stands if isinstance(stands, bool) else None)


def valued(value: Any, bounds: Any = None) -> Value | None:
    """Return a number with `bounds`, its [low, high], where they are two; None for what is no number."""
    found = number(value)
    low, high = bounds if isinstance(bounds, (list, tuple)) and len(bounds) == 2 else (None, None)
    return None if found is None else Value(found, number(low), number(high))
