"""A data report as one HTML page that needs nothing beside itself: no network, no script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from jaxft.data.statistics import Lengths
from jaxft.report.page import environment, write_page
from jaxft.runs.data_report import NEAR, DataReport
from jaxft.runs.show_data_report import facts, padding_lines


class Bar(NamedTuple):
    """A bar of a histogram in a picture of 100 by 40 units: where it stands, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    title: str


def write_data_page(found: DataReport, path: str | Path, title: str) -> Path:
    """Write the report as a page and return its path; only a page that this wrote is replaced."""
    return write_page(data_page(found, title), path, "data")


def data_page(found: DataReport, title: str) -> str:
    """Return the report as HTML."""
    return _template().render(
        title=title,
        found=found,
        near=NEAR,
        bars={name: bars(lengths) for name, lengths in found.lengths.items()},
        facts={task: facts(one) for task, one in found.statistics.items()},
        padding=list(padding_lines(found)),
        cut={split: one.truncated_prompts + one.truncated_completions for split, one in found.splits.items()},
    )


def bars(lengths: Lengths) -> Sequence[Bar]:
    """Return the bars of a histogram."""
    width, most = 100 / len(lengths.counts), max(max(lengths.counts), 1)
    made = []
    for i, count in enumerate(lengths.counts):
        # What is there is seen, however little it is.
        height = max(40 * count / most, 0.6) if count else 0.0
        title = f"{lengths.edges[i]:,}–{lengths.edges[i + 1] - 1:,} tokens: {count:,}"
        made.append(Bar(i * width + 0.4, 40 - height, width - 0.8, height, title))
    return made


@functools.cache
def _template() -> jinja2.Template:
    return environment(Path(__file__).parent).get_template("data_page.html")
