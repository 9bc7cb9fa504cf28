"""What a recipe leaves open, filled in: the method's settings, and how its authors train it.

Learning rates differ by four orders of magnitude between methods, so no single default could serve. `null` in the
optimizer's section takes the method's published value, and the run folder's recipe.yaml holds what was taken. Papers
name several rates, by model and task; the one here is a place to start a sweep, not their last word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxft.errors import UsageError
from jaxft.recipe.fields import OptimizerRecipe, Recipe
from jaxft.recipe.schema import make_recipe, to_dict

if TYPE_CHECKING:
    from jaxft.training.optimizer import OptimizerConfig

_ADAM: dict[str, Any] = {
    **{"name": "adamw", "clip_norm": 1.0, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "lora_plus_ratio": 1.0},
    **{"schedule": "linear", "warmup": 0.02, "weight_decay": 0.0},
}
_ADAFACTOR = {**_ADAM, "name": "adafactor", "clip_norm": 0.0}

PUBLISHED = {
    # What Hugging Face's trainer starts from; the papers' own lie between 1e-5 (7B and more) and 1e-3 (T5, Adafactor).
    "full": OptimizerRecipe(**_ADAM | {"learning_rate": 5e-5}),
    # BitFit, Zaken et al. 2021, arXiv:2106.10199: the best of 1e-4 to 1e-3.
    "selective": OptimizerRecipe(**_ADAM | {"learning_rate": 1e-3}),
    # Hu et al. 2021, arXiv:2106.09685, tables 11 and 18: 500 steps of warm-up in some 26,000, decay 0.01.
    "lora": OptimizerRecipe(**_ADAM | {"learning_rate": 2e-4, "weight_decay": 0.01}),
    # Liu et al. 2024, arXiv:2402.09353, LLaMA-7B.
    "dora": OptimizerRecipe(**_ADAM | {"learning_rate": 2e-4}),
    # Meng et al. 2024, arXiv:2404.02948, LLaMA-2-7B.
    "pissa": OptimizerRecipe(**_ADAM | {"learning_rate": 2e-5, "schedule": "cosine", "warmup": 0.03}),
    # Kopiczko et al. 2024, arXiv:2310.11454, instruction tuning.
    "vera": OptimizerRecipe(**_ADAM | {"learning_rate": 4e-3, "schedule": "cosine", "warmup": 0.1}),
    # Houlsby et al. 2019, arXiv:1902.00751: the best of 3e-5, 3e-4 and 3e-3, warm-up over a tenth.
    "adapter": OptimizerRecipe(**_ADAM | {"learning_rate": 3e-4, "warmup": 0.1}),
    # Lester et al. 2021, arXiv:2104.08691: without parameter scaling.
    "prompt": OptimizerRecipe(
        **_ADAFACTOR | {"learning_rate": 0.3, "schedule": "constant", "warmup": 0, "weight_decay": 1e-5}
    ),
    # Li & Liang 2021, arXiv:2101.00190, GPT-2.
    "prefix": OptimizerRecipe(**_ADAM | {"learning_rate": 5e-5, "warmup": 0}),
    # Liu et al. 2022, arXiv:2205.05638: 60 steps of warm-up in 1,000.
    "ia3": OptimizerRecipe(**_ADAFACTOR | {"learning_rate": 3e-3, "warmup": 0.06}),
}


def published_optimizer(method: Mapping[str, Any]) -> OptimizerRecipe:
    """Return how the authors of a method's config train it; of a union, its first member."""
    return published_optimizer(method["methods"][0]) if "methods" in method else PUBLISHED[method["name"]]


def resolve(recipe: Recipe, name: str = "recipe") -> Recipe:
    """Return the recipe validated and with nothing left open: every setting of the method and of its optimizer.

    Raises UsageError for unknown methods, settings and metrics, for settings of generation that exclude each other, and
    for full tuning of a quantised model.
    """
    from jaxft.evaluation.metrics import check_metrics
    from jaxft.generation import Sampling
    from jaxft.generation.sampling import check as check_sampling
    from jaxft.methods import from_config

    recipe = make_recipe(to_dict(recipe), name=name)
    check_metrics(recipe.evaluate.metrics)
    check_sampling(Sampling(**{name: getattr(recipe.generate, name) for name in Sampling._fields}))
    method = dict(from_config(recipe.method).config)
    if recipe.model.quantize and method["name"] == "full":
        raise UsageError("model.quantize: quantised weights are frozen; set method.name=lora, or leave quantize out")
    if recipe.data.packing and "prompt" in _names(method):
        raise UsageError("data.packing: a soft prompt stands before a row, which holds several examples; turn it off")
    chosen = {key: value for key, value in dataclasses.asdict(recipe.optimizer).items() if value is not None}
    optimizer = OptimizerRecipe(**(dataclasses.asdict(published_optimizer(method)) | chosen))
    return make_recipe(to_dict(dataclasses.replace(recipe, method=method, optimizer=optimizer)), name=name)


def _names(method: Mapping[str, Any]) -> set[str]:
    return {method["name"]}.union(*(_names(member) for member in method.get("methods", ())))


def optimizer_config(optimizer: OptimizerRecipe, steps: int) -> OptimizerConfig:
    """Return the settings of a resolved recipe's optimizer for a run of `steps`."""
    from jaxft.training.optimizer import OptimizerConfig

    settings = dataclasses.asdict(optimizer)
    warmup = settings.pop("warmup")
    settings["warmup_steps"] = warmup if isinstance(warmup, int) else round(warmup * steps)
    return OptimizerConfig(**(settings | {"clip_norm": optimizer.clip_norm or None}))
