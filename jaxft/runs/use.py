"""A model at work outside a run: texts for prompts, scores on a split, sizes of methods."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxft.data import Format, encode_prompts, splits
from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics import score
from jaxft.evaluation.scoring import mean_loss, predict
from jaxft.methods import METHODS, from_config, full
from jaxft.models import Model
from jaxft.recipe import (
    GenerateRecipe,
    OptimizerRecipe,
    Recipe,
    check,
    lay_over,
    optimizer_config,
    published_optimizer,
    resolve,
)
from jaxft.runs.parts import encode_rows, in_order, load_model
from jaxft.runs.sizes import Sizes, sizes
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
    recipe, data = resolve(recipe), recipe.data
    rows = splits(data.source, validation=data.validation, test=data.test, seed=data.seed, limit=data.limit)
    if split not in rows:
        raise UsageError(f"--split: the data has no split {split!r}{nearest(split, rows)}")
    model, variables, loss = _load(recipe.model.source, adapter, load_model(recipe))
    examples, report = encode_rows(recipe, rows[split], model)
    key = jax.random.key(recipe.train.seed)
    texts = predict(model, variables, examples, dataclasses.asdict(recipe.generate), key)
    references = [example.references for example in examples]
    options = recipe.evaluate
    scores = score(texts, references, options.metrics, stemmer=options.stemmer, sentences=options.sentences)
    if predictions is not None:
        rows_out = zip(examples, texts, strict=True)
        write_lines(predictions, ({"id": e.id, "references": e.references, "prediction": text} for e, text in rows_out))
    return {
        "model": recipe.model.source,
        "adapter": adapter,
        "split": split,
        "examples": len(examples),
        "loss": loss(in_order(model, examples, recipe.generate.batch_size)),
        "scores": {name: {"value": value, "provenance": how} for name, (value, how) in scores.items()},
        "data": dataclasses.asdict(report),
    }


def sizes_of_methods(source: str, settings: Sequence[tuple[str, Any]] = ()) -> dict[str, Sizes]:
    """Return the sizes of every method on a model, or of the one that `settings` (recipe keys and values) describe."""
    values: dict[str, Any] = {"method": {}, "optimizer": {}}
    lay_over(values, [("method.name" if key == "method" else key, value) for key, value in settings])
    chosen, rates = values.pop("method"), values.pop("optimizer")
    if values:
        raise UsageError(f"--{next(iter(values))}: only fields of method and optimizer matter here")
    configs = [{"name": "lora", **chosen}] if chosen else [{"name": name} for name in METHODS]
    model = _shapes(source)
    table = {}
    for config in configs:
        defaults = dataclasses.asdict(published_optimizer(from_config(config).config))
        optimizer = check(OptimizerRecipe, defaults | rates, prefix="optimizer")
        table[" ".join(str(value) for value in config.values())] = sizes(model, config, optimizer_config(optimizer, 1))
    return table


def _load(source: str, adapter: str | None, model: Model | None = None) -> tuple[Model, Mapping[str, Any], Any]:
    from jaxft.methods.peft import load_adapter
    from jaxft.pretrained import load

    model = model or load(source)
    if model.tokenizer is None:
        raise UsageError(f"{source} has no tokenizer: add its files to the directory")
    method, trainable, frozen = load_adapter(adapter, model) if adapter else (full(), model.params, {})
    step = loss_step(model, method)
    return model, method.bind(trainable, frozen), lambda batches: mean_loss(step, trainable, frozen, batches)


def _shapes(source: str) -> Model:
    from jaxft.pretrained import load

    return load(source, put=lambda path, array: jax.ShapeDtypeStruct(array.shape, array.dtype))  # type: ignore[arg-type, return-value]
