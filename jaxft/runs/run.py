"""`run`: a recipe becomes a tuned model, its scores before and after, and a folder that holds all of it.

    summary = run(load_recipe("recipe.yaml", ["--train.epochs=2"]))
    summary["before"]["rouge1"], summary["after"]["rouge1"]

Called again, it goes on where it was stopped; a finished run is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxft.data import show_example
from jaxft.methods import full
from jaxft.recipe import Recipe, optimizer_config, resolve
from jaxft.runs import folder as folders
from jaxft.runs.asking import check_prompts
from jaxft.runs.evaluating import kept_predictions
from jaxft.runs.fitting import fit, probed_rows, split_loss
from jaxft.runs.in_context import in_context
from jaxft.runs.parts import Parts, load_model, make_parts, mesh_of, read_rows
from jaxft.runs.probes import Asked, Probing, read_probes
from jaxft.runs.resources import count_compilations, peak_memory
from jaxft.runs.scores import (
    Scores,
    check_scorable,
    evidence,
    known_given,
    scored,
    task_evidence,
    text_scores,
    write_predictions,
)
from jaxft.runs.sizes import sizes
from jaxft.runs.tasks import describe, trained_on
from jaxft.training.journal import write_json
from jaxft.training.loop import Report
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
        parts, asked = _prepare(recipe, seconds, show)
        folders.claim(folder, recipe)
        show.note(show_example(parts.batches.batch(0), parts.model.tokenizer))
        before = _before(recipe, parts, folder, seconds, show)
        probing = _probing(recipe, parts, asked, seconds, show)
        fitted = fit(recipe, parts, folder, show, probing)
        after = _after(recipe, parts, folder, fitted.state, seconds, show)
        otherwise = in_context(recipe, parts, folder, seconds, show)
        forgot = _forgetting(probing, folder, fitted.state, seconds, show)
        summary = {
            "before": before.values,
            "after": after.values,
            "scored_on": {
                "split": "test" if "test" in parts.examples else "validation",
                "examples": len(scored(parts)),
            },
            **evidence(before, after),
            "provenance": after.provenance,
            "sizes": sizes(parts.model, parts.method.config, optimizer_config(recipe.optimizer, parts.steps))._asdict(),
            "seconds": seconds | _seconds(fitted.report),
            "steps": parts.steps,
            "resumed_from": fitted.resumed,
            "tokens_per_second": fitted.report.tokens_per_second,
            "peak_memory_bytes": peak_memory(),
            "compilations": {"train_step": fitted.report.compilations, "programs": compiled()},
            "data": {name: dataclasses.asdict(report) for name, report in parts.reports.items()},
            "padding": parts.batches.padding(),
            **_tasks(parts, fitted.last, before, after),
            **fitted.summary(),
            **forgot,
            **otherwise,
        }
        write_json(folder / "summary.json", summary)
        shutil.rmtree(folder / "answers", ignore_errors=True)  # predictions.jsonl has them
        _report(folder, show)
        return summary


def _prepare(recipe: Recipe, seconds: Seconds, show: Progress) -> tuple[Parts, Asked | None]:
    rows, asked = read_rows(recipe), read_probes(recipe)
    check_prompts(recipe, rows)
    mesh = mesh_of(recipe)
    show.note(f"loading {recipe.model.source} ...")
    with _timed(seconds, "load"):
        model = load_model(recipe, mesh)
    with _timed(seconds, "encode"):
        parts = make_parts(recipe, rows, model, mesh)
    check_scorable(recipe, scored(parts))
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
    return parts, asked


def _before(recipe: Recipe, parts: Parts, folder: Path, seconds: Seconds, show: Progress) -> Scores:
    examples = scored(parts)
    if not recipe.evaluate.before or not examples:
        return Scores({}, {})
    texts = [one for one in known_given(folder, examples, "before") if one is not None]
    method, trainable, frozen = full(), parts.model.params, {}
    if recipe.train.start is not None:  # before is where this run begins
        method, trainable, frozen = parts.method, parts.state.trainable, parts.frozen
    with _timed(seconds, "before"):
        if len(texts) < len(examples):
            show.note(f"scoring the model as it is on {len(examples)} examples ...")
            start = None if recipe.train.start is None else Path(recipe.train.start)
            texts = kept_predictions(recipe, parts, folder, method.bind(trainable, frozen), examples, show, start)
            write_predictions(folder, parts, texts, [None] * len(texts))
        loss = split_loss(recipe, parts, loss_step(parts.model, method), trainable, frozen, examples)
    return text_scores(recipe, examples, texts).beside(loss)


def _after(recipe: Recipe, parts: Parts, folder: Path, state: Any, seconds: Seconds, show: Progress) -> Scores:
    from jaxft.methods.peft import save_adapter

    save_adapter(folder / "adapter", parts.method, state.trainable, parts.frozen, parts.model)
    examples = scored(parts)
    if not examples:
        return Scores({}, {})
    show.note(f"scoring the tuned model on {len(examples)} examples ...")
    with _timed(seconds, "after"):
        variables = parts.method.bind(state.trainable, parts.frozen)
        texts = kept_predictions(recipe, parts, folder, variables, examples, show, folder / "adapter")
        tuned = loss_step(parts.model, parts.method)
        loss = split_loss(recipe, parts, tuned, state.trainable, parts.frozen, examples)
    write_predictions(folder, parts, known_given(folder, examples, "before"), texts)
    return text_scores(recipe, examples, texts).beside(loss)


def _probing(recipe: Recipe, parts: Parts, asked: Asked | None, seconds: Seconds, show: Progress) -> Probing | None:
    if asked is None:
        return None
    show.note("asking the probes, which show what is forgotten ...")
    with _timed(seconds, "probes"):
        return Probing(recipe, parts, asked)


def _forgetting(probing: Probing | None, folder: Path, state: Any, seconds: Seconds, show: Progress) -> dict[str, Any]:
    if probing is None:
        return {}
    step = int(state.step)
    during = [values for at, values in probed_rows(folder).items() if 0 < at < step]
    with _timed(seconds, "probes"):
        return {"forgetting": probing.summary(step, state, during)}


def _tasks(parts: Parts, steps: int, before: Scores, after: Scores) -> dict[str, Any]:
    trained = trained_on(parts.batches, steps)
    if not trained:
        return {}
    names = dict.fromkeys([*trained, *before.tasks, *after.tasks])
    data = {
        name: {split: dataclasses.asdict(found[name]) for split, found in parts.task_reports.items() if name in found}
        for name in names
    }
    scores = {"before": before.tasks, "after": after.tasks}
    evidences = task_evidence(before, after)
    return {
        "tasks": {
            name: {
                "train": trained.get(name, {}),
                **{when: found.get(name, {}) for when, found in scores.items()},
                "data": data[name],
                **evidences.get(name, {}),
            }
            for name in names
        }
    }


def _report(folder: Path, show: Progress) -> None:
    from jaxft.report import write_report

    try:
        write_report([folder])
    except Exception as error:  # the run is done and kept, whatever becomes of its page
        show.note(f"{folder}/report.html was not written ({error}): try `jaxft report {folder}`")


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
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
