"""The pictures and the completions of a page, from runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxft.report.benchmarks import Benchmarks
from jaxft.report.charts import Bars, Marks, Plot, bars, changes, difference, finite, interval, marks, plot, smoothed
from jaxft.report.reading import Run, Sweep
from jaxft.report.rescoring import Pair, references, word_f1
from jaxft.report.tables import bytes_text, sound_members, time_text
from jaxft.report.values import Change, Value, change_of, number, part, valued

_PHASES = ("load", "encode", "before", "compile", "steps", "evaluate", "checkpoint", "after", "probes", "in_context")
_HELD = {"weight_bytes": "base weights", "trainable_bytes": "trained numbers", "gradient_bytes": "gradients",
         "moment_bytes": "optimizer's moments"}  # fmt: skip
PICTURED_TASKS = 40
PICTURED = 6  # metrics with bars; the table has all
_ROWS, _PROMPT, _TEXT = 2000, 1500, 1200  # examples to browse, and characters of each


def verdict(run: Run) -> str:
    """Return in a sentence what a run brought in its first metric."""
    name, one = next(((name, one) for name, one in run.scores.items() if one.after is not None), ("", None))
    if one is None:
        return ""
    if one.before is None:
        return f"{name} of the tuned model: {interval(one.after)}."
    return f"{name}: {interval(one.before)} untuned, {interval(one.after)} tuned; change {difference(change_of(one))}."


def score_bars(runs: Sequence[Run]) -> list[Bars]:
    """Return bars for the first metrics: untuned, with examples in the prompt, tuned; shares on one axis."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.scores) if name != "loss"][:PICTURED]
    rows = {name: _score_rows(runs, name) for name in names}
    ends = [x for found in rows.values() for _, _, value in found for x in value if x is not None and 0 <= x <= 1]
    top = math.ceil(10 * max(ends, default=1.0) + 1e-9) / 10
    return [
        bars(name, found, top if all(-1 <= x <= 1 for _, _, value in found for x in value if x is not None) else None)
        for name, found in rows.items()
        if found
    ]


def pair_bars(found: Sequence[Pair]) -> list[Bars]:
    """Return differences between runs, metric by metric."""
    metrics = dict.fromkeys(pair.metric for pair in found)
    return [changes(name, [(f"{one.second} less {one.first}", one.change) for one in found if one.metric == name])
            for name in metrics]  # fmt: skip


def baseline_bars(runs: Sequence[Run]) -> list[Bars]:
    """Return what tuning adds, in each run's first metric, to the untuned model asked in other ways."""
    groups: dict[str, list[tuple[str, Change]]] = {}
    for run in runs:
        for one in run.baselines:
            metric = next(iter(one.changes), "")
            if metric:
                said = f"{'tuned' if len(runs) == 1 else run.name} less {one.name}{_on(one.n)}"
                groups.setdefault(metric, []).append((said, one.changes[metric]))
    return [changes(metric, rows) for metric, rows in groups.items()]


def curves(runs: Sequence[Run]) -> list[Plot]:
    """Return the losses over steps: training as it was and smoothed, validation; of several runs in pictures apart."""
    training = [_points(run, "loss", "grad_norm") for run in runs]
    validation = [_points(run, "validation_loss") for run in runs]
    about = _ends(runs, validation)
    made: list[Plot | None] = []
    if len(runs) == 1:
        series = [
            ("training, each step", "raw", training[0]),
            ("training, smoothed", "c0", smoothed(training[0])),
            ("validation", "c1 dots", validation[0]),
        ]
        made.append(plot("Loss per target token", about, series, "step"))
    else:
        names = [(run.name, kind(i)) for i, run in enumerate(runs)]
        smooth = [(*one, smoothed(points)) for one, points in zip(names, training, strict=True)]
        valid = [(name, f"{look} dots", points) for (name, look), points in zip(names, validation, strict=True)]
        made.append(plot("Training loss per target token, smoothed", _ends(runs, training), smooth, "step"))
        made.append(plot("Validation loss per target token", about, valid, "step"))
    made.append(_probe_curves(runs))
    drift = [("tuned" if len(runs) == 1 else run.name, f"{kind(i)} dots", _points(run, "probe_kl_to_base"))
             for i, run in enumerate(runs)]  # fmt: skip
    made.append(plot("KL to the base, nats a token", "", drift, "step"))
    return [one for one in made if one is not None]


