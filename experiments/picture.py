"""Draw the picture of the front page: what tuning SmolLM2 on DialogSum brought, method by method.

Data        predictions of `dialogsum_lora.py` in JAXFT_RUNS/dialogsum, scored again for their intervals
Command     python experiments/picture.py        writes experiments/dialogsum.svg, for light and dark pages alike
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.evaluation.metrics import Score, score
from jaxft.report.page import environment
from jaxft.report.reading import Run, read
from jaxft.report.values import number, part
from jaxft.training.journal import read_lines, write_text

RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "dialogsum"
OUT = Path(__file__).with_name("dialogsum.svg")
METRIC, TOP = "rouge1", 0.5
LEFT, WIDTH, ROW = 200, 360, 52  # where bars begin, how long the axis is, and the height of a row

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -8 752 {{ height + 16 }}" role="img"
 aria-labelledby="t d">
<title id="t">{{ title }}</title>
<desc id="d">{% for bar in bars %}{{ bar.name }}: {{ bar.text }}. {% endfor %}</desc>
<style>
text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1c1f23 }
.title { font-weight: 600; font-size: 16px } .soft { fill: #5d6670; font-size: 12px }
.page { fill: #fff } .untuned { fill: #9aa3ad } .tuned { fill: #0072b2 } .grid { stroke: #dde1e6 }
.whisker { stroke: #1c1f23; stroke-width: 2; fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6e8eb } .soft { fill: #9aa3ad }
.page { fill: #15181c } .untuned { fill: #6b747e } .tuned { fill: #56b4e9 } .grid { stroke: #333a42 }
.whisker { stroke: #e6e8eb }
}
</style>
<rect class="page" x="-16" y="-8" width="752" height="{{ height + 16 }}" rx="6"/>
<text class="title" x="0" y="18">{{ title }}</text>
<text class="soft" x="0" y="38">{{ about }}</text>
{% for x, label in ticks %}
<path class="grid" d="M{{ x }} 54V{{ height - 24 }}"/>
<text class="soft" x="{{ x }}" y="{{ height - 8 }}" text-anchor="middle">{{ label }}</text>
{% endfor %}
{% for bar in bars %}
<text x="0" y="{{ bar.y + 16 }}">{{ bar.name }}</text>
<text class="soft" x="0" y="{{ bar.y + 32 }}">{{ bar.trained }}</text>
<rect class="{{ bar.kind }}" x="{{ left }}" y="{{ bar.y + 4 }}" width="{{ bar.width }}" height="28" rx="2"/>
<path class="whisker" d="M{{ bar.low }} {{ bar.y + 18 }}H{{ bar.high }}"/>
<path class="whisker" d="M{{ bar.low }} {{ bar.y + 12 }}v12M{{ bar.high }} {{ bar.y + 12 }}v12"/>
<text x="720" y="{{ bar.y + 23 }}" text-anchor="end">{{ bar.text }}</text>
{% endfor %}
</svg>
"""


class Bar(NamedTuple):
    """A row of the picture, in its units; `low` and `high` are its interval's."""

    name: str
    trained: str
    kind: str
    y: float
    width: float
    low: float
    high: float
    text: str


def main() -> None:
    untuned = max((scored(RUNS / f"prompt{i}.jsonl", "prediction") for i in (1, 2, 3)), key=lambda one: one.value)
    rows: list[tuple[str, str, Score]] = [("untuned", "best of 3 hand-written prompts", untuned)]
    for name, said in (("prompt", "prompt tuning"), ("lora", "LoRA"), ("full", "full")):
        run = read(RUNS / name)
        assert isinstance(run, Run)
        rows.append((said, trained(run), scored(RUNS / name / "predictions.jsonl", "after")))
    write_text(OUT, svg(rows))
    print(OUT)


def scored(path: Path, field: str) -> Score:
    """Return the score, with its interval, of the texts in a file of predictions."""
    rows = read_lines(path)
    return score([row[field] for row in rows], [row["references"] for row in rows], [METRIC])[METRIC]


def trained(run: Run) -> str:
    """Return how many numbers a run trained."""
    sizes = part(run.summary, "sizes")
    count, total = number(sizes.get("trainable")) or 0, number(sizes.get("total")) or 1
    return f"{count:,.0f} numbers" + (f", {count / total:.2%}" if count < total else ", all")


def svg(rows: Sequence[tuple[str, str, Score]]) -> str:
    """Return the picture of rows (name, what is trained, score)."""
    bars = []
    for i, (name, said, one) in enumerate(rows):
        low, high = one.interval or (one.value, one.value)
        text = f"{one.value:.3f} [{low:.3f}, {high:.3f}]"
        bars.append(Bar(name, said, "tuned" if i else "untuned", 56 + ROW * i, _long(one.value), LEFT + _long(low),
                        LEFT + _long(high), text))  # fmt: skip
    values: dict[str, Any] = {
        "title": f"Summaries of {rows[0][2].n} dialogues: ROUGE-1 before and after tuning",
        "about": "SmolLM2-135M, 1,000 dialogues of DialogSum; best of 3 references; 95 % intervals; one seed",
        "ticks": [(LEFT + _long(i / 10), f"{i / 10:.1f}") for i in range(round(10 * TOP) + 1)],
        "height": 56 + ROW * len(rows) + 24,
    }
    return environment().from_string(PICTURE).render(bars=bars, left=LEFT, **values)


def _long(value: float) -> float:
    return round(WIDTH * value / TOP, 1)


if __name__ == "__main__":
    main()
