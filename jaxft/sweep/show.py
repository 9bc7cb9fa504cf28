"""A sweep as a table and as a picture: mean and standard deviation over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.sweep.grid import SEEDS


class Group(NamedTuple):
    """Members that differ in seeds alone; losses are those of members that stayed finite."""

    settings: dict[str, Any]
    losses: list[float]
    train_losses: list[float]
    members: int
    diverged: int
    stopped: int


def best_of(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the member of lowest validation loss among those that stayed finite, or None."""
    sound = _finite(rows)
    return min(sound, key=lambda row: row["validation_loss"])["member"] if sound else None


def groups(rows: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Return rows of results grouped by all settings but the seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(json.dumps(_settings(row)), []).append(row)
    return [_group(part) for part in found.values()]


def show_results(rows: Sequence[Mapping[str, Any]], console: Any) -> None:
    """Print the groups of a sweep, the lowest validation loss first, with mean ± s.d. over seeds, and the best."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=f"{len(rows)} members: mean ± s.d. over seeds", title_justify="left", box=SIMPLE)
    keys = list(dict.fromkeys(key for row in rows for key in _settings(row)))
    for key in keys:
        table.add_column(key.split(".")[-1])
    for heading in ("members", "diverged", "stopped", "train loss", "validation loss"):
        table.add_column(heading, justify="right", no_wrap=heading.endswith("loss"))
    for group in sorted(groups(rows), key=lambda group: statistics.fmean(group.losses or [float("inf")])):
        counts = (group.members, group.diverged, group.stopped)
        values = (_text(group.settings.get(key, "")) for key in keys)
        table.add_row(*values, *map(str, counts), spread(group.train_losses), spread(group.losses))
    console.print(table)
    best = next((row for row in rows if row["member"] == best_of(rows)), None)
    if best is not None:
        settings = ", ".join(f"{key} {_text(value)}" for key, value in best["overrides"].items())
        console.print(
            f"best: member {best['member']} ({settings}), validation loss {best['validation_loss']:.4f}", markup=False
        )


def plot(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw the validation loss over the learning rate, or else the first number that varies, with error bars.

    Each combination of the other settings is a line; the bars are the standard deviation over seeds.
    """
    from matplotlib.figure import Figure

    grouped = [group for group in groups(rows) if group.losses]
    axis = _axis(grouped)
    lines: dict[str, list[Group]] = {}
    for group in grouped:
        name = ", ".join(f"{key.split('.')[-1]} {_text(value)}" for key, value in group.settings.items() if key != axis)
        lines.setdefault(name, []).append(group)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, line in lines.items():
        line = sorted(line, key=lambda group: group.settings.get(axis, 0))
        xs = [group.settings.get(axis, 0) for group in line]
        means = [statistics.fmean(group.losses) for group in line]
        axes.errorbar(xs, means, [_deviation(group.losses) for group in line], marker="o", capsize=3, label=name)
    values = [group.settings[axis] for group in grouped if axis in group.settings]
    if values and min(values) > 0 and max(values) > 3 * min(values):
        axes.set_xscale("log")
    axes.set(xlabel=axis, ylabel="validation loss")
    if not axis:
        axes.set_xticks([])
    if any(lines):
        axes.legend()
    figure.savefig(path, dpi=150)


def _finite(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["finite"] and row["validation_loss"] is not None]


def _group(rows: Sequence[Mapping[str, Any]]) -> Group:
    sound = _finite(rows)
    return Group(
        _settings(rows[0]),
        [row["validation_loss"] for row in sound],
        [row["train_loss"] for row in sound],
        len(rows),
        sum(not row["finite"] for row in rows),
        sum(row["stopped"] for row in rows),
    )


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["overrides"].items() if key not in SEEDS}


def _axis(grouped: Sequence[Group]) -> str:
    numbers = [
        key
        for key in dict.fromkeys(key for group in grouped for key in group.settings)
        if all(isinstance(group.settings.get(key), (int, float)) for group in grouped)
        and len({group.settings[key] for group in grouped}) > 1
    ]
    return "optimizer.learning_rate" if "optimizer.learning_rate" in numbers else next(iter(numbers), "")


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation as tables show them."""
    if not values:
        return "–"
    return f"{statistics.fmean(values):.4f}" + (f" ± {_deviation(values):.4f}" if len(values) > 1 else "")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