def probe_bars(runs: Sequence[Run]) -> list[Bars]:
    """Return the changes of the probes: one picture for each unit of one run, for each probe of several."""
    groups: dict[str, list[tuple[str, Change]]] = {}
    for run in runs:
        for name, one in run.probes.items():
            change = change_of(one)
            if change is not None:
                title = (one.about.split(",")[0] or "probes") if len(runs) == 1 else name
                groups.setdefault(title, []).append((name if len(runs) == 1 else run.name, change))
    return [changes(title, rows) for title, rows in groups.items()]


def task_bars(runs: Sequence[Run]) -> list[Bars]:
    """Return the change of each task's first metric, metric by metric, of one run with tasks that fit a page."""
    groups: dict[str, list[tuple[str, Change]]] = {}
    for name, task in runs[0].tasks.items() if len(runs) == 1 else ():
        metric, change = next(((metric, change_of(one)) for metric, one in task.scores.items()), ("", None))
        if change is not None:
            groups.setdefault(metric, []).append((name, change))
    return [changes(metric, rows) for metric, rows in groups.items() if 1 < len(rows) <= PICTURED_TASKS]


def gain_marks(runs: Sequence[Run]) -> Marks | None:
    """Return the runs in the plane of gain (first metric) and forgetting, if two or more have both."""
    metric = next((name for run in runs for name in run.scores), "")
    points = []
    for run in runs:
        bounds = run.forgetting.get("backward_transfer_interval")
        moved = valued(run.forgetting.get("backward_transfer"), bounds)
        gain = change_of(run.scores[metric]) if metric in run.scores else None
        if moved is not None and gain is not None:
            points.append((run.name, moved, Value(gain.value, gain.low, gain.high)))
    title = "Gain against forgetting"
    return marks(title, points, "mean change of the probes", f"gain in {metric}") if len(points) > 1 else None


def cost_bars(runs: Sequence[Run]) -> list[Bars]:
    """Return where time and memory of one run went, or both of several runs."""
    seconds = [part(run.summary, "seconds") for run in runs]
    peaks = [part(run.summary, "peak_memory_bytes") for run in runs]
    if len(runs) == 1:
        sizes, phases = part(runs[0].summary, "sizes"), _PHASES
        memory = {"peak, device": peaks[0].get("device"), "peak, host": peaks[0].get("host")}
        memory |= {said: sizes.get(key) for key, said in _HELD.items()}
        pictures = [
            ("Time", {name: seconds[0].get(name) for name in phases}, time_text),
            ("Memory", memory, bytes_text),
        ]
    else:
        names = [run.name for run in runs]
        times = dict(zip(names, [one.get("train") for one in seconds], strict=True))
        memory = dict(zip(names, [one.get("device") or one.get("host") for one in peaks], strict=True))
        pictures = [("Time to train", times, time_text), ("Peak memory", memory, bytes_text)]
    made = []
    for title, values, say in pictures:
        rows = [(name, "c0", Value(found)) for name, value in values.items() if (found := number(value))]
        if rows:
            made.append(bars(title, rows, say=_saying(say)))
    return made


def benchmark_bars(found: Sequence[Benchmarks]) -> list[Bars]:
    """Return the first metric of each group and of each task that is in none, a bar for each file."""
    made = []
    inner = frozenset().union(*(one.members for one in found))
    for task in dict.fromkeys(task for one in found for task in one.tasks if task not in inner):
        metric = next((name for one in found for name in one.tasks.get(task, {})), "")
        rows = [(one.name, kind(i), one.tasks[task][metric]) for i, one in enumerate(found)
                if metric in one.tasks.get(task, {})]  # fmt: skip
        if rows:
            share = all(0 <= value.value <= 1 for _, _, value in rows)
            made.append(bars(f"{task}: {metric}", rows, 1.0 if share else None))
    return made[:PICTURED_TASKS]


def sweep_curves(one: Sweep) -> Plot | None:
    """Return the validation loss of the best members (at most eight) over steps."""
    sound = [row for row in sound_members(one) if number(row["validation_loss"]) is not None]
    best = sorted(sound, key=lambda row: row["validation_loss"])[:8]
    series = []
    for i, row in enumerate(best):
        name = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in row["overrides"].items()) or "member"
        pairs = [pair for pair in row.get("evaluations") or [] if isinstance(pair, list) and len(pair) == 2]
        series.append((name, f"{kind(i)} dots", finite((number(x), number(y)) for x, y in pairs)))
    return plot("Validation loss of the best members", "", series, "step")


