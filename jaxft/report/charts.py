"""Where things stand in the pictures of a page, in per cent of a picture's width and height.

Texts are HTML beside the shapes, so they keep their size on a narrow screen; shapes stretch with the page. Each series
has a colour, a dash pattern and a label: nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxft.report.values import Change, Value

Point = tuple[float, float]
_POINTS = 400  # of a line: as many as a screen tells apart


class Bar(NamedTuple):
    """A row: a bar from `left`, `width` wide, and a whisker from `low` to `high`; `text` is its number in words."""

    label: str
    kind: str
    left: float
    width: float
    low: float | None
    high: float | None
    text: str


class Bars(NamedTuple):
    """Rows on one axis; `zero` is where it begins, or where there is no change."""

    title: str
    rows: list[Bar]
    zero: float


class Line(NamedTuple):
    """A series: an SVG path in a picture of 1000 x 1000, and dots on it."""

    label: str
    kind: str
    path: str
    dots: str


class Plot(NamedTuple):
    """Lines over an axis; ticks are (place, text)."""

    title: str
    about: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_label: str


class Marks(NamedTuple):
    """Numbered marks in a plane; `marks` are (x, y, number, label), `whiskers` the path of their intervals."""

    title: str
    marks: list[tuple[float, float, int, str]]
    whiskers: str
    zero: Point
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_label: str
    y_label: str


def bars(
    title: str,
    rows: Sequence[tuple[str, str, Value]],
    top: float | None = None,
    say: Callable[[Value], str] | None = None,
) -> Bars:
    """Return bars from zero of rows (label, kind, value); `top` is the end of the axis, `say` words a value."""
    numbers = [x for _, _, value in rows for x in value if x is not None]
    place = _scale(min(0.0, *numbers), max(0.0, *numbers) if top is None else top)
    made = []
    for label, kind, value in rows:
        start, end = sorted((place(0.0), place(value.value)))
        low, high = (None if x is None else place(x) for x in (value.low, value.high))
        made.append(Bar(label, kind, start, end - start, low, high, (say or interval)(value)))
    return Bars(title, made, place(0.0))


def changes(title: str, rows: Sequence[tuple[str, Change]]) -> Bars:
    """Return differences and their intervals on an axis with zero inside."""
    numbers = [x for _, change in rows for x in change[:3] if x is not None]
    start, end = min(0.0, *numbers), max(0.0, *numbers)
    margin = 0.04 * ((end - start) or 1.0)
    place = _scale(start - margin, end + margin)
    made = []
    for label, change in rows:
        low, high = (None if x is None else place(x) for x in (change.low, change.high))
        kind = {True: "stands", False: "open", None: "unknown"}[change.stands]
        made.append(Bar(label, kind, place(change.value), 0.0, low, high, difference(change)))
    return Bars(title, made, place(0.0))


def plot(title: str, about: str, series: Sequence[tuple[str, str, Sequence[Point]]], x_label: str) -> Plot | None:
    """Return lines of series (label, kind, points); kinds that begin with "raw" may leave the picture at its top."""
    series = [(label, kind, points) for label, kind, points in series if points]
    if not series:
        return None
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points]
    calm = [y for _, kind, points in series if not kind.startswith("raw") for _, y in points] or ys
    top = max(*calm, float(np.quantile(ys, 0.98)))
    low, high = min(ys), top if top > min(ys) else min(ys) + 1.0
    low -= 0.03 * (high - low)
    across, up = _scale(min(xs), max(xs)), _scale(low, high)
    lines = []
    for label, kind, points in series:
        places = [(10 * across(x), max(0.0, 1000 - 10 * up(y))) for x, y in thinned(points)]
        path = "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in places)
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places) if "dots" in kind or len(places) == 1 else ""
        lines.append(Line(label, kind, path, dots))
    x_ticks = [(across(x), tick(x)) for x in ticks(min(xs), max(xs), 5)]
    y_ticks = [(100 - up(y), tick(y)) for y in ticks(low, high, 5)]
    return Plot(title, about, lines, x_ticks, y_ticks, x_label)


def marks(title: str, points: Sequence[tuple[str, Value, Value]], x_label: str, y_label: str) -> Marks:
    """Return numbered marks of points (label, x, y) and their intervals in a plane that shows its zeros."""
    ranges = []
    for values in ([x for _, x, _ in points], [y for _, _, y in points]):
        numbers = [0.0, *(x for value in values for x in value if x is not None)]
        margin = 0.12 * ((max(numbers) - min(numbers)) or 1.0)
        ranges.append((min(numbers) - margin, max(numbers) + margin))
    across, up = (_scale(*one) for one in ranges)
    made = [(across(x.value), 100 - up(y.value), i, label) for i, (label, x, y) in enumerate(points, 1)]
    whiskers = []
    for _, x, y in points:
        if x.low is not None and x.high is not None:
            whiskers.append(f"M{10 * across(x.low):.0f} {1000 - 10 * up(y.value):.0f}H{10 * across(x.high):.0f}")
        if y.low is not None and y.high is not None:
            whiskers.append(f"M{10 * across(x.value):.0f} {1000 - 10 * up(y.low):.0f}V{1000 - 10 * up(y.high):.0f}")
    x_ticks = [(across(x), tick(x)) for x in ticks(*ranges[0], 4)]
    y_ticks = [(100 - up(y), tick(y)) for y in ticks(*ranges[1], 4)]
    zero = (across(0.0), 100 - up(0.0))
    return Marks(title, made, "".join(whiskers), zero, x_ticks, y_ticks, x_label, y_label)


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Return the exponential moving average over about `share` of the points, without the bias of its start."""
    decay = 1 - 1 / max(share * len(points), 2)
    total = weight = 0.0
    made = []
    for x, y in points:
        total, weight = decay * total + y, decay * weight + 1
        made.append((x, total / weight))
    return made


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return means over neighbours where there are more points than a screen tells apart."""
    size = math.ceil(len(points) / _POINTS)
    chunks = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in chunks]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` round numbers between two."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick(value: float) -> str:
    """Return a number as axes show it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def short(value: float | None) -> str:
    """Return a number as tables show it: four digits after the point below 10, else two."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"


def interval(value: Value | None) -> str:
    """Return a value with its interval."""
    if value is None:
        return "–"
    return short(value.value) + ("" if value.low is None else f" [{short(value.low)}, {short(value.high)}]")


def difference(change: Change | None) -> str:
    """Return a difference with its interval, p and what it says."""
    if change is None:
        return "–"
    sign = "+" if change.value >= 0 else "−"
    bounds = "" if change.low is None else f" [{_signed(change.low)}, {_signed(change.high)}]"
    p = "" if change.p is None else f", p {'< 0.001' if change.p < 0.001 else f'= {change.p:.3f}'}"
    verdict = {True: ": stands", False: ": may be chance", None: ""}[change.stands]
    return f"{sign}{short(abs(change.value))}{bounds}{p}{verdict}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{'+' if value >= 0 else '−'}{short(abs(value))}"


def _scale(low: float, high: float):
    size = (high - low) or 1.0
    return lambda value: min(max(100 * (value - low) / size, 0.0), 100.0)


def finite(points: Iterable[tuple[float | None, float | None]]) -> list[Point]:
    """Return those points that have both numbers."""
    return [(x, y) for x, y in points if x is not None and y is not None]
