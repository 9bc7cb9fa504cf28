"""What a run forgot, as a table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxft.runs.show import cell


def show_forgetting(forgetting: Mapping[str, Any], console: Console) -> None:
    """Print each probe before and after with n, intervals and whether its change stands, and the averages."""
    table = Table(title="forgotten? other tasks and plain text, before and after", title_justify="left",
                  caption_justify="left", box=SIMPLE, pad_edge=False)  # fmt: skip
    for heading in ("", "metric", "n", "before", "after", "change", "stands"):
        table.add_column(heading, justify="right" if heading not in ("", "metric") else "left")
    rows = [(name, probe["metric"], probe) for name, probe in forgetting["probes"].items()]
    if "text_loss" in forgetting:
        rows.append(("plain text", "loss", forgetting["text_loss"]))
    for name, metric, probe in rows:
        change = probe["change"]
        ends = (cell(*_interval(probe[when]), digits=3) for when in ("before", "after"))
        changed = cell(*_interval(change), sign="+", digits=3)
        table.add_row(Text(name), metric, str(probe["n"]), *ends, changed, "yes" if change["stands"] else "no")
    table.caption = "below: 95 % intervals; stands: p < 0.05, of the tasks adjusted (Holm)"
    console.print(table)
    console.print(averages(forgetting), highlight=False)


def averages(forgetting: Mapping[str, Any]) -> str:
    """Return backward transfer, average forgetting and the divergence as a line."""
    parts = []
    if "backward_transfer" in forgetting:
        low, high = forgetting["backward_transfer_interval"]
        parts.append(f"mean change of the probes {forgetting['backward_transfer']:+.3f} [{low:+.3f}, {high:+.3f}]")
        parts.append(f"average forgetting {forgetting['average_forgetting']:.3f}")
    if "kl_to_base" in forgetting:
        kl = forgetting["kl_to_base"]
        parts.append(f"KL(base || tuned) {kl['value']:.4f} nats a token (n = {kl['n']} prompts)")
    return "; ".join(parts)


def _interval(score: Mapping[str, Any]) -> tuple[float, tuple[float, float] | None]:
    return score["value"], None if score["low"] is None else (score["low"], score["high"])
