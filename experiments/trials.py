"""How an arm of an experiment is carried out: recipes, one for each seed, become numbers, one mapping for each.

`tune` trains all recipes that differ only in what a sweep may vary (seed, rate, rank, data) as one program. `untuned`
scores the model as it is. `carry_out` makes a whole run of each recipe, for what only runs do (probes of forgetting).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import settings

from jaxft.data import Encoded
from jaxft.evaluation.scoring import batch_losses
from jaxft.evaluation.tasks import answer
from jaxft.methods import Method
from jaxft.methods.prompt import tokenised
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.parts import encode_rows, load_model, read_splits
from jaxft.runs.scores import loss_scores, text_scores
from jaxft.sweep.data import read_all
from jaxft.sweep.memory import fitting
from jaxft.sweep.plan import make_plan
from jaxft.sweep.run import train_chunk
from jaxft.sweep.step import member
from jaxft.training.progress import Progress
from jaxft.training.step import loss_step

Numbers = dict[str, float]
Extra = Callable[[Sequence[str], Sequence[Sequence[str]]], Mapping[str, float]]
Trial = Callable[[Sequence[Recipe], Path, Extra | None], Iterator[tuple[int, Numbers]]]

AT_ONCE = 8  # members at most: beyond, a CPU gains nothing (benchmarks/sweep.py)


def tune(recipes: Sequence[Recipe], folder: Path, extra: Extra | None = None) -> Iterator[tuple[int, Numbers]]:
    """Train recipes as one program and yield `(place, numbers)`: test loss and scores, and what it cost."""
    for model, trained in trained_together(recipes):
        for i, (method, trainable, frozen), numbers in trained:
            yield i, numbers | scores(recipes[i], model, method.bind(trainable, frozen), extra)


def trained_together(recipes: Sequence[Recipe]) -> Iterator[tuple[Model, list[Any]]]:
    """Yield `(model, [(place, (method, trainable, frozen), numbers)])` for as many as are trained at once."""
    data, model = read_all(recipes), loaded(recipes[0])
    recipes = [dataclasses.replace(one, method=tokenised(one.method, model.tokenizer)) for one in recipes]
    plan = make_plan(recipes, data, model)
    at_once = fitting(lambda count: plan.lower(range(count)), min(len(recipes), AT_ONCE))
    for first in range(0, len(recipes), at_once):
        chunk, began = list(range(len(recipes)))[first : first + at_once], time.perf_counter()
        with Progress() as show:
            rows, trainable, frozen = train_chunk(plan, chunk, at_once, None, show)
        seconds = (time.perf_counter() - began) / len(chunk)
        found = []
        for place, i in enumerate(chunk):
            parts = member(trainable, frozen, place, recipes[i].method, model)
            numbers = {"validation_loss": rows[place]["validation_loss"] or float("nan"), "train_seconds": seconds}
            numbers |= {"trained": float(_count(parts[1])), "steps": float(plan.steps)}
            found.append((i, parts, numbers | {"rate": recipes[i].optimizer.learning_rate}))
        yield model, found


def untuned(recipes: Sequence[Recipe], folder: Path, extra: Extra | None = None) -> Iterator[tuple[int, Numbers]]:
    """Score the model as it is; once for all seeds where they have the same examples."""
    known: dict[str, Numbers] = {}
    for i, recipe in enumerate(recipes):
        data = {**dataclasses.asdict(recipe.data), **({} if recipe.data.tasks else {"seed": 0})}
        name = json.dumps([data, recipe.model.source])
        if name not in known:
            model = loaded(recipe)
            known[name] = scores(recipe, model, {"params": model.params}, extra)
        yield i, {**known[name], "trained": 0.0, "train_seconds": 0.0}


def carry_out(recipes: Sequence[Recipe], folder: Path, extra: Extra | None = None) -> Iterator[tuple[int, Numbers]]:
    """Make a run of each recipe and yield its scores, before and after, and what it forgot.

    Run folders lie in JAXFT_RUNS/trials under the recipe's digest: experiments that share a trial run it once.
    """
    from jaxft.runs import run

    for i, recipe in enumerate(recipes):
        summary = run(dataclasses.replace(recipe, out=str(settings.RUNS / "trials" / settings.digest(recipe))))
        numbers = {name: value for name, value in summary["after"].items() if isinstance(value, float)}
        numbers |= {f"before_{name}": value for name, value in summary["before"].items() if isinstance(value, float)}
        numbers |= {"train_seconds": summary["seconds"]["train"], "trained": float(summary["sizes"]["trainable"])}
        for task, own in (summary.get("tasks") or {}).items():
            numbers |= {f"{task}/{name}": value for name, value in own["after"].items()}
        yield i, numbers | forgotten(summary)


def forgotten(summary: Mapping[str, Any]) -> Numbers:
    """Return the numbers on forgetting of a run's summary; none if it measured none."""
    found, numbers = summary.get("forgetting") or {}, {}
    for name in ("average_forgetting", "backward_transfer"):
        if isinstance(found.get(name), (int, float)):
            numbers[name] = float(found[name])
    if found.get("kl_to_base"):
        numbers["kl_to_base"] = float(found["kl_to_base"]["value"])
    if found.get("text_loss"):
        numbers["text_loss_change"] = found["text_loss"]["after"]["value"] - found["text_loss"]["before"]["value"]
    changes = {name: float(probe["change"]["value"]) for name, probe in (found.get("probes") or {}).items()}
    losses = [changes[name] for name, probe in (found.get("probes") or {}).items() if probe.get("metric") == "loss"]
    numbers |= {f"probe_{name.replace('/', '_')}": change for name, change in changes.items()}
    return numbers | ({"probe_loss_change": sum(losses) / len(losses)} if losses else {})


