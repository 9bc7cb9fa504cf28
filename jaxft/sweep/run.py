"""`sweep`: a recipe and a grid become a table of results, a plot, and the best member's adapter.

    rows = sweep(load_recipe("recipe.yaml"), {"optimizer.learning_rate": [1e-4, 3e-4], "train.seed": [0, 1, 2]})
    min((row for row in rows if row["finite"]), key=lambda row: row["validation_loss"])["overrides"]

Members run in chunks that fit into memory, all by the same program. The run folder holds recipe.yaml, environment.json,
sweep.json (what was asked, and what it took), results.jsonl (a line a member, added after each chunk), sweep.png and
adapter/, the best member's. Called again after an interruption, finished chunks are left alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError
from jaxft.recipe import Recipe, resolve
from jaxft.runs import folder as folders
from jaxft.runs.parts import load_model
from jaxft.runs.resources import count_compilations, peak_memory
from jaxft.sweep.chunk import Row, train_chunk
from jaxft.sweep.data import read_all
from jaxft.sweep.grid import Grid, members_of
from jaxft.sweep.memory import fitting
from jaxft.sweep.plan import Plan, make_plan
from jaxft.sweep.show import best_of, plot
from jaxft.sweep.step import member
from jaxft.training.journal import append_to, read_lines, write_json
from jaxft.training.progress import Progress

FILES = ("sweep.json", "results.jsonl", "sweep.png")


def sweep(
    recipe: Recipe,
    grid: Grid,
    *,
    at_once: int | None = None,
    patience: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Train every member of `grid` (see `jaxft.sweep.grid`) in the recipe's folder and return a row for each.

    `at_once` members are trained together; by default as many as memory holds. With `patience`, a member stops when
    that many evaluations in a row (one every `train.eval_every` steps) brought no lower validation loss. `train.use`
    says whether its last or its best weights count. Rows hold `member`, `overrides`, `train_loss`, `validation_loss`,
    `steps`, `finite`, `stopped` and `evaluations` (`[[step, loss], ...]`). A member that diverges keeps its last good
    weights. No text is generated, and nothing is scored before training. Raises UsageError for what cannot be swept,
    before a model is loaded where that can be known, and Error if every member diverged.
    """
    for name, value in {"at_once": at_once, "patience": patience}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"{name}: {value!r} is not a whole number of at least 1")
    recipe, show = resolve(recipe), progress or Progress()
    members = members_of(recipe, grid)
    overrides, recipes = [one for one, _ in members], [one for _, one in members]
    asked = {"members": overrides, "patience": patience}
    with _sweep_folder(recipe, asked, overwrite) as folder, count_compilations() as compiled:
        began, rows = time.perf_counter(), read_lines(folder / "results.jsonl")
        if len(rows) == len(members):
            show.note(f"{folder}: this sweep is finished; set another `out` or --overwrite to run it again")
            return _sound(rows, folder)
        data = read_all(recipes)
        show.note(f"loading {recipe.model.source} ...")
        plan = make_plan(recipes, data, load_model(recipe))
        folders.claim(folder, recipe)
        write_json(folder / "sweep.json", asked)
        rows = _carry_out(plan, overrides, rows, at_once, patience, folder, show)
        took = {"seconds": time.perf_counter() - began, "programs": compiled(), "peak_memory_bytes": peak_memory()}
        write_json(folder / "sweep.json", {**asked, "best": best_of(rows), **took})
        plot(rows, folder / "sweep.png")
        return _sound(rows, folder)


def _sound(rows: list[Row], folder: Path) -> list[Row]:
    if best_of(rows) is None:
        raise Error(f"sweep: every member diverged (see {folder}/results.jsonl): lower optimizer.learning_rate")
    return rows


def _carry_out(
    plan: Plan,
    overrides: Sequence[Mapping[str, Any]],
    rows: list[Row],
    at_once: int | None,
    patience: int | None,
    folder: Path,
    show: Progress,
) -> list[Row]:
    from jaxft.methods.peft import save_adapter

    done = {row["member"] for row in rows}
    left = [i for i in range(len(overrides)) if i not in done]
    if at_once is None:
        show.note(f"compiling for {len(left)} members ...")
        at_once = fitting(lambda count: plan.lower(left[:count]), len(left))
    append = append_to(folder / "results.jsonl")
    for first in range(0, len(left), at_once):
        chunk = left[first : first + at_once]
        show.note(f"members {chunk[0] + 1} to {chunk[-1] + 1} of {len(overrides)}: {plan.steps} steps")
        found, trainable, frozen = train_chunk(plan, chunk, at_once, patience, show)
        found = [{"member": row["member"], "overrides": overrides[row["member"]], **row} for row in found]
        rows = [*rows, *found]
        best = best_of(rows)
        if best in chunk:
            tuned = member(trainable, frozen, chunk.index(best), plan.recipes[best].method, plan.model)
            save_adapter(folder / "adapter", *tuned, plan.model)
        for row in found:
            append(row)
    return rows


@contextlib.contextmanager
def _sweep_folder(recipe: Recipe, asked: Mapping[str, Any], overwrite: bool) -> Iterator[Path]:
    out = Path(recipe.out)
    ours = out / "sweep.json"
    if not overwrite and not ours.exists() and (out / "metrics.jsonl").exists():
        raise UsageError(f"out: {out} holds a run, and not a sweep: set another `out`, or --overwrite to delete it")
    with folders.run_folder(recipe, overwrite=overwrite) as folder:
        if overwrite:
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
        if ours.exists():
            earlier = json.loads(ours.read_text(encoding="utf-8"))
            changed = [key for key, value in asked.items() if earlier.get(key) != json.loads(json.dumps(value))]
            if changed:
                raise UsageError(
                    f"out: {folder} holds another sweep; it differs in {', '.join(changed)}: "
                    f"set another `out`, or --overwrite to delete that sweep"
                )
        yield folder
