"""The page: runs, sweeps and evaluations poured into the template; and how any page of the project is made."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from jaxft.errors import UsageError
from jaxft.report import helm, sections, tables
from jaxft.report.benchmarks import Benchmarks
from jaxft.report.reading import Found, Run, Sweep, read_all
from jaxft.report.rescoring import Pair, pairs, with_intervals
from jaxft.training.journal import write_text


def write_report(paths: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of runs, sweeps and results of evaluations and return its path.

    `out`: by default report.html in the folder of the only run, or here if there are several. Only a page that this
    wrote is replaced. Raises UsageError for a path that is none of these, before anything is written.
    """
    page = report_page(paths)
    first = Path(paths[0])
    alone = (first if first.is_dir() else first.parent) / "report.html" if len(paths) == 1 else Path("report.html")
    return write_page(page, out or alone, "report")


def report_page(paths: Sequence[str | Path]) -> str:
    """Return the page as HTML."""
    names = _names([Path(path) for path in paths])
    each = [one for path, name in zip(paths, names, strict=True) for one in read_all(path, name)]
    found: list[Found] = list({one.path.resolve(): one for one in each}.values())
    runs = [one for one in found if isinstance(one, Run)]
    compared, problem = pairs(runs) if len(runs) > 1 else ([], "")
    notes: dict[str, list[str]] = {problem: []} if problem else {}
    for one in found:
        for note in one.notes:
            notes.setdefault(note, []).append(one.name)
    # Scoring again takes its second, so only where the summary has no intervals of what it scored.
    runs = [with_intervals(run) if _bare(run) else run for run in runs]
    return _report(found, runs, compared, notes)


def write_page(page: str, path: str | Path, kind: str) -> Path:
    """Write a page that `environment` made; an existing file is replaced only if it is a page of that kind."""
    path = Path(path)
    mark = f"<!doctype html>\n<!-- jaxft {kind} -->"
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(mark.encode())):
        raise UsageError(f"{path}: exists and is something else; choose a new name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: its folder cannot be made ({error.strerror}): choose another") from None
    write_text(path, page.encode("utf-8", "replace").decode())  # half a surrogate pair cannot be written
    return path


def environment(*folders: Path) -> jinja2.Environment:
    """Return what renders the project's pages, from templates here and in `folders`; texts are escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, *folders]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["count"] = lambda number: f"{number:,}"
    made.filters["percent"] = lambda share: f"{share:.1%}"
    made.filters["data"] = _data
    made.filters["command"] = _command
    return made


def _report(found: Sequence[Found], runs: list[Run], compared: Sequence[Pair], notes: Mapping[str, list[str]]) -> str:
    sweeps = [one for one in found if isinstance(one, Sweep)]
    results = [one for one in found if isinstance(one, Benchmarks)]
    seven = [one for one in found if isinstance(one, helm.Helm)]
    made = {name: getattr(tables, name)(runs) if runs else None
            for name in ("facts", "settings", "scores", "probes", "drift", "costs", "tasks", "phrasings")}  # fmt: skip
    drawn = ("score_bars", "curves", "probe_bars", "gain_marks", "cost_bars", "task_bars", "baseline_bars")
    return _template().render(
        title=" · ".join(dict.fromkeys(one.name for one in found)),
        runs=runs,
        notes=notes,
        verdicts=[(run.name, text) for run in runs if (text := sections.verdict(run))],
        **(made | {"settings": tables.settings(runs) if len(runs) > 1 else None}),
        **{name: getattr(sections, name)(runs) for name in drawn},
        prompts=list(
            dict.fromkeys(
                (one.name, one.prompt) for run in runs for one in run.baselines if one.prompt not in ("", one.name)
            )
        ),
        pairs=sections.pair_bars(compared),
        compared=compared,
        browsing=sections.completions(runs),
        sweeps=[(one, tables.members(one), sections.sweep_curves(one)) for one in sweeps],
        results=results,
        benchmarks=tables.benchmarks(results) if results else None,
        benchmark_bars=sections.benchmark_bars(results),
        seven=seven,
        seven_tables=[tables.Table("", *helm.helm_rows(seven, whole)) for whole in (False, True)],
        not_measured=helm.reasons(seven),
        definitions=helm.definitions(seven),
    )


@functools.cache
def _template() -> jinja2.Template:
    return environment().get_template("report.html")


def _data(value: Any) -> Markup:
    # In a script element nothing is escaped, and "</script" would end it wherever it stands.
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))


def _bare(run: Run) -> bool:
    known = [value for one in run.scores.values() for value in (one.before, one.after) if value is not None]
    return bool(known) and all(value.low is None for value in known)


def _command(given: Any) -> str:
    # Where the program lies on a machine says nothing to who reads the page.
    if not isinstance(given, list) or not given:
        return str(given)
    program = Path(str(given[0])).name
    return " ".join(["python -m jaxft" if program == "__main__.py" else program, *map(str, given[1:])])


def _names(paths: Sequence[Path]) -> list[str]:
    whole = [path.resolve() if path.is_dir() else path.resolve().with_suffix("") for path in paths]
    if len(set(whole)) < len(whole):
        raise UsageError("a folder is named twice: name each once")
    # Such a file stands in the folder whose name says what it is.
    whole = [path.parent if path.name in ("results", "helm") and not path.is_dir() else path for path in whole]
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            break
    return names
