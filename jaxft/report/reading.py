"""Run folders, sweep folders, results of benchmarks and of HELM as plain values; what is missing becomes a note.

    run = read("runs/lora")
    run.scores["rouge1"].after.value, run.notes

A folder may be unfinished, or of an earlier or later version: each value is looked for where version 2 of summary.json
has it, and is None or absent where it is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from jaxft.errors import UsageError
from jaxft.report import helm
from jaxft.report.benchmarks import Benchmarks, read_benchmarks
from jaxft.report.values import Change, Measure, Value, bounded, change, json_object, mappings, measures, number, part
from jaxft.training.journal import read_lines

VERSION = 2  # of summary.json
_T = TypeVar("_T")


class Baseline(NamedTuple):
    """The untuned model asked in another way on n examples; `changes` are tuned less this one, on the same examples."""

    name: str
    scores: dict[str, Value]
    changes: dict[str, Change]
    n: int | None
    prompt: str


class Task(NamedTuple):
    """A task of several: how many examples of it were trained on, its scores, and those of its phrasings with n."""

    trained: float | None
    scores: dict[str, Measure]
    phrasings: dict[str, tuple[dict[str, Measure], float | None]]


@dataclasses.dataclass(frozen=True)
class Folder:
    """What runs and sweeps have in common."""

    name: str
    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    sessions: list[dict[str, Any]]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Run(Folder):
    """A run: its summary in parts, `rows` of metrics.jsonl and of predictions.jsonl."""

    scored_on: str
    scores: dict[str, Measure]
    probes: dict[str, Measure]
    forgetting: dict[str, Any]
    baselines: list[Baseline]
    tasks: dict[str, Task]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    predictions: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sweep(Folder):
    """A sweep: what it asked and took (sweep.json), and a row for each member."""

    asked: dict[str, Any]
    rows: list[dict[str, Any]]


Found = Run | Sweep | Benchmarks | helm.Helm


def read_all(path: str | Path, name: str = "") -> list[Found]:
    """Return what `read` does, and HELM's metrics that lie in the same folder."""
    found, beside = read(path, name), Path(path) / helm.FILE
    more = beside.is_file() and not isinstance(found, helm.Helm)
    return [found, helm.read_helm(beside, found.name)] if more else [found]


def read(path: str | Path, name: str = "") -> Found:
    """Return what a folder, a results.json or a helm.json holds; UsageError if it is no run, sweep or results."""
    path = Path(path)
    name = name or path.resolve().name
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder")
    if path.is_file():
        return helm.read_helm(path, name) if helm.is_helm(path) else read_benchmarks(path, name)
    if (path / "sweep.json").exists():
        return _sweep(path, name)
    if any((path / file).exists() for file in ("summary.json", "metrics.jsonl", "predictions.jsonl", "recipe.yaml")):
        return _run(path, name)
    if (path / "results.json").exists():
        return read_benchmarks(path / "results.json", name)
    if (path / helm.FILE).is_file():
        return helm.read_helm(path / helm.FILE, name)
    raise UsageError(f"{path}: is no run, no sweep and no results of an evaluation (it has no summary.json, "
                     "metrics.jsonl, sweep.json, results.json, helm.json): name the folder of `out`")  # fmt: skip


def _run(path: Path, name: str) -> Run:
    notes: list[str] = []
    summary = json_object(path / "summary.json", notes)
    rows = [row for row in mappings(read_lines(path / "metrics.jsonl")) if number(row.get("step")) is not None]
    predictions = mappings(read_lines(path / "predictions.jsonl"))
    common = _folder(path, name, notes)
    notes += _missing(path, summary, rows, predictions, common["recipe"])
    scored = part(summary, "scored_on")
    forgetting = part(summary, "forgetting")
    return Run(
        **common,
        notes=tuple(notes),
        scored_on=f"{scored['examples']} {scored['split']} examples" if {"examples", "split"} <= scored.keys() else "",
        scores=measures(summary, part(summary, "provenance")),
        probes={name: _probe(one) for name, one in part(forgetting, "probes").items() if isinstance(one, Mapping)},
        forgetting=forgetting,
        baselines=[_baseline(one) for one in mappings(summary.get("in_context"))],
        tasks={name: Task(number(part(one, "train").get("examples")), measures(part(one), {}), _phrasings(part(one)))
               for name, one in part(summary, "tasks").items()},
        summary=summary,
        rows=rows,
        predictions=[row for row in predictions if isinstance(row.get("id"), str)],
    )  # fmt: skip


