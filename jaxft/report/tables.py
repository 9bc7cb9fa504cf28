"""The tables of a page: what was trained, scores, tasks, phrasings, benchmarks, sweeps."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxft.report.benchmarks import Benchmarks
from jaxft.report.charts import difference, interval, short
from jaxft.report.reading import Folder, Run, Sweep
from jaxft.report.rescoring import references, word_f1
from jaxft.report.values import Measure, bounded, change, change_of, mappings, number, part


class Table(NamedTuple):
    """Headings and rows of texts; the first `left` columns are words, the rest numbers."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    left: int = 1
    about: str = ""


def facts(runs: Sequence[Run]) -> Table:
    """Return what was trained, on what, where, a column for each run."""
    columns = [_facts(run) for run in runs]
    return Table("", _headings(runs), _rows(columns), left=99)


def settings(folders: Sequence[Folder]) -> Table | None:
    """Return the recipe's fields in which runs differ."""
    flat = [{key: text for key, text in _flat(one.recipe) if key != "out"} for one in folders]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({one.get(key) for one in flat}) > 1]
    rows = [[key, *(one.get(key, "–") for one in flat)] for key in keys]
    return Table("Settings that differ", _headings(folders), rows, left=99) if rows else None


def scores(runs: Sequence[Run]) -> Table | None:
    """Return every metric: before, after and the change of one run, or the tuned scores of several."""
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    if len(runs) == 1:
        (run,) = runs
        rows = [[name, interval(one.before), interval(one.after), _changed(one)] for name, one in run.scores.items()]
        return Table("", ["metric", "untuned", "tuned", "change"], rows) if rows else None
    rows = [
        [name, *(interval(run.scores[name].after) if name in run.scores else "–" for run in runs)] for name in names
    ]
    return Table("", _headings(runs), rows) if rows else None


def probes(runs: Sequence[Run]) -> Table | None:
    """Return what was measured of forgetting in numbers."""
    if len(runs) == 1:
        (run,) = runs
        rows = [[name, one.about, interval(one.before), interval(one.after), difference(one.change)]
                for name, one in run.probes.items()]  # fmt: skip
        return Table("", ["probe", "metric", "untuned", "tuned", "change"], rows, left=2) if rows else None
    names = list(dict.fromkeys(name for run in runs for name in run.probes))
    rows = [
        [name, *(difference(run.probes[name].change) if name in run.probes else "–" for run in runs)] for name in names
    ]
    return Table("", _headings(runs), rows) if rows else None


def drift(runs: Sequence[Run]) -> Table | None:
    """Return the numbers about forgetting that are no probes."""
    columns = []
    for run in runs:
        kl, text = part(run.forgetting, "kl_to_base"), part(run.forgetting, "text_loss")
        columns.append({
            "average forgetting": _known(run.forgetting.get("average_forgetting")),
            "backward transfer (mean change)": _known(run.forgetting.get("backward_transfer")),
            "KL to the base, nats a token": _bounds(kl),
            "loss on other text, untuned": _bounds(part(text, "before")),
            "loss on other text, tuned": _bounds(part(text, "after")),
            "change of it": difference(change(text.get("change"))) if "change" in text else "",
        })  # fmt: skip
    rows = _rows(columns)
    return Table("", _headings(runs), rows) if rows else None


def costs(runs: Sequence[Run]) -> Table | None:
    """Return what the runs took."""
    columns = []
    for run in runs:
        seconds, memory = part(run.summary, "seconds"), part(run.summary, "peak_memory_bytes")
        sizes, compiled = part(run.summary, "sizes"), part(run.summary, "compilations")
        rate, steps, spent = (number(x) for x in (run.summary.get("tokens_per_second"), run.summary.get("steps"),
                                                  seconds.get("steps")))  # fmt: skip
        columns.append({
            "training": time_text(seconds.get("train")),
            "a step": f"{spent / steps:.3g} s" if spent and steps and not run.summary.get("resumed_from") else "",
            "tokens a second": f"{rate:,.0f}" if rate else "",
            "scoring before and after": time_text(_sum(seconds.get("before"), seconds.get("after"))),
            "peak memory, host": bytes_text(memory.get("host")),
            "peak memory, device": bytes_text(memory.get("device")),
            "base weights": bytes_text(sizes.get("weight_bytes")),
            "trained numbers": bytes_text(sizes.get("trainable_bytes")),
            "gradients": bytes_text(sizes.get("gradient_bytes")),
            "optimizer's moments": bytes_text(sizes.get("moment_bytes")),
            "shapes compiled": str(compiled.get("train_step", "")),
        })  # fmt: skip
    rows = _rows(columns)
    return Table("", _headings(runs), rows) if rows else None


