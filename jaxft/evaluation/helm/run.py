"""HELM's seven of a recipe's model on a split of its data: `jaxft evaluate MODEL RECIPE --helm`.

One report for each task: a number over several tasks would be of none. Robustness and fairness ask the model once for
each perturbation and each example that it changes, so nine perturbations cost up to nine evaluations more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxft.data import Encoded, Rows
from jaxft.data.grouping import by_task
from jaxft.evaluation.answers import Answers, check_answers
from jaxft.evaluation.helm.accuracy import helm_name
from jaxft.evaluation.helm.perturbations import DEFAULT, check_perturbations
from jaxft.evaluation.helm.seven import seven
from jaxft.evaluation.helm.toxicity import checked, load_scorer
from jaxft.evaluation.helm.versions import perturbed_examples
from jaxft.evaluation.helm.words import load_words
from jaxft.evaluation.resampling import RESAMPLES
from jaxft.methods.peft import adapted
from jaxft.recipe import Recipe, resolve
from jaxft.runs.evaluating import identity
from jaxft.runs.folder import make_folder
from jaxft.runs.parts import encode_rows, fingerprint, load_model, read_split
from jaxft.training.journal import write_json


def helm_options(arguments: Any) -> dict[str, Any]:
    """Return what the command line's flags say to `helm_report`."""
    options = {name: getattr(arguments, name) for name in ("toxicity", "words", "answers", "out")}
    if arguments.perturbations is not None:
        options["perturbations"] = [name.strip() for name in arguments.perturbations.split(",") if name.strip()]
    return options


def helm_report(
    recipe: Recipe,
    adapter: str | None = None,
    split: str = "test",
    *,
    perturbations: Sequence[str] = DEFAULT,
    toxicity: str | None = None,
    words: str | None = None,
    requests: int = 16,
    answers: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Return HELM's seven of a recipe's model, with an adapter if one is given, on a split of its data.

    toxicity: `module:function` or a classifier's directory. words: a file of word lists in place of ours. answers: a
    file that keeps what the model answers, to go on after a stop. out: a folder for what is returned, helm.json.
    Several tasks come as `{"tasks": {name: report}}`. Raises UsageError for what is wrong with any of these before the
    model is loaded.
    """
    recipe = resolve(recipe)
    check_perturbations(perturbations)
    lists, scorer = load_words(words), load_scorer(toxicity) if toxicity else None
    if scorer is not None:
        checked(scorer, ["One text.", "And another one."])
    rows = read_split(recipe, split)
    folder = None if out is None else make_folder(out, "--out")
    check_answers(answers, identity(recipe, adapter))
    model = load_model(recipe)
    method, trainable, frozen = adapted(model, adapter)
    variables = method.bind(trainable, frozen)
    examples, _ = encode_rows(recipe, rows, model)
    # A perturbed prompt may be a little longer than its original: what no longer fits is left out, and n says so.
    lenient = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, on_long=_lenient(recipe)))

    def encode(changed: Any) -> list[Encoded]:
        return encode_rows(lenient, changed, model)[0]

    settings: dict[str, Any] = dataclasses.asdict(recipe.generate)
    who = {**identity(recipe, adapter), "weights": fingerprint(model), "generate": settings, "helm": 1}
    versions = perturbed_examples(rows, examples, encode, recipe.data.prompt, perturbations, seed=seed, words=lists)
    with Answers(answers, who) as kept:
        options: dict[str, Any] = {
            "settings": settings, "scorer": scorer, "words": lists, "requests": requests, "answers": kept,
            "key": jax.random.key(recipe.train.seed), "resamples": resamples, "seed": seed,
        }  # fmt: skip
        found = {}
        for name, places in _parts(rows, examples).items():
            some = [examples[i] for i in places]
            own = {kind: [made[i] for i in places] for kind, made in versions.items()}
            metrics = None if some[0].metrics else _metrics(recipe)
            found[name] = seven(model, variables, some, versions=own, metrics=metrics, **options).to_dict()
    about = {"model": recipe.model.source, "adapter": adapter, "split": split}
    report = {**about, **(next(iter(found.values())) if len(found) == 1 else {"tasks": found})}
    if folder is not None:
        write_json(folder / "helm.json", report)
    return report


def _parts(rows: Any, examples: Sequence[Encoded]) -> Mapping[str, Sequence[int]]:
    return {"": range(len(examples))} if isinstance(rows, Rows) else by_task(examples)


def _metrics(recipe: Recipe) -> list[str] | None:
    return [name for name in map(helm_name, recipe.evaluate.metrics) if name] or None


def _lenient(recipe: Recipe) -> Any:
    return "skip" if recipe.data.on_long == "error" else recipe.data.on_long