def completions(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the page's script browses: columns, and examples with their texts and words in common.

    A text that is long is cut in its middle; of more than 2,000 examples the first ones are taken.
    """
    several = len(runs) > 1
    names = ["untuned", *(run.name if several else "tuned" for run in runs)]
    tables = [{row["id"]: row for row in run.predictions} for run in runs]
    ids = list(dict.fromkeys(name for table in tables for name in table))
    made = []
    for name in ids[:_ROWS]:
        rows = [table.get(name, {}) for table in tables]
        first = next(row for row in rows if row)
        texts = [next((row["before"] for row in rows if isinstance(row.get("before"), str)), None)]
        texts += [row.get("after") if isinstance(row.get("after"), str) else None for row in rows]
        wanted = references(first)
        made.append({
            "id": name,
            "task": str(first.get("task", "")),
            "template": str(first.get("template", "")),
            "prompt": _cut(str(first.get("prompt", "")), _PROMPT),
            "references": [_cut(text, _TEXT) for text in wanted[:5]],
            "texts": [None if text is None else _cut(text, _TEXT) for text in texts],
            "scores": [None if text is None else round(word_f1(text, wanted), 3) for text in texts],
        })  # fmt: skip
    kept = [i for i in range(len(names)) if any(one["texts"][i] is not None for one in made)]
    for one in made:
        one["texts"], one["scores"] = ([one[key][i] for i in kept] for key in ("texts", "scores"))
    return {"columns": [names[i] for i in kept], "rows": made, "of": len(ids)}


def kind(i: int) -> str:
    """Return the class of the i-th series: a colour and a dash pattern."""
    return f"c{i % 8}"


def _score_rows(runs: Sequence[Run], name: str) -> list[tuple[str, str, Value]]:
    rows: list[tuple[str, str, Value]] = []
    before = {run.name: run.scores[name].before for run in runs if name in run.scores}
    known = [(run, value) for run, value in before.items() if value is not None]
    if len({value.value for _, value in known}) == 1:
        rows.append(("untuned", "before", known[0][1]))
    else:
        rows += [(f"{run}, untuned", "before", value) for run, value in known]
    seen = set()
    for run in runs:
        for one in run.baselines:
            if name in one.scores and (one.name, one.scores[name]) not in seen:
                seen.add((one.name, one.scores[name]))
                said = one.name if one.n == run.summary.get("n") else one.name + _on(one.n)
                rows.append((said, "prompted", one.scores[name]))
    for i, run in enumerate(runs):
        after = run.scores[name].after if name in run.scores else None
        if after is not None:
            rows.append(("tuned" if len(runs) == 1 else run.name, kind(i), after))
    return rows


def _saying(say: Callable[[float], str]) -> Callable[[Value], str]:
    return lambda value: say(value.value)


def _on(n: int | None) -> str:
    return "" if n is None else f" ({n} examples)"


def _probe_curves(runs: Sequence[Run]) -> Plot | None:
    series: list[tuple[str, str, list[tuple[float, float]]]] = []
    for run in runs:
        names = dict.fromkeys(name for row in run.rows for name in part(row, "probes"))
        for name in names:
            points = finite((number(row["step"]), number(part(row, "probes").get(name))) for row in run.rows)
            label = name if len(runs) == 1 else f"{run.name}: {name}"
            series.append((label, f"{kind(len(series))} dots", points))
    return plot("Probes while training", "", series[:8], "step")


def _points(run: Run, key: str, needs: str = "step") -> list[tuple[float, float]]:
    return finite((number(row["step"]), number(row.get(key))) for row in run.rows if needs in row)


def _ends(runs: Sequence[Run], found: Sequence[Sequence[tuple[float, float]]]) -> str:
    said = []
    for run, points in zip(runs, found, strict=True):
        if points:
            (first, at_first), (last, at_last) = points[0], points[-1]
            said.append(f"{run.name}: {at_first:.3f} at step {first:.0f}, {at_last:.3f} at step {last:.0f}")
    return "; ".join(said)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} […] {text[-most // 2 :]}"
