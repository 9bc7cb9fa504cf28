"""Results as Markdown and as pictures: of one experiment, and of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verdicts import WORDS, Results


def _ordered(record: Mapping[str, Any]) -> list[str]:
    return [name for name in record["order"] if name in record["arms"]]


def results_table(record: Mapping[str, Any]) -> str:
    """Return an experiment's arms with mean and standard deviation over seeds, and the checks of its claim."""
    found, names = Results.read(record), [record["metric"], *record["shown"]]
    lines = ["| arm | " + " | ".join(names) + " | seeds |", "|---" * (len(names) + 2) + "|"]
    for arm in _ordered(record):
        cells = [_cell(found, arm, name) for name in names]
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {len(record['arms'][arm])} |")
    verdict = record.get("verdict")
    if record["size"] == "smoke":
        lines += ["", "Smoke size: that it runs is all that these numbers show."]
    elif verdict:
        marks = {True: "yes", False: "no", None: "open"}
        lines += ["", f"The claim {'is ' if verdict['stood'] is None else ''}{verdict['word']}: {record['claim']}", ""]
        lines += [f"- {marks[check['stands']]}: {check['text']}" for check in verdict["checks"]]
    return "\n".join(lines)


def _cell(found: Results, arm: str, name: str) -> str:
    over = found.over(arm, name)
    if over is None:
        return "-"
    number = f"{over.mean:,.0f}" if abs(over.mean) >= 1000 else f"{over.mean:.4g}"
    spread = over.sd and over.sd > 1e-9 * abs(over.mean)  # below, it is rounding
    return f"{number} ± {over.sd:.2g}" if spread else number


def finished(*folders: Path) -> list[dict[str, Any]]:
    """Return the results files of finished experiments and their pictures' names, smoke aside; later folders win."""
    records: dict[tuple, dict[str, Any]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*/*.json")):
            record = json.loads(path.read_text())
            if isinstance(record, dict) and record.get("verdict") and record.get("size") != "smoke":
                named = {**record, "picture": path.with_suffix(".png").name}
                records[record["experiment"], record["size"], tuple(record["models"])] = named
    return [records[key] for key in sorted(records)]


def summary_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the claims tested as one Markdown table."""
    lines = ["| experiment | claim | expected | ours | stood? | model, size, seeds | where |", "|---" * 7 + "|"]
    before = [None, *(record["experiment"] for record in records)]
    rows = (_summary_row(record, record["experiment"] == last) for last, record in zip(before, records, strict=False))
    return "\n".join([*lines, *rows])


def _summary_row(record: Mapping[str, Any], again: bool) -> str:
    found, name = Results.read(record), record["metric"]
    arms = _ordered(record)
    ours = "; ".join(f"{arm} {_cell(found, arm, name)}" for arm in arms) if len(arms) <= 12 else "see below"
    models = ", ".join(Path(model).name if "/" in model else model for model in record["models"])
    commits = {run.get("commit", record["commit"]): 0 for runs in record["arms"].values() for run in runs.values()}
    where = f"`{record['command']}`, {', '.join(commits)}, {record['hardware']}, {record['seconds'] / 60:.0f} min"
    counts = sorted({len(runs) for runs in record["arms"].values() if runs})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    said = ["as above"] * 2 if again else [record["claim"], record["expected"]]
    cells = [record["experiment"], *said, f"{name}: {ours}",
             WORDS[record["verdict"]["stood"]], f"{models}, {record['size']}, {seeds}", where]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def paragraphs(records: Sequence[Mapping[str, Any]], pictures: Path) -> str:
    """Return a paragraph on each experiment: its table, what its verdict rests on, and its picture if it was kept."""
    parts = []
    for record in records:
        picture = pictures / record["picture"]
        shown = f"\n\n![{record['experiment']}]({pictures.name}/{picture.name})" if picture.exists() else ""
        parts.append(f"### `{record['experiment']}.py`{_model(record)}\n\n{results_table(record)}{shown}")
    return "\n\n".join(parts)


def _model(record: Mapping[str, Any]) -> str:
    return "" if record["models"] == ["jaxft:t5-tiny"] else f", {', '.join(record['models'])}"


def rewritten(page: str, section: str) -> str:
    """Return a page with what stands between its two `claims` marks replaced."""
    begin, end = "<!-- claims -->", "<!-- /claims -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{section}\n{end}{rest.partition(end)[2]}"


def picture(experiment: Any, record: Mapping[str, Any], path: Path) -> None:
    """Draw a panel for each metric: arms with their deviation over seeds, lines where they lie on a scale or bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found, names = Results.read(record), [record["metric"], *experiment.beside]
    if not any(found.over(arm) for arm in _ordered(record)):
        return
    figure, panels = plt.subplots(
        1, len(names), figsize=(2.5 + 3.5 * len(names), 3.4), layout="constrained", squeeze=False
    )
    for place, (axes, name) in enumerate(zip(panels[0], names, strict=True)):
        spread = {arm: over for arm in _ordered(record) if (over := found.over(arm, name)) is not None}
        if experiment.curve:
            _lines(axes, {arm: _place(experiment.curve(arm), found, arm) for arm in spread}, spread)
            axes.set(xlabel=experiment.along, ylabel=name)
        else:
            _bars(axes, [arm for arm in _ordered(record) if found.over(arm)], spread, labelled=place == 0)
            axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    word = "" if record["size"] == "smoke" else f": {WORDS[record['verdict']['stood']]}"
    figure.suptitle(f"{record['experiment']}{_model(record)}, {record['size']}{word}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes, arms, spread, labelled):
    means = [spread[arm].mean if arm in spread else float("nan") for arm in arms]
    errors = [spread[arm].sd or 0.0 if arm in spread else 0.0 for arm in arms]
    axes.barh(arms[::-1], means[::-1], xerr=errors[::-1], color="tab:blue", height=0.6, error_kw={"capsize": 3})
    axes.tick_params(labelleft=labelled)
    there = [mean for mean in means if mean == mean]
    if min(there, default=0) > 0 and max(there) / min(there) >= 300:
        axes.set_xscale("log")


def _place(place, found, arm):
    return (place[0], found.mean(arm, place[1])) if place and isinstance(place[1], str) else place


def _lines(axes, places, spread):
    series: dict[str, list] = {}
    levels = {arm: spread[arm].mean for arm, place in places.items() if place is None}
    for arm, place in places.items():
        if place is None:
            axes.axhline(levels[arm], color="grey", linestyle=":", linewidth=1)
        else:
            series.setdefault(place[0], []).append((place[1], spread[arm].mean, spread[arm].sd or 0.0))
    for name, points in series.items():
        axes.errorbar(*zip(*sorted(points), strict=True), marker="o", capsize=3, label=name)
    bottom, top = axes.get_ylim()
    for arm, level in levels.items():
        under = any(0 < other - level < 0.06 * (top - bottom) for other in levels.values())
        axes.annotate(arm, (0.99, level), xycoords=("axes fraction", "data"), ha="right",
                      va="top" if under else "bottom", fontsize=8, color="grey")  # fmt: skip
    along = sorted({x for points in series.values() for x, _, _ in points})
    if along and min(along) > 0 and max(along) / min(along) >= 8:
        axes.set_xscale("log")
        if len(along) <= 8:  # more would stand in each other's way
            axes.set_xticks(along, [f"{x:g}" for x in along], fontsize=8)
            axes.minorticks_off()
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
