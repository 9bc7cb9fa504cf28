"""results.json of `jaxft evaluate --tasks`, or lm-eval's own: scores of a model on benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError
from jaxft.report.values import Value, json_object, number, part, valued


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """The scores of a model on benchmarks: `{task: {metric: Value}}`, groups first, and how they were made.

    `members` are the tasks that stand in a group.
    """

    name: str
    path: Path
    tasks: dict[str, dict[str, Value]]
    members: frozenset[str]
    facts: dict[str, str]
    notes: tuple[str, ...]


def read_benchmarks(path: Path, name: str) -> Benchmarks:
    """Return the scores of a results.json; UsageError if there are none."""
    notes: list[str] = []
    found = json_object(path, notes)
    # Groups stand in both; where a task is first is where it stays.
    results = part(found, "groups") | part(found, "results")
    tasks = {task: _metrics(one, part(found, "intervals", task)) for task, one in results.items() if part(one)}
    if not any(tasks.values()):
        raise UsageError(
            f"{path}: holds no `results` by task: name a run folder, or results.json or helm.json of `jaxft evaluate`"
        )
    notes += [f"{task} failed: {reason}" for task, reason in part(found, "failed").items()]
    notes += [
        f"{group} is without {', '.join(map(str, lost))}" for group, lost in part(found, "missing").items() if lost
    ]
    groups = [task for group, tasks in part(found, "group_subtasks").items() if group in results for task in tasks]
    return Benchmarks(name, path, tasks, frozenset(map(str, groups)), _facts(found), tuple(notes))


def _facts(found: Mapping[str, Any]) -> dict[str, str]:
    config, counts = part(found, "config"), part(found, "n-samples")
    samples = sum(int(number(part(one).get("effective")) or 0) for one in counts.values())
    facts = {
        "model": found.get("model_source") or found.get("model_name") or config.get("model"),
        "adapter": found.get("adapter"),
        "examples": f"{samples:,}" if samples else None,
        "shots": ", ".join(dict.fromkeys(str(shots) for shots in part(found, "n-shot").values())),
        "limit": config.get("limit"),
        "lm-eval": found.get("lm_eval_version"),
        "date": found.get("date"),
        "seconds": found.get("total_evaluation_time_seconds"),
        "commit": found.get("git_hash"),
    }
    return {key: str(value) for key, value in facts.items() if value}


def _metrics(one: Mapping[str, Any], intervals: Mapping[str, Any]) -> dict[str, Value]:
    made = {}
    for key, value in one.items():
        metric, _, filtered = key.partition(",")
        found, error = number(value), number(one.get(f"{metric}_stderr,{filtered}"))
        if found is None or metric.endswith("_stderr") or "," not in key:
            continue
        bounds = intervals.get(key)
        if bounds is None and error is not None:
            bounds = (found - 1.96 * error, found + 1.96 * error)  # normal, by lm-eval's standard error
        sound = valued(found, bounds)
        if sound is not None:
            made[metric if filtered in ("", "none") else f"{metric} ({filtered})"] = sound
    return made
