"""What an experiment needs before it starts: its data, and memory on this device; and what hardware this is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import settings

from jaxft.errors import UsageError
from jaxft.recipe import Recipe, optimizer_config

COMPILE_FROM = 0.02  # of free memory: where weights, moments and gradients are less, activations are not counted


def check_data(name: str, size: str, recipes: Mapping[Any, Recipe]) -> None:
    """Raise UsageError, saying where data belong, if an experiment's data are not there."""
    for recipe in recipes.values():
        source = recipe.data.source
        for one in source.values() if isinstance(source, dict) else [source or recipe.data.root or ""]:
            inside = one.startswith(str(settings.DATA))
            missing = inside and not (Path(one).exists() or Path(f"{one}.jsonl.gz").exists())
            if missing:
                raise UsageError(f"{name} --size={size} needs {one}, which is not there: set JAXFT_DATA to the folder "
                                 "of the data sets (experiments/README.md), or take --size=smoke")  # fmt: skip


def check_fit(name: str, size: str, recipes: Mapping[Any, Recipe]) -> None:
    """Raise UsageError, with the memory that is needed, if one of these recipes does not fit this device."""
    from jaxft.sweep.memory import free_bytes

    free, known = free_bytes(), dict(_distinct(recipes))
    held = {arm: held_bytes(recipe) for (arm, _), recipe in known.items()}
    if not held:
        return
    arm, words = max(held, key=lambda arm: held[arm]), "at least"
    if COMPILE_FROM * free <= held[arm] <= free:
        held = {arm: step_bytes(recipe) for (arm, _), recipe in known.items()}
        arm, words = max(held, key=lambda arm: held[arm]), "about"
    if held[arm] > free:
        recipe = next(recipe for (one, _), recipe in known.items() if one == arm)
        raise UsageError(f"{name} --size={size}: the arm {arm!r} on {recipe.model.source} needs {words} "
                         f"{held[arm] / 1e9:.1f} GB in batches of {recipe.train.batch_size}, and {free / 1e9:.1f} GB "
                         "are free on this device: take --size=small, a smaller --train.batch_size, "
                         "--train.accumulate, or a larger device")  # fmt: skip


def _distinct(recipes: Mapping[Any, Recipe]):
    seen = set()
    for key, recipe in recipes.items():
        what = repr((recipe.model, recipe.method, recipe.train.batch_size))
        if what not in seen:
            seen.add(what)
            yield key, recipe


def held_bytes(recipe: Recipe) -> int:
    """Return the bytes of weights, what is trained, gradients and moments; from shapes, nothing is compiled."""
    from jaxft.runs.sizes import sizes

    return sizes(shapes(recipe), _method(recipe), optimizer_config(recipe.optimizer, recipe.train.steps or 1000)).bytes


def step_bytes(recipe: Recipe) -> int:
    """Return the bytes that a step of training holds, activations as the compiler counts them."""
    from jaxft.models import T5Config
    from jaxft.runs.needs import abstract_batch, need

    model = shapes(recipe)
    rows = recipe.train.batch_size // recipe.train.accumulate
    longest = min(recipe.data.max_length or 512, model.config.max_length)
    prompt, completion = recipe.data.max_prompt or longest, recipe.data.max_completion or longest
    length = completion if isinstance(model.config, T5Config) else min(prompt + completion, longest)
    optimizer = optimizer_config(recipe.optimizer, recipe.train.steps or 1000)
    return need(model, _method(recipe), optimizer, abstract_batch(model.config, rows, length, prompt)).bytes


def _method(recipe: Recipe) -> dict[str, Any]:
    method = dict(recipe.method)
    if isinstance(method.get("initialise"), Mapping):
        method["initialise"] = "vocabulary"  # of the same shape, and no tokenizer is needed
    return method


def shapes(recipe: Recipe) -> Any:
    """Return a recipe's model with shapes in place of weights. T5 1.1's are known here: the hub is not asked."""
    import jax

    from jaxft.models import T5, Model, T5Config
    from jaxft.models.stack import Numerics
    from jaxft.pretrained.peeking import peek
    from jaxft.pretrained.weights import default_dtype

    source = recipe.model.source
    if source in settings.KNOWN:
        width, mlp, layers, heads = settings.KNOWN[source]
        config = T5Config("t5", 32128, layers, layers, width, heads, 64, mlp, gated=True, activation="gelu_new")
        dtype = jax.numpy.dtype(default_dtype())
        architecture = T5(config, Numerics(dtype=dtype, remat=recipe.model.remat))
        params = jax.eval_shape(lambda key: architecture.init(key, dtype), jax.random.key(0))
        return Model(architecture, params, None, source)
    return peek(source).abstract(remat=recipe.model.remat)


def hardware() -> dict[str, Any]:
    """Return what a results file says of where its numbers are from."""
    import os
    import platform

    import jax

    try:
        asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout
    except OSError:
        commit = ""
    device = jax.devices()[0]
    kind = f"{os.cpu_count()} CPU cores, {platform.machine()}" if device.platform == "cpu" else device.device_kind
    return {
        "command": " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit.strip(),
        "hardware": kind,
        "versions": {"jax": jax.__version__},
    }