def tasks(runs: Sequence[Run]) -> Table | None:
    """Return the first score of each task: untuned, tuned and change of one run, tuned of several."""
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.tasks):
        found = [run.tasks.get(name) for run in runs]
        metric = next((m for one in found if one for m, measure in one.scores.items() if measure.after), "")
        measures = [one.scores.get(metric) if one else None for one in found]
        trained = next((one.trained for one in found if one and one.trained is not None), 0)
        one = measures[0]
        values = [interval(one and one.before), interval(one and one.after), _changed(one)]
        if len(runs) > 1:
            values = [interval(measure and measure.after) for measure in measures]
        rows.append([name, metric, f"{trained:,.0f}", *values])
    tuned = ["untuned", "tuned", "change"] if len(runs) == 1 else [run.name for run in runs]
    return Table("", ["task", "metric", "examples trained on", *tuned], rows, left=2) if rows else None


def phrasings(runs: Sequence[Run]) -> Table | None:
    """Return the first score of each phrasing of each task, or else words in common with the references."""
    rows = []
    for task in dict.fromkeys(name for run in runs for name in run.tasks):
        tables = [run.tasks[task].phrasings if task in run.tasks else {} for run in runs]
        for name in dict.fromkeys(name for table in tables for name in table):
            found = [table.get(name, ({}, None)) for table in tables]
            metric = next((metric for scores, _ in found for metric in scores), "")
            each = [scores.get(metric) for scores, _ in found]
            n = next((n for _, n in found if n is not None), 0)
            tuned = [interval(one and one.after) for one in each]
            rows.append([task, name, metric, f"{n:,.0f}", interval(each[0] and each[0].before), *tuned])
    tuned = ["tuned"] if len(runs) == 1 else [run.name for run in runs]
    if rows:
        return Table("", ["task", "phrasing", "metric", "n", "untuned", *tuned], rows, left=3)
    rows = _words_by_phrasing(runs)
    about = "Words in common with the closest reference (F-measure, 0 to 1), the mean over n examples."
    return Table("", ["task", "phrasing", "n", "untuned", *tuned], rows, 2, about) if rows else None


def benchmarks(found: Sequence[Benchmarks]) -> Table:
    """Return benchmark scores, a column for each file."""
    keys = dict.fromkeys((task, metric) for one in found for task, metrics in one.tasks.items() for metric in metrics)
    rows = [[task, metric, *(interval(one.tasks.get(task, {}).get(metric)) for one in found)] for task, metric in keys]
    return Table("", ["task", "metric", *(one.name for one in found)], rows, left=2)


def members(one: Sweep) -> Table | None:
    """Return the groups of a sweep, the lowest validation loss first: mean and standard deviation over seeds."""
    from jaxft.sweep.show import groups, spread

    rows = sound_members(one)
    if not rows:
        return None
    keys = list(dict.fromkeys(key for group in groups(rows) for key in group.settings))
    made = []
    for group in sorted(groups(rows), key=lambda group: statistics.fmean(group.losses or [float("inf")])):
        counts = [str(count) for count in (group.members, group.diverged, group.stopped)]
        values = [str(group.settings.get(key, "–")) for key in keys]
        made.append([*values, *counts, spread(group.train_losses), spread(group.losses)])
    heads = ["members", "diverged", "stopped", "train loss", "validation loss"]
    return Table("", [*keys, *heads], made, left=len(keys))


def sound_members(one: Sweep) -> list[dict[str, Any]]:
    """Return the rows of a sweep that have all that its tables need."""
    needed = {"overrides", "finite", "stopped", "validation_loss", "train_loss", "member"}
    return [row for row in one.rows if needed <= row.keys() and isinstance(row["overrides"], Mapping)]


def time_text(seconds: Any) -> str:
    """Return a time as people say it."""
    found = number(seconds)
    if found is None:
        return ""
    if found < 100:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def bytes_text(count: Any) -> str:
    """Return a number of bytes."""
    found = number(count)
    if found is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if found < 1000:
            return f"{found:.3g} {unit}"
        found /= 1000
    return f"{found:,.2f} GB"


