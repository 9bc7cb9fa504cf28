"""What was measured of HELM's seven, as a dict and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxft.evaluation.metrics import Score

SEVEN = ("accuracy", "calibration", "robustness", "fairness", "bias", "toxicity", "efficiency")
VERSION = 1
Section = Mapping[str, Score | str]  # a text says why there is no number


@dataclasses.dataclass(frozen=True)
class Report:
    """The seven sections over `n` examples. `metric` is the accuracy that robustness and fairness are about.

    A section is `{name: Score, or a text that says why it is not measured}`; a score's provenance says whether it is
    crfm-helm's definition, or how it differs.
    """

    n: int
    metric: str
    sections: Mapping[str, Section]
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: of each number its value, low, high, n and definition; null and why if not measured."""
        sections = {
            name: {key: _plain(one) for key, one in self.sections[name].items()} for name in SEVEN
        }  # fmt: skip
        return {"version": VERSION, "n": self.n, "metric": self.metric, "seed": self.seed, **sections}


def _plain(one: Score | str) -> dict[str, Any]:
    if isinstance(one, str):
        return {"value": None, "not_measured": one}
    return {**one.to_dict(), "n": one.n, "definition": one.provenance}


def show_report(report: Mapping[str, Any], console: Any) -> None:
    """Print what `Report.to_dict` gave, or a mapping `{"tasks": {name: such}}`, on a rich console."""
    from rich.table import Table

    for task, one in report.get("tasks", {"": report}).items():
        table = Table(title=f"{task}{': ' if task else ''}HELM's seven, {one['n']} examples", title_justify="left")
        for heading in ("", "measure", "value", "95 %", "n"):
            table.add_column(heading, justify="right" if heading in ("value", "95 %", "n") else "left")
        definitions: dict[str, None] = {}
        for section in SEVEN:
            for i, (name, entry) in enumerate(one[section].items()):
                heading = section if not i else ""
                if entry["value"] is None:
                    table.add_row(heading, name, "not measured", "", "")
                    definitions[f"{section} {name}: {entry['not_measured']}"] = None
                else:
                    low, high = (_number(entry[end]) for end in ("low", "high"))
                    between = f"{low} to {high}" if low else ""
                    table.add_row(heading, name, _number(entry["value"]), between, str(entry["n"]))
                    definitions[f"{section}: {entry['definition']}"] = None
            table.add_section()
        console.print(table)
        for text in definitions:
            console.print(text, style="dim", markup=False, highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