def scores(recipe: Recipe, model: Model, variables: Any, extra: Extra | None = None) -> Numbers:
    """Return the loss and the scores on the test examples of a model with what a method's `bind` gave."""
    examples = test_examples(recipe, model)
    total_of = functools.partial(batch_losses, _LOADED[_name(recipe)][1], variables, {})
    loss = loss_scores(model, examples, recipe.train.batch_size, total_of)
    options = dataclasses.asdict(recipe.generate)
    by, key = recipe.evaluate.choices_by, jax.random.key(recipe.train.seed)
    given = answer(model, variables, examples, options, key=key, by=by)
    found = text_scores(recipe, examples, given, resamples=0)
    more = extra([one.text for one in given], [example.references for example in examples]) if extra else {}
    tasks = {f"{task}/{name}": value for task, own in found.tasks.items() for name, value in own.items()}
    return {"examples": len(examples), **loss.values, **found.values, **more, **(tasks if len(found.tasks) > 1 else {})}


_LOADED: dict[tuple, tuple[Model, Any, dict[str, list[Encoded]]]] = {}


def loaded(recipe: Recipe) -> Model:
    """Return a recipe's model; the last one loaded stays in memory, with its loss and the examples made for it."""
    if _name(recipe) not in _LOADED:
        _LOADED.clear()
        model = load_model(recipe)
        # What is differentiated does not matter to a loss: bound variables are its argument, whatever the method.
        bound = Method(lambda key, variables: (variables, {}), lambda variables, frozen: variables, {})
        _LOADED[_name(recipe)] = model, loss_step(model, bound), {}
    return _LOADED[_name(recipe)][0]


def test_examples(recipe: Recipe, model: Model) -> list[Encoded]:
    """Return the test examples of a recipe, encoded once."""
    known, data = _LOADED[_name(recipe)][2], json.dumps(dataclasses.asdict(recipe.data))
    if data not in known:
        known[data] = encode_rows(recipe, read_splits(recipe)["test"], model)[0]
    return known[data]


def _name(recipe: Recipe) -> tuple:
    return dataclasses.astuple(recipe.model)


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
