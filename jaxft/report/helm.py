"""helm.json of `jaxft evaluate --helm`: HELM's seven metrics of a model, and their table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.report.charts import difference, interval
from jaxft.report.values import Change, Value, bounded, json_object, number, part

FILE, VERSION = "helm.json", 1
SEVEN = ("accuracy", "calibration", "robustness", "fairness", "bias", "toxicity", "efficiency")
Key = tuple[str, str, str]  # task ("" where there is one alone), metric, measure


class Entry(NamedTuple):
    """A measure: its value over n, or why there is none; `definition` says how it was made."""

    value: Value | None
    n: float | None
    why: str
    definition: str


@dataclasses.dataclass(frozen=True)
class Helm:
    """HELM's seven of a model; a task's first accuracy is the one that robustness and fairness are about."""

    name: str
    path: Path
    entries: dict[Key, Entry]
    facts: dict[str, str]
    notes: tuple[str, ...]


def is_helm(path: Path) -> bool:
    """Whether a file is, by its name or by what it holds, what `jaxft evaluate --helm` gave."""
    found = json_object(path, [])
    return path.name == FILE or ("results" not in found and not {"tasks", *SEVEN}.isdisjoint(found))


def read_helm(path: Path, name: str) -> Helm:
    """Return what a helm.json holds; a metric that it lacks becomes an entry that says so."""
    notes: list[str] = []
    found = json_object(path, notes)
    parts = {task: part(one) for task, one in (part(found, "tasks") or {"": found}).items()}
    versions = {str(one.get("version", VERSION)) for one in (found, *parts.values())} - {str(VERSION)}
    notes += [f"{path.name} is of version {version}, this page shows version {VERSION}: what only one of them has is "
              "not shown." for version in sorted(versions)]  # fmt: skip
    entries = {(task, metric, measure): entry for task, one in parts.items() for metric in SEVEN
               for measure, entry in _entries(one, metric, path.name).items()}  # fmt: skip
    facts = {key: str(found[key]) for key in ("model", "adapter", "split", "seed") if found.get(key) is not None}
    return Helm(name, path, entries, facts, tuple(notes))


def helm_rows(found: Sequence[Helm], whole: bool = False) -> tuple[list[str], list[list[str]], int]:
    """Return headings, rows (of each metric what is first measured, or all if `whole`), how many columns are words."""
    keys = dict.fromkeys(key for one in found for key in one.entries)
    rows = []
    for task, metric in dict.fromkeys((task, metric) for task, _, _ in keys for metric in SEVEN):
        named = [key for key in keys if key[:2] == (task, metric) and key[2] != "all"] or [(task, metric, "all")]
        measured = [key for key in named if any(key in one.entries and one.entries[key].value for one in found)]
        for key in named if whole else (measured or named)[:1]:
            each = [_entry(one, key) for one in found]
            n = dict.fromkeys(f"{entry.n:,.0f}" for entry in each if entry and entry.n is not None)
            label = "–" if key[2] == "all" else key[2] + ", seconds" * key[2].startswith("latency")
            rows.append([task, metric, label, " / ".join(n) or "–", *(_cell(one, key) for one in found)])
    start = 0 if any(row[0] for row in rows) else 1
    headings = "task", "metric", "measure", "n", *(one.name for one in found)
    return list(headings[start:]), [row[start:] for row in rows], 3 - start


def reasons(found: Sequence[Helm]) -> dict[str, dict[str, list[str]]]:
    """Return each reason why something was not measured, and what that was in which files."""
    said: dict[str, dict[str, list[str]]] = {}
    for name, metric, measure, entry in _all(found):
        if entry.value is None:
            said.setdefault(entry.why, {}).setdefault(f"{metric} {measure}".removesuffix(" all"), []).append(name)
    return said


def definitions(found: Sequence[Helm]) -> list[str]:
    """Return how the metrics were computed."""
    return list(dict.fromkeys(f"{metric}: {one.definition}" for _, metric, _, one in _all(found) if one.definition))


def _all(found: Sequence[Helm]) -> list[tuple[str, str, str, Entry]]:
    return [(one.name, *key[1:], entry) for one in found for key, entry in one.entries.items()]


def _entries(one: Mapping[str, Any], metric: str, file: str) -> dict[str, Entry]:
    found = {measure: Entry(bounded(each), number(part(each).get("n")), str(part(each).get("not_measured") or ""),
                            str(part(each).get("definition") or ""))
             for measure, each in part(one, metric).items()}  # fmt: skip
    made = {measure: entry for measure, entry in found.items() if entry.value is not None or entry.why}
    made = dict(sorted(made.items(), key=lambda item: item[0] != one.get("metric")))  # that one first
    return made or {"all": Entry(None, None, f"{file} has nothing of it", "")}


def _entry(one: Helm, key: Key) -> Entry | None:
    # Where a perturbation, or all of a metric, could not be measured, one entry says so.
    known = (one.entries.get((*key[:2], name)) for name in (key[2], key[2].partition("/")[0], "all"))
    return next((entry for entry in known if entry), None)


def _cell(one: Helm, key: Key) -> str:
    entry, (task, metric, measure) = _entry(one, key), key
    if entry is None or entry.value is None:
        return "–" if entry is None else "not measured"
    if measure.startswith("peak_memory_bytes"):
        return f"{entry.value.value:,.0f}"
    first = next(known for known in one.entries if known[:2] == (task, "accuracy"))
    own = (task, metric, measure.partition("/")[0] + "/before")
    before = one.entries.get(own if "/" in measure else first)
    if metric not in ("robustness", "fairness") or key == own or before is None or before.value is None:
        return interval(entry.value)
    moved = Change(round(entry.value.value - before.value.value, 6))  # the last digits of two means are noise
    return f"{difference(moved)} ({interval(entry.value)})"
