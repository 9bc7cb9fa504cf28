"""Tuning for one task after another, and what each stage did to the others: a task x stage matrix.

    found = sequence(recipe, ["glue/rte", "glue/sst2", "superglue/copa"], "runs/sequence")
    found["scores"]        # [4][3]: before, and after each stage, on each task
    found["average_forgetting"], found["backward_transfer"], found["forward_transfer"]

Each stage is an ordinary run in a folder of its own that starts from the adapter (or model) of the last, and has all of
the tasks as its probes. So a sequence that was stopped goes on where it was. Of losses the averages are of `-loss`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.data.tasks import load_tasks
from jaxft.errors import UsageError
from jaxft.evaluation.forgetting import average_forgetting, backward_transfer, forward_transfer, plot_matrix
from jaxft.recipe import Recipe
from jaxft.training.journal import write_json
from jaxft.training.progress import Progress


def sequence(
    recipe: Recipe, tasks: Sequence[Any], out: str | Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Tune for `tasks` in turn and return the matrix of scores and its averages; `out` gets them with a picture.

    `recipe` says everything but the task; of its probes what is no task (text, prompts) stays. Raises UsageError for
    fewer than two tasks, and what `jaxft.run` raises.
    """
    from jaxft.runs.run import run

    folder = Path(out)
    names = [task.name for task in load_tasks(tasks, recipe.data.root)]
    if len(names) < 2 or len(names) != len(tasks):
        raise UsageError(f"tasks: {len(tasks)} were named and give {len(names)}: name two or more single tasks")
    summaries = [run(stage, progress=progress) for stage in stages(recipe, tasks, folder)]
    first = summaries[0]["forgetting"]["probes"]
    rows = [[first[name]["before"] for name in names]]
    rows += [[summary["forgetting"]["probes"][name]["after"] for name in names] for summary in summaries]
    scores = [[score["value"] for score in row] for row in rows]
    metrics = {name: first[name]["metric"] for name in names}
    found = {"tasks": names, "metrics": metrics, "scores": scores, "intervals": rows, **_averages(scores, metrics)}
    write_json(folder / "sequence.json", found)
    plot_matrix(scores, ["before", *(f"after {name}" for name in names)], names, folder / "sequence.png")
    return found


def stages(recipe: Recipe, tasks: Sequence[Any], folder: Path) -> Iterator[Recipe]:
    """Yield the recipe of each stage."""
    probes = dataclasses.replace(recipe.probes, enabled=True, tasks=list(tasks))
    start = recipe.train.start
    for number, task in enumerate(tasks, start=1):
        out = folder / f"stage{number}"
        data = dataclasses.replace(recipe.data, tasks=[task], source=None, prompt=None, completion=None)
        train = dataclasses.replace(recipe.train, start=start)
        yield dataclasses.replace(recipe, data=data, train=train, probes=probes, out=str(out))
        start = str(out / "adapter")


def _averages(scores: Sequence[Sequence[float]], metrics: Mapping[str, str]) -> dict[str, float]:
    if len(set(metrics.values())) > 1:
        return {}  # the mean of an accuracy and a loss says nothing
    sign = -1 if "loss" in metrics.values() else 1  # higher is better
    scores = [[sign * score for score in row] for row in scores]
    return {
        "average_forgetting": average_forgetting(scores),
        "backward_transfer": backward_transfer(scores),
        "forward_transfer": forward_transfer(scores),
    }
