"""A model at work outside a run: texts for prompts, scores on a split."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxft.data import Format, encode_prompts
from jaxft.errors import UsageError, nearest
from jaxft.evaluation.scoring import predict, total_loss
from jaxft.methods import full
from jaxft.models import Model
from jaxft.recipe import GenerateRecipe, Recipe, resolve
from jaxft.runs.parts import encode_rows, load_model, read_splits
from jaxft.runs.scores import loss_scores, named, text_scores
from jaxft.training.journal import write_lines
from jaxft.training.step import loss_step


def read_prompts(prompts: Sequence[str] | None, file: str | None) -> list[str]:
    """Return the given prompts, those of a file (one a line), or the whole of standard input as one."""
    if prompts:
        return list(prompts)
    if file is None:
        text = sys.stdin.read()
        lines = [text.rstrip("\n")] if text.strip() else []
    else:
        try:
            lines = [line for line in Path(file).read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--file: {file} cannot be read ({error})") from None
    if not lines:
        raise UsageError("there is no prompt: give --prompt, --file with a prompt a line, or standard input")
    return lines


def generate_texts(
    source: str,
    prompts: Sequence[str],
    adapter: str | None = None,
    settings: GenerateRecipe = GenerateRecipe(),  # noqa: B008 (frozen)
    chat: bool = False,
    system: str | None = None,
    seed: int = 0,
) -> list[str]:
    """Return what the model of `source`, with an adapter if one is given, writes after the prompts."""
    from jaxft.generation import generate

    format = Format(prompt="prompt", completion="prompt", chat=chat, system=system)
    model, variables, _ = _load(source, adapter)
    rows = [{"prompt": prompt} for prompt in prompts]
    encoder_decoder = hasattr(model.config, "decoder_start_token_id")
    ids = encode_prompts(rows, format, model.tokenizer, encoder_decoder=encoder_decoder)
    options = dataclasses.asdict(settings) | {"key": jax.random.key(seed)}
    return generate(model, variables, [one.tolist() for one in ids], **options)


def evaluate_split(
    recipe: Recipe, adapter: str | None = None, split: str = "test", predictions: str | None = None
) -> dict[str, Any]:
    """Return the scores of a recipe's model, with an adapter if one is given, on a split of its data.

    `predictions` names a file for the texts. Raises UsageError for a split that the data lacks.
    """
    recipe = resolve(recipe)
    rows = read_splits(recipe)
    if split not in rows:
        raise UsageError(f"--split: the data has no split {split!r}{nearest(split, rows)}")
    model, variables, total_of = _load(recipe.model.source, adapter, load_model(recipe))
    examples, report = encode_rows(recipe, rows[split], model)
    key = jax.random.key(recipe.train.seed)
    texts = predict(model, variables, examples, dataclasses.asdict(recipe.generate), key)
    scores = text_scores(recipe, examples, texts)
    losses = loss_scores(model, examples, recipe.generate.batch_size, total_of)
    if predictions is not None:
        rows_out = zip(examples, texts, strict=True)
        write_lines(predictions, ({**named(e), "references": e.references, "prediction": text} for e, text in rows_out))
    tasks = scores.beside(losses).tasks
    return {
        "model": recipe.model.source,
        "adapter": adapter,
        "split": split,
        "examples": len(examples),
        "loss": losses.values["loss"],
        "scores": {
            name: {"value": value, "provenance": scores.provenance[name]} for name, value in scores.values.items()
        },
        "data": dataclasses.asdict(report),
        **({"tasks": tasks} if tasks else {}),
    }


def _load(source: str, adapter: str | None, model: Model | None = None) -> tuple[Model, Mapping[str, Any], Any]:
    from jaxft.methods.peft import load_adapter
    from jaxft.pretrained import load

    model = model or load(source)
    if model.tokenizer is None:
        raise UsageError(f"{source} has no tokenizer: add its files to the directory")
    method, trainable, frozen = load_adapter(adapter, model) if adapter else (full(), model.params, {})
    step = loss_step(model, method)
    return model, method.bind(trainable, frozen), functools.partial(total_loss, step, trainable, frozen)
