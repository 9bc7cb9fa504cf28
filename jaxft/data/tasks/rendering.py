"""Examples of a task: one phrasing for each row, worked examples before it, and the reasoning in the answer.

    rendered = render_task(task, task.rows("train"), seed=0, shots={0: 0.5, 3: 0.5}, rationale=0.3)

Worked examples (shots) are other rows of the training split in the same phrasing, set before the prompt with an empty
line between; which ones is drawn from (seed, the row's id) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxft.data.rows import Row, Rows, Unusable
from jaxft.data.tasks.drawing import checked_rates, draw, draw_by_rate
from jaxft.data.tasks.task import Task, Template
from jaxft.data.templates import AbsentField, BadRow, Format, Rendered, render_prompt, render_references
from jaxft.errors import UsageError


def render_task(
    task: Task,
    rows: Rows,
    seed: int = 0,
    shots: int | Mapping[int, float] = 0,
    rationale: bool | float = False,
    held_out: bool = False,
    pool: Rows | None = None,
) -> list[Rendered]:
    """Return the examples of rows that `task.rows` gave; UsageError names the first row that makes none.

    `shots`: how many worked examples, or the rate of each number. They come from `pool` (by default the task's training
    rows, or its split `shots` if it has one) and never equal the example. `rationale`: whether, or how often, the
    reasoning comes before the answer, where the phrasing has it. `held_out`: draw from the held-out phrasings alone.
    """
    renderer = Renderer.of(task, seed, shots, rationale, held_out, pool)
    examples = []
    for i in range(len(rows)):
        try:
            examples.append(renderer.example(rows, i).joined())
        except (BadRow, UsageError) as error:
            raise UsageError(f"{task.name}: {rows.place(i)}: {error}") from None
    return examples


class Example(NamedTuple):
    """A rendered row without its worked examples, these, and how many were wanted."""

    rendered: Rendered
    shots: tuple[str, ...]
    wanted: int

    def joined(self, count: int | None = None) -> Rendered:
        """Return the example after the first `count` (None: all) of its worked examples."""
        prompt = "\n\n".join([*self.shots[:count], self.rendered.prompt])
        return self.rendered._replace(prompt=prompt)


@dataclasses.dataclass(frozen=True)
class Renderer:
    """What every row of a split is rendered with."""

    task: Task
    templates: tuple[Template, ...]
    seed: int
    shots: Mapping[int, float]
    rationale: float
    pool: Rows | None

    @classmethod
    def of(
        cls, task: Task, seed: int, shots: Any, rationale: Any, held_out: bool, pool: Rows | None, lenient: bool = False
    ) -> Renderer:
        """Return the renderer for what `render_task` was asked; it reads the pool if worked examples are wanted.

        With `lenient` a task that has no rows for worked examples goes without.
        """
        templates = tuple(template for template in task.templates if template.held_out == held_out)
        if not templates:
            raise UsageError(f"{task.name} has no held-out template")
        rates = checked_rates("shots", shots)
        if not 0 <= float(rationale) <= 1:
            raise UsageError(f"rationale: {rationale} is no rate; use a number from 0 to 1")
        most = max(number for number, rate in rates.items() if rate)
        if most and pool is None:
            pool = _pool(task, lenient)
        elif most and pool is not None and len(pool) <= most:
            raise UsageError(f"{task.name}: {most} worked examples need more than the {len(pool)} rows there are")
        return cls(task, templates, seed, rates, float(rationale), pool)

    def example(self, rows: Rows, i: int) -> Example:
        """Return the example of row `i`; raises what `jaxft.data.templates.render` raises."""
        row, name = _usable(rows[i]), rows.id(i)
        reasoned = [template for template in self.templates if template.rationale is not None]
        reasoning = bool(reasoned) and draw(2**53, self.seed, name, "rationale") / 2**53 < self.rationale
        templates = reasoned if reasoning else self.templates
        template = templates[draw(len(templates), self.seed, name, "template")]
        rendered = self._rendered(row, template, reasoning)
        count = draw_by_rate(self.shots, self.seed, name, "shots")
        if count and rendered.turns:
            raise UsageError("conversations take no worked examples; set `shots: 0`")
        return Example(rendered, self._shots(name, template, reasoning, rendered.prompt, count), count)

    def _rendered(self, row: Row, template: Template, reasoning: bool) -> Rendered:
        task = self.task
        references = task.answers(row, template)
        context = task.context(row, template, reasoning)
        if reasoning and template.rationale is not None:
            references = render_references(template.rationale, context)
        system = template.system or task.system or ("{{ system }}" if task.format and row.get("system") else None)
        format = Format(template.prompt, "", chat=True, system=system)
        prompt, system_text = render_prompt(format, context)
        return Rendered(
            prompt,
            references,
            system_text,
            turns=tuple(row["turns"]) if task.format and row.get("turns") else (),
            task=task.name,
            template=template.id + ("+rationale" if reasoning else ""),
            choices=task.options(row, template),
        )

    def _shots(self, name: str, template: Template, reasoning: bool, prompt: str, count: int) -> tuple[str, ...]:
        shots: dict[str, str] = {}
        pool = self.pool if self.pool is not None else Rows([])
        # Rows that are bad, or alike, are passed over; a pool of nothing else gives fewer.
        for attempt in range(20 * count + 20 if count and len(pool) else 0):
            i = draw(len(pool), self.seed, name, "shot", attempt)
            if pool.id(i) == name or isinstance(pool[i], Unusable):
                continue
            try:
                shot = self._rendered(pool[i], template, reasoning)
            except (BadRow, AbsentField):
                continue
            if shot.prompt != prompt:
                shots.setdefault(shot.prompt, "".join(follow(shot.prompt, shot.references[0])))
            if len(shots) == count:
                break
        return tuple(shots.values())


def follow(prompt: str, completion: str) -> tuple[str, str]:
    """Return the two so that one can be written right after the other: a space after a colon, else a new line.

    >>> follow("Answer:", "yes"), follow("Is it so?", "yes")
    (('Answer:', ' yes'), ('Is it so?\\n', 'yes'))
    """
    if prompt[-1:].isspace() or completion[:1].isspace():
        return prompt, completion
    return (prompt, f" {completion}") if prompt.endswith(":") else (f"{prompt}\n", completion)


def _pool(task: Task, lenient: bool) -> Rows:
    try:
        return task.rows("shots" if "shots" in task.splits else "train", on_bad="skip")
    except UsageError as error:
        if lenient:
            return Rows([])
        raise UsageError(f"{task.name} has no rows for worked examples ({error}); set `shots: 0`") from None


def _usable(row: Row) -> Row:
    if isinstance(row, Unusable):
        raise BadRow(row.reason)
    return row
