"""`evaluate_split`: the scores of a model, tuned or not, on a split of a recipe's data, answer by answer on disk.

    found = evaluate_split(load_recipe("recipe.yaml"), adapter="runs/x/adapter", out="evaluations/x")

With a folder or a file for the predictions, what the model has answered stays through a kill or Ctrl-C, and the same
call goes on from there to the same result, to the bit on CPU. Answers of another model are refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxft.data import Encoded
from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers, check_answers
from jaxft.evaluation.progress import Answering
from jaxft.evaluation.scoring import batch_losses
from jaxft.evaluation.tasks import Given, answer, prediction_row
from jaxft.models import Model
from jaxft.recipe import Recipe, resolve
from jaxft.runs.folder import make_folder
from jaxft.runs.parts import Parts, encode_rows, fingerprint, load_model, read_split
from jaxft.runs.scores import Scores, check_scorable, loss_scores, phrasings, text_scores
from jaxft.runs.scores import predictions as answers_of
from jaxft.training.journal import write_json, write_lines
from jaxft.training.progress import Progress
from jaxft.training.step import loss_step


def evaluate_split(
    recipe: Recipe,
    adapter: str | None = None,
    split: str = "test",
    predictions: str | Path | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the scores of a recipe's model, with an adapter if one is given, on a split of its data.

    Tasks are scored by their own metrics, where they have some. `out` is a folder for predictions.jsonl, scores.json
    and, as they are made, answers.jsonl; `predictions` names a file for the first alone, and the answers lie beside it
    (`p.answers.jsonl`). Raises UsageError for a split that the data lacks and for answers of another model.
    """
    recipe, show = resolve(recipe), progress or Progress()
    rows = read_split(recipe, split)
    folder, kept, who = None, _beside(predictions), identity(recipe, adapter)
    if out is not None:
        folder = make_folder(out, "--out")
        predictions, kept = predictions or folder / "predictions.jsonl", folder / "answers.jsonl"
    check_answers(kept, who)
    show.note(f"loading {recipe.model.source} ...")
    model, variables, losses_of = loaded(recipe.model.source, adapter, load_model(recipe))
    examples, report = encode_rows(recipe, rows, model)
    check_scorable(recipe, examples)
    with kept_answers(kept, {**who, "weights": fingerprint(model)}, show) as answers:
        given = _answers(recipe, model, variables, examples, answers, show)
    scores = text_scores(recipe, examples, given).beside(
        loss_scores(model, examples, recipe.generate.batch_size, losses_of)
    )
    if predictions is not None:
        write_lines(predictions, (prediction_row(*pair) for pair in zip(examples, given, strict=True)))
    found = {
        "model": recipe.model.source,
        "adapter": adapter,
        "split": split,
        "examples": len(examples),
        **_numbers(scores),
        "data": dataclasses.asdict(report),
    }
    if folder is not None:
        write_json(folder / "scores.json", found)
    return found


def kept_predictions(
    recipe: Recipe,
    parts: Parts,
    folder: Path,
    variables: Any,
    examples: Sequence[Encoded],
    show: Progress,
    adapter: Path | None = None,
) -> list[Given]:
    """Return what the model of a run says to the examples, the base or with `adapter`, kept in the run's folder.

    A run that is stopped meanwhile goes on from what is there. Other weights have another file.
    """
    who = {"weights": fingerprint(parts.model), "adapter": adapter and _digest(adapter)}
    path = folder / "answers" / f"{Answers.key(who)[:8]}.jsonl"
    with kept_answers(path, who, show) as answers:
        return answers_of(recipe, parts, variables, examples, answers, Answering(examples, show.note))


@contextlib.contextmanager
def kept_answers(path: Path | None, who: Mapping[str, Any], show: Progress) -> Iterator[Answers]:
    """Yield the answers in a file; whoever interrupts them is told what is kept."""
    with Answers(path, who) as answers:
        try:
            yield answers
        except KeyboardInterrupt:
            if path is not None:
                show.note(f"stopped: {len(answers):,} answers are kept in {path}; the same command goes on from there")
            raise


def identity(recipe: Recipe, adapter: str | None) -> dict[str, Any]:
    """Return what is known of a model before it is loaded that its answers depend on, beside prompts and settings."""
    return {
        "model": recipe.model.source,
        "adapter": adapter and f"{adapter} ({_digest(Path(adapter))})",
        "dtype": recipe.model.dtype,
        "quantize": recipe.model.quantize,
    }


def loaded(source: str, adapter: str | None, model: Model | None = None) -> tuple[Model, Mapping[str, Any], Any]:
    """Return a model, the variables that it has with an adapter if one is given, and what measures its losses."""
    from jaxft.methods.peft import adapted
    from jaxft.pretrained import load

    model = model or load(source)
    if model.tokenizer is None:
        raise UsageError(f"{source} has no tokenizer: add its files to the directory")
    method, trainable, frozen = adapted(model, adapter)
    step = loss_step(model, method)
    return model, method.bind(trainable, frozen), functools.partial(batch_losses, step, trainable, frozen)


def _answers(
    recipe: Recipe, model: Model, variables: Any, examples: Sequence[Encoded], answers: Answers, show: Progress
) -> list[Given]:
    settings, key = dataclasses.asdict(recipe.generate), jax.random.key(recipe.train.seed)
    done = Answering(examples, show.note)
    by = recipe.evaluate.choices_by
    return answer(model, variables, examples, settings, answers=answers, key=key, by=by, done=done)


def _numbers(scores: Scores) -> dict[str, Any]:
    loss = scores.measured["loss"]
    found: dict[str, Any] = {
        "loss": loss.value,
        "loss_interval": loss.interval,
        "scores": {
            name: {**one.to_dict(), "n": one.n, "provenance": one.provenance}
            for name, one in scores.measured.items()
            if name != "loss"
        },
    }
    if scores.tasks:
        found["tasks"] = scores.tasks
        found["task_scores"] = {
            task: {
                "n": max(one.n for one in own.values()),
                "scores": {name: one.to_dict() for name, one in own.items()},
                "templates": phrasings(scores, task),
            }
            for task, own in scores.measured_tasks.items()
        }
    return found


def _beside(predictions: str | Path | None) -> Path | None:
    return None if predictions is None else Path(predictions).with_suffix(".answers.jsonl")


def _digest(adapter: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*adapter.glob("*.safetensors"), *adapter.glob("adapter_config.json")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:16]