def _words_by_phrasing(runs: Sequence[Run]) -> list[list[str]]:
    cells: dict[tuple[str, str], dict[tuple[int, str], list[float]]] = collections.defaultdict(dict)
    for place, run in enumerate(runs):
        for row in run.predictions:
            for when in ("before", "after"):
                if isinstance(row.get("template"), str) and isinstance(row.get(when), str):
                    column = cells[str(row.get("task", "")), row["template"]].setdefault((place, when), [])
                    column.append(word_f1(row[when], references(row)))
    if not any(name for _, name in cells):
        return []
    columns = [(0, "before"), *((place, "after") for place in range(len(runs)))]
    rows = []
    for (task, name), found in sorted(cells.items()):
        means = [short(statistics.fmean(found[column])) if column in found else "–" for column in columns]
        rows.append([task, name, str(max(map(len, found.values()))), *means])
    return rows


def _facts(run: Run) -> dict[str, str]:
    recipe, sizes, session = run.recipe, part(run.summary, "sizes"), (run.sessions or [{}])[-1]
    trained, total = number(sizes.get("trainable")), number(sizes.get("total"))
    method, train, devices = part(recipe, "method"), part(recipe, "train"), part(session, "devices")
    data, optimizer = part(recipe, "data"), part(recipe, "optimizer")
    examples = number(part(run.summary, "data", "train").get("examples"))
    steps, stopped = number(run.summary.get("steps")), part(run.summary, "stopped")
    return {
        "model": str(part(recipe, "model").get("source", "")),
        "method": _described(method),
        "trained": f"{trained:,.0f} of {total:,.0f} numbers ({trained / total:.2%})" if trained and total else "",
        "data": _data(data),
        "training examples": "" if examples is None else f"{examples:,.0f}",
        "steps": "" if steps is None else f"{steps:,.0f} of {train.get('batch_size', '?')} examples",
        "stopped": f"at step {stopped.get('at')}, with the weights of step {stopped.get('kept')}" if stopped else "",
        "optimizer": _described(
            {key: optimizer[key] for key in ("name", "learning_rate", "schedule") if key in optimizer}
        ),
        "seed": str(train.get("seed", "")),
        "scored on": run.scored_on,
        "started, UTC": str(run.sessions[0].get("started", ""))[:16].replace("T", " ") if run.sessions else "",
        "device": f"{devices['count']} x {devices['kind']}" if {"count", "kind"} <= devices.keys() else "",
        "commit": str(session.get("git_commit") or "")[:12],
    }


def _data(data: Mapping[str, Any]) -> str:
    if data.get("source"):
        return str(data["source"])
    found = data.get("tasks")
    named: list[Any] = found if isinstance(found, list) else []
    return ", ".join(str(one.get("task", one.get("name"))) if isinstance(one, Mapping) else str(one) for one in named)


def _described(settings: Mapping[str, Any]) -> str:
    """A name and its settings in a line; members of a union one after another."""
    inner = [_described(one) for one in mappings(settings.get("methods"))]
    plain = {
        key: value
        for key, value in settings.items()
        if isinstance(value, (str, int, float)) and value is not False and key != "name"
    }
    rest = [f"{key.replace('_', ' ')} {value}" for key, value in plain.items()]
    return ", ".join([str(settings.get("name") or ""), *inner, *rest]).strip(", ")


def _flat(tree: Any, name: str = "") -> list[tuple[str, str]]:
    if not isinstance(tree, Mapping):
        return [(name, str(tree))]
    return [pair for key, value in tree.items() for pair in _flat(value, f"{name}.{key}" if name else str(key))]


def _rows(columns: Sequence[Mapping[str, str]]) -> list[list[str]]:
    keys = dict.fromkeys(key for column in columns for key in column)
    return [[key, *(column.get(key) or "–" for column in columns)] for key in keys if any(c.get(key) for c in columns)]


def _headings(folders: Sequence[Folder]) -> list[str]:
    return ["", *(one.name for one in folders)] if len(folders) > 1 else []


def _changed(measure: Measure | None) -> str:
    return difference(None if measure is None else change_of(measure))


def _known(value: Any) -> str:
    return "" if number(value) is None else short(value)


def _bounds(one: Mapping[str, Any]) -> str:
    found = bounded(one)
    return "" if found is None else interval(found)


def _sum(*values: Any) -> float | None:
    found = [number(value) for value in values]
    return sum(x for x in found if x is not None) if any(x is not None for x in found) else None
