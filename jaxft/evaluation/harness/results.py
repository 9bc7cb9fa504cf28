"""From lm-eval's scores of single tasks to one table: groups, and an interval for every number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from jaxft.evaluation.harness.loading import Loaded
from jaxft.evaluation.metrics.measuring import wilson

RESAMPLES = 1000
VERSION = 1  # of results.json

Interval = tuple[float, float]


def task_intervals(task: Any, scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Interval]:
    """Return the 95 % interval of each of a task's scores.

    Wilson's for a share of right examples, else normal by lm-eval's standard error, else by the bootstrap: the metric
    is computed again on resampled examples, unless it brings its own `interval`. A score of fewer than two examples
    has none, but for a share.
    """
    found = {}
    for key, value in scores.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr"):
            continue
        items = [sample[metric] for sample in samples if sample["filter"] == filtered and metric in sample]
        error = scores.get(f"{metric}_stderr,{filtered}")
        if items and all(item in (0, 1) for item in items) and value == sum(items) / len(items):
            found[key] = wilson(int(sum(items)), len(items))
        elif _is_number(error):
            found[key] = (value - 1.96 * error, value + 1.96 * error)
        elif len(items) > 1:
            interval = _bootstrap(task.aggregation().get(metric), items)
            found |= {key: interval} if interval else {}
    return found


def _bootstrap(aggregate: Callable | None, items: Sequence[Any]) -> Interval | None:
    """Efron 1979: percentiles of the metric on examples drawn with replacement, the same in every process."""
    if aggregate is None:
        return None
    if hasattr(aggregate, "interval"):
        return aggregate.interval(items)
    random = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(items), len(items))
        try:
            values.append(float(aggregate([items[i] for i in drawn])))
        except (TypeError, ValueError, ZeroDivisionError):
            return None
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return low, high


def group_scores(loaded: Loaded, results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each group's scores over those of its tasks that have some, as the group says."""
    found = {}
    for name, group in loaded.groups.items():
        if group.aggregate_metric_list:
            scores = group.aggregate(results)
            found[name] = {key: value for key, value in scores.items() if key != "sample_count"}
    return found


def group_intervals(scores: Mapping[str, Any]) -> dict[str, Interval]:
    """Return normal intervals by a group's pooled standard errors."""
    errors = {key: scores.get(key.replace(",", "_stderr,", 1)) for key in scores if "_stderr" not in key}
    return {
        key: (scores[key] - 1.96 * error, scores[key] + 1.96 * error)
        for key, error in errors.items()
        if "," in key and _is_number(error)
    }


def missing(loaded: Loaded, results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return of every group the tasks that are not in its scores."""
    lost = {name: [task for task in tasks if task not in results] for name, tasks in loaded.members.items()}
    return {name: tasks for name, tasks in lost.items() if tasks and name in loaded.groups}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def show_results(report: Mapping[str, Any], console: Any) -> None:
    """Print a table: each number with its interval, the number of examples and of worked examples."""
    from rich.table import Table

    table = Table(title=f"{report['model_source']}" + (f" with {report['adapter']}" if report["adapter"] else ""))
    for name in ("task", "shots", "n", "metric", "value", "95 % interval"):
        right = name in ("shots", "n", "value")
        table.add_column(name, justify="right" if right else "left", no_wrap=name not in ("task", "metric"))
    rows = {**report["groups"], **{k: v for k, v in report["results"].items() if k not in report["groups"]}}
    for name, scores in rows.items():
        lost = len(report["missing"].get(name, ()))
        first = True
        for key, value in scores.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not _is_number(value):
                continue
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            interval = report["intervals"].get(name, {}).get(key)
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
            facts = f"{name} (without {lost})" if lost else name, report["n-shot"].get(name, ""), scores["sample_len"]
            table.add_row(*(str(fact) if first else "" for fact in facts), label, f"{value:.3f}", shown)
            first = False
    console.print(table)
