"""`run`: a recipe becomes a tuned model, its scores before and after, and a folder that holds all of it.

    summary = run(load_recipe("recipe.yaml", ["--train.epochs=2"]))
    summary["before"]["rouge1"], summary["after"]["rouge1"]

Called again, it goes on where it was stopped; a finished run is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.data import Encoded, show_example
from jaxft.data.grouping import spread
from jaxft.evaluation.scoring import total_loss
from jaxft.methods import full
from jaxft.recipe import Recipe, optimizer_config, resolve
from jaxft.runs import folder as folders
from jaxft.runs.parts import Parts, load_model, make_parts, mesh_of, placer, read_rows
from jaxft.runs.resources import count_compilations, peak_memory
from jaxft.runs.scores import Scores, loss_scores, predictions, scored, text_scores, write_predictions
from jaxft.runs.sizes import sizes
from jaxft.runs.tasks import describe, trained_on
from jaxft.training.checkpoint import Checkpoints
from jaxft.training.journal import append_to, cut, read_lines, write_json
from jaxft.training.loop import Report, train
from jaxft.training.progress import Progress
from jaxft.training.step import loss_step

Seconds = dict[str, float]


def run(recipe: Recipe, *, overwrite: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Carry out a recipe in its run folder and return the summary, which summary.json holds as well.

    Raises UsageError for a recipe, data or folder that cannot be used, before a model is loaded where that can be
    known; Error for what fails on the way, with the last checkpoint kept.
    """
    recipe, show = resolve(recipe), progress or Progress()
    with folders.run_folder(recipe, overwrite=overwrite) as folder, count_compilations() as compiled:
        summary = folders.finished(folder)
        if summary is not None:
            show.note(f"{folder}: this run is finished; set another `out` or --overwrite to run it again")
            return summary
        seconds: Seconds = {}
        parts = _prepare(recipe, seconds, show)
        folders.claim(folder, recipe)
        show.note(show_example(parts.batches.batch(0), parts.model.tokenizer))
        before = _before(recipe, parts, folder, seconds, show)
        state, report, resumed = _train(recipe, parts, folder, show)
        after = _after(recipe, parts, folder, state, seconds, show)
        summary = {
            "before": before.values,
            "after": after.values,
            "scored_on": {
                "split": "test" if "test" in parts.examples else "validation",
                "examples": len(scored(parts)),
            },
            "provenance": after.provenance,
            "sizes": sizes(parts.model, parts.method.config, optimizer_config(recipe.optimizer, parts.steps))._asdict(),
            "seconds": seconds | _seconds(report),
            "steps": parts.steps,
            "resumed_from": resumed,
            "tokens_per_second": report.tokens_per_second,
            "peak_memory_bytes": peak_memory(),
            "compilations": {"train_step": report.compilations, "programs": compiled()},
            "data": {name: dataclasses.asdict(report) for name, report in parts.reports.items()},
            "padding": parts.batches.padding(),
            **_tasks(parts, before, after),
        }
        write_json(folder / "summary.json", summary)
        return summary


def _prepare(recipe: Recipe, seconds: Seconds, show: Progress) -> Parts:
    rows = read_rows(recipe)
    mesh = mesh_of(recipe)
    show.note(f"loading {recipe.model.source} ...")
    with _timed(seconds, "load"):
        model = load_model(recipe, mesh)
    with _timed(seconds, "encode"):
        parts = make_parts(recipe, rows, model, mesh)
    for name, report in parts.reports.items():
        show.note(f"{name}: {report}")
    if parts.batches.mixture is not None:
        show.note(describe(parts.batches.mixture, parts.examples))
    size = sizes(model, parts.method.config, optimizer_config(recipe.optimizer, parts.steps))
    what = "rows of packed examples" if recipe.data.packing else "examples"
    show.note(
        f"{parts.method.config['name']}: {size.trainable:,} of {size.total:,} numbers are trained "
        f"({size.trainable / size.total:.2%}); {parts.steps} steps of {recipe.train.batch_size} {what}"
    )
    return parts


def _before(recipe: Recipe, parts: Parts, folder: Path, seconds: Seconds, show: Progress) -> Scores:
    examples = scored(parts)
    known = folders.known_predictions(folder)
    if not recipe.evaluate.before or not examples:
        return Scores({}, {})
    texts = [known[example.id]["before"] for example in examples if example.id in known]
    with _timed(seconds, "before"):
        if len(texts) < len(examples):
            show.note(f"scoring the model as it is on {len(examples)} examples ...")
            texts = predictions(recipe, parts, {"params": parts.model.params}, examples)
            write_predictions(folder, parts, texts, [None] * len(texts))
        loss = _loss(recipe, parts, loss_step(parts.model, full()), parts.model.params, {}, examples)
    return text_scores(recipe, examples, texts).beside(loss)


