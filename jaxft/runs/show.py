"""Runs as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxft.runs.sizes import Sizes


def show_scores(summary: Mapping[str, Any], console: Console) -> None:
    """Print the scores of a run before and after training, with n, intervals, and whether each change stands."""
    scored = summary["scored_on"]
    title = f"{scored['split']} split, n = {scored['examples']} examples"
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE, pad_edge=False)
    for heading in ("", "before", "after", "change", "p", "stands"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name, after in summary["after"].items():
        before, found = summary["before"].get(name), summary["comparison"].get(name)
        change = () if before is None else (after - before, (found["low"], found["high"]) if found else None)
        table.add_row(
            name,
            *(cell(summary[when].get(name), summary["intervals"][when].get(name)) for when in ("before", "after")),
            cell(*change, sign="+") if change else "",
            "" if found is None else "<0.001" if found["p"] < 0.001 else f"{found['p']:.3f}",
            "" if found is None else ("yes" if found["stands"] else "no"),
        )
    table.caption = "below: 95 % intervals; stands: p < 0.05, adjusted (Holm) over the lines"
    console.print(table)
    if "tasks" in summary:
        console.print(_tasks(summary["tasks"]))
    if "forgetting" in summary:
        from jaxft.runs.show_forgetting import show_forgetting

        show_forgetting(summary["forgetting"], console)
    if "in_context" in summary:
        from jaxft.runs.in_context import in_context_table

        console.print(in_context_table(summary))
    for provenance in dict.fromkeys(summary["provenance"].values()):
        console.print(provenance, style="dim", markup=False, highlight=False)


def cell(value: float | None, interval: Sequence[float] | None = None, sign: str = "", digits: int = 4) -> str:
    """Return a number as a table holds it, its interval below.

    >>> print(cell(0.21254, (0.1987, 0.2291)))
    0.2125
    0.199, 0.229
    """
    if value is None:
        return ""
    below = "" if interval is None else "\n" + ", ".join(f"{end:{sign}.{digits - 1}f}" for end in interval)
    return f"{value:{sign}.{digits}f}{below}"


def _tasks(tasks: Mapping[str, Any], most: int = 30) -> Table:
    scored = [name for name, task in tasks.items() if task["after"]]
    names = list(dict.fromkeys(name for task in tasks.values() for name in task["after"]))[:3]
    table = Table(title="task by task, before > after and the interval of the change", title_justify="left")
    table.caption_justify = "left"
    table.add_column("task", overflow="fold")
    for heading in ("trained on", "n", *names):
        table.add_column(heading, justify="right")
    for task in scored[:most]:
        found = tasks[task]
        cells = [_change(found, name) for name in names]
        table.add_row(Text(task), f"{found['train'].get('examples', 0):,}", f"{found['n']:,}", *cells)
    table.caption = "*: the change stands, p < 0.05 adjusted (Holm) over the tasks"
    if len(tasks) > most or len(tasks) > len(scored):
        table.caption += f"; {len(tasks)} tasks, {len(scored)} of them scored: see summary.json"
    return table


def _change(found: Mapping[str, Any], name: str) -> str:
    text = " > ".join(f"{found[when][name]:.3f}" for when in ("before", "after") if name in found[when])
    change = found["comparison"].get(name)
    return text if change is None else f"{text}\n{change['low']:+.3f}, {change['high']:+.3f}{'*' * change['stands']}"


def show_predictions(rows: Sequence[Mapping[str, Any]], console: Console, count: int = 3) -> None:
    """Print some predictions side by side: before, after, reference."""
    table = Table(show_lines=True)
    for heading in ("before", "after", "reference"):
        table.add_column(heading, ratio=1, overflow="fold")
    for row in rows[:count]:
        table.add_row(Text(row["before"] or ""), Text(row["after"] or ""), Text(row["references"][0]))
    console.print(table)


def show_cost(summary: Mapping[str, Any], console: Console) -> None:
    """Print what a run took."""
    seconds, peak = summary["seconds"], summary["peak_memory_bytes"]
    parts = [f"{name} {seconds[name]:.0f} s" for name in ("load", "before", "train", "after") if name in seconds]
    memory = f"peak memory {show_bytes(peak['host'])}"
    memory += f", device {show_bytes(peak['device'])}" if peak["device"] else ""
    console.print(
        f"{', '.join(parts)} (first step {seconds['first_step']:.0f} s); {summary['tokens_per_second']:,.0f} tokens/s; "
        f"{summary['compilations']['train_step']} shapes compiled; {memory}",
        highlight=False,
    )


def show_sizes(rows: Mapping[str, Sizes], console: Console, title: str) -> None:
    """Print what methods would train and hold in memory."""
    title = f"{title}: numbers trained, and memory for"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("method", min_width=6, overflow="fold")
    for heading in ("trained", "share", "base", "trained", "gradients", "moments", "all"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, size in rows.items():
        held = (size.weight_bytes, size.trainable_bytes, size.gradient_bytes, size.moment_bytes, size.bytes)
        share = f"{size.trainable / size.total:.2%}"
        table.add_row(name, f"{size.trainable:,}", share, *(show_bytes(number) for number in held))
    console.print(table)


def show_bytes(number: float) -> str:
    """Return a number of bytes as tables hold it: three digits or so, and B, kB, MB, GB or TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            digits = 2 if unit == "GB" and number < 10 else 1
            return f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.{digits}f} {unit}"
        number /= 1000
    return f"{number:.2f} TB"
