"""Gain against forgetting over runs, and a task x stage matrix, as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft.errors import Error, UsageError


def plot_gain_forgetting(
    runs: Sequence[str | Path] | Mapping[str, Any], path: str | Path, metric: str | None = None
) -> None:
    """Draw each run's gain on its own task against the change of its probes (backward transfer), both with intervals.

    `runs` are run folders, or summaries by name. `metric` is the gain's, by default the first that is no loss. Raises
    UsageError for a run without a summary, without forgetting, or not scored before.
    """
    points = [(name, *_point(name, summary, metric)) for name, summary in _summaries(runs).items()]
    if not points:
        raise UsageError("there are no runs to draw")
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    axes.axhline(0, color="0.8", linewidth=1, zorder=0)
    for i, (name, gain, change) in enumerate(points):
        color = f"C{i % 10}"
        axes.errorbar(gain[0], change[0], xerr=_bars(gain), yerr=_bars(change), fmt="o", capsize=3, color=color)
        axes.annotate(name, (gain[0], change[0]), xytext=(6, 6), textcoords="offset points", color=color)
    metrics = dict.fromkeys(metric or _first(summary) for summary in _summaries(runs).values())
    axes.set(xlabel=f"gain on its own task ({', '.join(metrics)})", ylabel="change of the probes' mean score",
             title="what was gained and what was forgotten (95 %)")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(path), dpi=150)
    plt.close(figure)


def plot_matrix(
    scores: Sequence[Sequence[float]] | np.ndarray, stages: Sequence[str], tasks: Sequence[str], path: str | Path
) -> None:
    """Draw scores [stages, tasks], a square each with its number; frames are around each task's own stage."""
    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(stages), len(tasks)):
        raise UsageError(f"scores: {scores.shape}, but {len(stages)} stages and {len(tasks)} tasks are named")
    plt = _pyplot()
    size = (2.2 + 1.1 * len(tasks), 1.4 + 0.6 * len(stages))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(scores, cmap="viridis", aspect="auto")
    middle = (scores.min() + scores.max()) / 2
    for i, j in np.ndindex(*scores.shape):
        color = "black" if scores[i, j] > middle else "white"
        axes.text(j, i, f"{scores[i, j]:.3f}", ha="center", va="center", color=color)
    for j in range(min(len(tasks), len(stages) - 1)):
        axes.add_patch(plt.Rectangle((j - 0.5, j + 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2))
    axes.set_xticks(range(len(tasks)), tasks, rotation=20, ha="right")
    axes.set_yticks(range(len(stages)), stages)
    axes.set_xlabel("scored on")
    figure.savefig(Path(path), dpi=150)
    plt.close(figure)


def _summaries(runs: Any) -> dict[str, Any]:
    if isinstance(runs, Mapping):
        return dict(runs)
    return {Path(run).name: _read(Path(run) / "summary.json") for run in runs}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is none: the run is not finished") from None
    except (OSError, ValueError) as error:
        raise Error(f"{path}: cannot be read as JSON ({error})") from None


def _first(summary: Mapping[str, Any]) -> str:
    return next((name for name in summary["after"] if name != "loss"), "loss")


def _point(name: str, summary: Mapping[str, Any], metric: str | None) -> tuple[Any, Any]:
    found = summary.get("forgetting", {})
    if "backward_transfer" not in found:
        raise UsageError(f"{name}: its summary has no forgetting: run it with probes")
    metric = metric or _first(summary)
    if metric not in summary["before"] or metric not in summary["after"]:
        raise UsageError(f"{name}: {metric} was not scored before and after: set evaluate.before")
    gain = summary["after"][metric] - summary["before"][metric]
    compared = summary.get("comparison", {}).get(metric, {})
    between = (compared.get("low", gain), compared.get("high", gain))
    return (gain, *between), (found["backward_transfer"], *found["backward_transfer_interval"])


def _bars(point: Sequence[float]) -> list[list[float]]:
    value, low, high = point
    return [[max(value - low, 0)], [max(high - value, 0)]]


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