def _train(recipe: Recipe, parts: Parts, folder: Path, show: Progress) -> tuple[Any, Report, int]:
    options = recipe.train
    checkpoints = Checkpoints(folder / "checkpoints", identity=parts.identity(), keep=options.keep)
    state = checkpoints.restore(parts.state) if checkpoints.steps else parts.state
    resumed = int(state.step)
    if resumed:
        show.note(f"going on from the checkpoint of step {resumed}")
    cut(folder / "metrics.jsonl", resumed)
    every = parts.batches.steps_per_epoch if options.eval_every is None else options.eval_every
    append = append_to(folder / "metrics.jsonl")

    def write(row: Mapping[str, Any]) -> None:
        append(_step_row(row, parts) if "grad_norm" in row else row)

    state, report = train(
        parts.step,
        state,
        parts.frozen,
        parts.batches,
        parts.key,
        steps=parts.steps,
        evaluate=_evaluation(recipe, parts),
        eval_every=every,
        evaluated=_evaluated(folder),
        checkpoints=checkpoints,
        checkpoint_seconds=60 * options.checkpoint_minutes,
        write=write,
        log_every=options.log_every,
        progress=show,
    )
    if options.use == "best" and checkpoints.best is not None:
        state = checkpoints.restore(state, step=checkpoints.best)
    checkpoints.close()
    return state, report, resumed


def _evaluated(folder: Path) -> int:
    return max((row["step"] for row in read_lines(folder / "metrics.jsonl") if "grad_norm" not in row), default=0)


def _step_row(row: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    row = {**row, "learning_rate": float(parts.schedule(row["step"] - 1))}
    sums = zip(parts.batches.tasks, row.pop("task_loss", []), row.pop("task_tokens", []), strict=True)
    tasks = {name: {"loss": loss / tokens, "tokens": tokens} for name, loss, tokens in sums if tokens}
    return {**row, "tasks": tasks} if tasks else row


def _evaluation(recipe: Recipe, parts: Parts):
    examples = parts.examples.get("validation", [])
    for_loss = spread(examples, recipe.train.eval_examples)
    for_texts = spread(examples, recipe.train.eval_generate)
    if not for_loss and not for_texts:
        return None
    loss = loss_step(parts.model, parts.method)

    def evaluate(state):
        scores = Scores({}, {})
        if for_loss:
            scores = _loss(recipe, parts, loss, state.trainable, parts.frozen, for_loss)
        if for_texts:
            texts = predictions(recipe, parts, parts.method.bind(state.trainable, parts.frozen), for_texts)
            scores = scores.beside(text_scores(recipe, for_texts, texts))
        return scores.row("validation_")

    return evaluate


def _after(recipe: Recipe, parts: Parts, folder: Path, state: Any, seconds: Seconds, show: Progress) -> Scores:
    from jaxft.methods.peft import save_adapter

    save_adapter(folder / "adapter", parts.method, state.trainable, parts.frozen, parts.model)
    examples = scored(parts)
    if not examples:
        return Scores({}, {})
    show.note(f"scoring the tuned model on {len(examples)} examples ...")
    with _timed(seconds, "after"):
        variables = parts.method.bind(state.trainable, parts.frozen)
        texts = predictions(recipe, parts, variables, examples)
        tuned = loss_step(parts.model, parts.method)
        loss = _loss(recipe, parts, tuned, state.trainable, parts.frozen, examples)
    known = folders.known_predictions(folder)
    write_predictions(folder, parts, [known.get(example.id, {}).get("before") for example in examples], texts)
    return text_scores(recipe, examples, texts).beside(loss)


def _loss(recipe: Recipe, parts: Parts, loss: Any, trainable: Any, frozen: Any, examples: Sequence[Encoded]) -> Scores:
    total_of = functools.partial(total_loss, loss, trainable, frozen, place=placer(parts.mesh))
    return loss_scores(parts.model, examples, recipe.train.batch_size, total_of)


def _tasks(parts: Parts, before: Scores, after: Scores) -> dict[str, Any]:
    trained = trained_on(parts.batches, parts.steps)
    if not trained:
        return {}
    names = dict.fromkeys([*trained, *before.tasks, *after.tasks])
    data = {
        name: {split: dataclasses.asdict(found[name]) for split, found in parts.task_reports.items() if name in found}
        for name in names
    }
    scores = {"before": before.tasks, "after": after.tasks}
    return {
        "tasks": {
            name: {
                "train": trained.get(name, {}),
                **{when: found.get(name, {}) for when, found in scores.items()},
                "data": data[name],
            }
            for name in names
        }
    }


def _seconds(report: Report) -> Seconds:
    return {
        "train": report.seconds,
        "first_step": report.first_step_seconds,
        "compile": report.compile_seconds,
        "steps": report.step_seconds,
        "evaluate": report.evaluate_seconds,
        "checkpoint": report.checkpoint_seconds,
    }


@contextlib.contextmanager
def _timed(seconds: Seconds, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