def _folder(path: Path, name: str, notes: list[str]) -> dict[str, Any]:
    text = ""
    if (path / "recipe.yaml").exists():
        text = (path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        recipe = None
        notes.append("recipe.yaml is no YAML.")
    sessions = mappings(json_object(path / "environment.json", notes).get("sessions"))
    return {"name": name, "path": path, "recipe": part(recipe), "recipe_text": text, "sessions": sessions}


def _missing(
    path: Path, summary: Mapping[str, Any], rows: Sequence[Any], predictions: Sequence[Any], recipe: Mapping[str, Any]
) -> list[str]:
    notes = []
    if not (path / "summary.json").exists():
        last = f" (last step in metrics.jsonl: {rows[-1]['step']})" if rows else ""
        notes.append(f"The run is not finished{last}: there is no summary.json, so no scores, sizes and times. "
                     "`jaxft train` with the same recipe goes on.")  # fmt: skip
    elif summary and summary.get("version") != VERSION:
        notes.append(f"summary.json is of version {summary.get('version', 1)}, this page shows version {VERSION}: "
                     "what only one of them has is not shown.")  # fmt: skip
    if not rows:
        notes.append("metrics.jsonl is missing or empty: no loss curves.")
    if not predictions:
        notes.append("predictions.jsonl is missing or empty: no completions to browse.")
    elif not any(row.get("after") is not None for row in predictions):
        notes.append("predictions.jsonl has no completions of the tuned model.")
    if not recipe:
        notes.append("recipe.yaml is missing or empty.")
    if summary and part(summary, "after") and not part(summary, "before"):
        notes.append("The untuned model was not scored (evaluate.before).")
    return notes


def _probe(one: Mapping[str, Any]) -> Measure:
    about = ", ".join(str(one[key]) if key == "metric" else f"n = {one[key]}" for key in ("metric", "n") if key in one)
    return Measure(bounded(one.get("before")), bounded(one.get("after")), change(part(one, "change")), about)


def _baseline(one: Mapping[str, Any]) -> Baseline:
    scores = {name: bounded(value) for name, value in part(one, "scores").items()}
    changes = {name: change(value, "difference") for name, value in part(one, "comparison").items()}
    n, name = number(one.get("n")), str(one.get("name", "in-context"))
    return Baseline(name, _sound(scores), _sound(changes), None if n is None else int(n), str(one.get("prompt", "")))


def _phrasings(task: Mapping[str, Any]) -> dict[str, tuple[dict[str, Measure], float | None]]:
    before, after = (part(task, "templates", when) for when in ("before", "after"))
    made = {}
    for name in {**before, **after}:
        old, new = part(before, name, "scores"), part(after, name, "scores")
        found = {metric: Measure(bounded(old.get(metric)), bounded(new.get(metric))) for metric in {**old, **new}}
        made[name] = found, number(part(after, name).get("n"))
    return made


def _sound(found: Mapping[str, _T | None]) -> dict[str, _T]:
    return {name: value for name, value in found.items() if value is not None}


def _sweep(path: Path, name: str) -> Sweep:
    notes: list[str] = []
    asked, rows = json_object(path / "sweep.json", notes), mappings(read_lines(path / "results.jsonl"))
    wanted = asked.get("members")
    if isinstance(wanted, list) and len(rows) < len(wanted):
        notes.append(f"{len(rows)} of {len(wanted)} members are trained: `jaxft sweep` with the same recipe goes on.")
    return Sweep(**_folder(path, name, notes), notes=tuple(notes), asked=asked, rows=rows)
