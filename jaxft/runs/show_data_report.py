"""A data report as tables and bars of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxft.data.statistics import Lengths, Statistics
from jaxft.runs.data_report import NEAR, DataReport, Padding, Shown

_BAR, _TEXT = 16, 1500


def show_data_report(found: DataReport, console: Console) -> None:
    """Print what the data is: splits, mixture, lengths, templates, labels, repetitions, padding, examples."""
    _show_splits(found, console)
    for line in found.refused:
        console.print(f"a run refuses {line}", style="red", markup=False, highlight=False)
    _show_mixture(found, console)
    _show_lengths(found.lengths, console)
    for heading, counts in (("templates", _templates(found)), ("labels", _labels(found))):
        _show_counts(heading, counts, console)
    _show_lines("repeated rows", _duplicate_lines(found), console)
    _show_lines("13 words in a row that training rows have too", _contamination_lines(found), console)
    _show_lines("padding in the first epoch", list(padding_lines(found)), console)
    for shown in found.examples:
        _show_example(shown, console)


def padding_lines(found: DataReport) -> Iterator[str]:
    """Yield a line for the recipe's way to batch, and one for the other."""
    ways = {"packing": "packed rows", "buckets": "length buckets"}
    for name in ways if found.packed else reversed(ways):
        one: Padding = found.padding[name]
        shapes = ", ".join(" + ".join(map(str, shape)) for shape in one.shapes)
        other = "" if (name == "packing") == found.packed else f" (data.packing={str(name == 'packing').lower()})"
        yield f"{one.share:.1%} with {ways[name]} of {shapes} tokens: {one.steps:,} steps{other}"


def facts(one: Statistics) -> str:
    """Return what is unusual in a task's texts, in a few words."""
    found = [f"{one.distinct_completions:.0%} distinct completions"]
    if one.characters is not None:
        found.append(f"{one.characters.outside_latin:.1%} of letters outside Latin")
        found.append(f"{one.characters.digits:.1%} digits")
    if one.repeated_lines is not None:
        found.append(f"{one.repeated_lines:.1%} repeated lines")
    return ", ".join(found)


def _show_splits(found: DataReport, console: Console) -> None:
    table = _table("data", "split", "rows", "examples", "bad", "left out", "cut", "prompt", "max", "compl.", "max")
    for split, report in found.splits.items():
        cut = report.truncated_prompts + report.truncated_completions
        lengths = (f"{report.mean_prompt:.0f}", report.max_prompt, f"{report.mean_completion:.0f}")
        counts = (report.rows, report.examples, report.bad_rows, report.skipped, cut, *lengths, report.max_completion)
        table.add_row(split, *(f"{count:,}" if isinstance(count, int) else count for count in counts))
    console.print(table)
    for line in found.notes:
        console.print(line, style="dim", markup=False, highlight=False)


def _show_mixture(found: DataReport, console: Console) -> None:
    table = _table("training tasks in the first epoch", "task", "has", "drawn", "examples", "targets", "prompt", "95 %")
    for share in found.shares:
        prompt = found.statistics[share.task].prompt
        shares = (f"{share.examples:.1%}", f"{share.target_tokens:.1%}")
        lengths = (f"{prompt.mean:.0f}", f"{prompt.percentile_95:.0f}")
        table.add_row(Text(share.task or "all"), f"{share.available:,}", f"{share.drawn:,}", *shares, *lengths)
    console.print(table)
    if len(found.statistics) == 1:
        console.print(facts(next(iter(found.statistics.values()))), style="dim", markup=False, highlight=False)


def _show_lengths(both: Mapping[str, Lengths], console: Console) -> None:
    grid = Table.grid(padding=(0, 3))
    tables = []
    for name, lengths in both.items():
        title = f"tokens of the {name}"
        table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, show_header=False)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(min_width=_BAR, no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for label, count, bar in bars(lengths):
            table.add_row(label, bar, f"{count:,}")
        tables.append(table)
    grid.add_row(*tables)
    console.print(grid)


def bars(lengths: Lengths) -> list[tuple[str, int, str]]:
    """Return the rows of a histogram: range, count, and a bar of at most 16 characters."""
    most = max(max(lengths.counts), 1)
    ranges = zip(lengths.edges[:-1], lengths.edges[1:], lengths.counts, strict=True)
    return [(f"{low:,}–{high - 1:,}", count, _bar(count / most)) for low, high, count in ranges]


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    # What is there is seen, however little it is.
    eighths = max(eighths, 1) if share > 0 else 0
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")


def _templates(found: DataReport) -> dict[str, dict[str, int]]:
    return {task: dict(one.templates) for task, one in found.statistics.items() if set(one.templates) != {""}}


def _labels(found: DataReport) -> dict[str, dict[str, int]]:
    return {task: dict(one.labels) for task, one in found.statistics.items() if one.labels}


def _show_counts(heading: str, counts: dict[str, dict[str, int]], console: Console) -> None:
    if not counts:
        return
    table = Table(title=heading, title_justify="left", box=SIMPLE, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, max_width=30)
    table.add_column(overflow="fold")
    for task, own in counts.items():
        table.add_row(Text(task or "all"), Text(", ".join(f"{name} {count:,}" for name, count in own.items())))
    console.print(table)


def _duplicate_lines(found: DataReport) -> list[str]:
    lines = []
    for split, one in found.duplicates.items():
        of = "within train" if split == "train" else f"in {split}, of train rows"
        lines.append(f"{of}: {one.report.exact:,} exact, {one.report.near:,} nearly (Jaccard of 5-grams from {NEAR})")
        lines += [f"   {dropped} repeats {kept} ({similarity:.0%})" for dropped, kept, similarity in one.first]
    return lines


def _contamination_lines(found: DataReport) -> list[str]:
    lines = []
    none = [one.found for one in found.contamination.values() if not one.found.contaminated]
    if none:
        lines.append(f"none in {sum(one.tested for one in none):,} rows of {len(none)} evaluation sets")
    some = {name: one for name, one in found.contamination.items() if one.found.contaminated}
    for (split, task), one in some.items():
        counts = f"{one.found.contaminated:,} of {one.found.tested:,} rows that are long enough ({one.found.share:.1%})"
        lines.append(f"{f'{task} {split}'.strip()}: {counts}")
        lines += [
            f"   {name} and {training}: {words!r}"
            for name, training, words in one.first[: 1 if len(some) > 4 else None]
        ]
    return lines


def _show_lines(heading: str, lines: Sequence[str], console: Console) -> None:
    if lines:
        console.print(heading, style="italic")
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False)
        console.print()


def _show_example(shown: Shown, console: Console) -> None:
    console.print(shown.title, style="italic", markup=False, highlight=False)
    text = Text()
    for piece, learnt in shown.pieces:
        text.append(piece, style="green" if learnt else "dim")
    console.print(text)
    console.print()


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, collapse_padding=True)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    return table
