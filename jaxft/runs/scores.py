"""What a run's model is worth: its loss and the scores of its texts, over all examples and task by task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.data import Batches, Encoded
from jaxft.data.grouping import by_task
from jaxft.evaluation.metrics import Score, score, values
from jaxft.evaluation.scoring import predict
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.parts import Parts, in_order
from jaxft.training.journal import write_lines


class Scores(NamedTuple):
    """Numbers over all examples, by task (where examples have one), and how they were made."""

    values: dict[str, float]
    tasks: dict[str, dict[str, float]]
    provenance: dict[str, str] = {}  # noqa: RUF012 (never changed)

    def beside(self, other: Scores) -> Scores:
        """Return these numbers and the other ones."""
        names = {**self.tasks, **other.tasks}
        tasks = {name: {**self.tasks.get(name, {}), **other.tasks.get(name, {})} for name in names}
        return Scores({**self.values, **other.values}, tasks, {**self.provenance, **other.provenance})

    def row(self, prefix: str) -> dict[str, Any]:
        """Return what a line of metrics.jsonl holds, each name after `prefix`."""
        row: dict[str, Any] = {f"{prefix}{name}": value for name, value in self.values.items()}
        if self.tasks:
            row["tasks"] = {
                task: {f"{prefix}{name}": value for name, value in found.items()} for task, found in self.tasks.items()
            }
        return row


def scored(parts: Parts) -> list[Encoded]:
    """Return the examples that a run is scored on: the test split, or else the validation split."""
    return parts.examples.get("test") or parts.examples.get("validation") or []


def predictions(recipe: Recipe, parts: Parts, variables: Any, examples: Sequence[Encoded]) -> list[str]:
    """Return the texts that the model writes for the examples."""
    return predict(parts.model, variables, examples, dataclasses.asdict(recipe.generate), parts.key)


def loss_scores(
    model: Model, examples: Sequence[Encoded], batch_size: int, total_of: Callable[[Batches], tuple[float, float]]
) -> Scores:
    """Return the mean loss of the examples' target tokens; `total_of` says their sum and number in batches."""
    shapes = in_order(model, examples, batch_size).shapes  # the same for each task: programs are compiled once
    sums = {}
    for name, places in (by_task(examples) or {"": list(range(len(examples)))}).items():
        sums[name] = total_of(in_order(model, [examples[i] for i in places], batch_size, shapes))
    mean = sum(total for total, _ in sums.values()) / sum(count for _, count in sums.values())
    return Scores({"loss": mean}, {name: {"loss": total / count} for name, (total, count) in sums.items() if name})


def text_scores(recipe: Recipe, examples: Sequence[Encoded], texts: Sequence[str]) -> Scores:
    """Return what the recipe's metrics say of the texts."""
    whole = _score(recipe, examples, texts)
    tasks = {
        name: values(_score(recipe, [examples[i] for i in places], [texts[i] for i in places]))
        for name, places in by_task(examples).items()
    }
    return Scores(values(whole), tasks, {name: result.provenance for name, result in whole.items()})


def write_predictions(folder: Path, parts: Parts, before: Sequence[str | None], after: Sequence[str | None]) -> None:
    """Replace predictions.jsonl by a line for each example that is scored."""
    rows = (
        {
            **named(example),
            "prompt": parts.model.tokenizer.decode(example.prompt.tolist()),
            "references": list(example.references),
            "before": text_before,
            "after": text_after,
        }
        for example, text_before, text_after in zip(scored(parts), before, after, strict=True)
    )
    write_lines(folder / "predictions.jsonl", rows)


def named(example: Encoded) -> dict[str, str]:
    """Return the fields of a prediction that say of which example it is, and of which task and phrasing."""
    return {"id": example.id} | ({"task": example.task, "template": example.template} if example.task else {})


def _score(recipe: Recipe, examples: Sequence[Encoded], texts: Sequence[str]) -> Mapping[str, Score]:
    options = recipe.evaluate
    references = [example.references for example in examples]
    return score(texts, references, options.metrics, stemmer=options.stemmer, sentences=options.sentences)
