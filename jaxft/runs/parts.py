"""From a recipe to what a run works with: rows, model, method, encoded splits, batches and the step.

rows = read_rows(recipe)                 # what is wrong with the data shows before a model is fetched
model = load_model(recipe)
parts = make_parts(recipe, rows, model)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxft.data import Batches, Encoded, EncodeReport, Format, Rows, encode, evaluation_batches, render, splits
from jaxft.errors import UsageError
from jaxft.methods import Method, from_config
from jaxft.methods.prompt import tokenised
from jaxft.models import Model
from jaxft.recipe import Recipe, optimizer_config
from jaxft.training.loss import smoothed_cross_entropy, token_loss
from jaxft.training.optimizer import make_optimizer, make_schedule
from jaxft.training.sharding import make_mesh, shard, shard_batch, shardings
from jaxft.training.state import TrainState, init_state
from jaxft.training.step import train_step


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run works with. `state` is that of step 0; `examples` and `reports` are by split."""

    model: Model
    method: Method
    mesh: Any
    frozen: Any
    state: TrainState
    step: Any
    schedule: Any
    steps: int
    batches: Batches
    examples: Mapping[str, list[Encoded]]
    reports: Mapping[str, EncodeReport]
    key: jax.Array

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint has to agree with to be continued."""
        return {
            "model": fingerprint(self.model),
            "method": dict(self.method.config),
            "data": self.batches.plan_hash(0),
        }


def read_rows(recipe: Recipe) -> dict[str, Rows]:
    """Return the rows of each split, after rendering the first of each: UsageError names what does not fit."""
    data = recipe.data
    rows = splits(data.source, validation=data.validation, test=data.test, seed=data.seed, limit=data.limit)
    if "train" not in rows:
        raise UsageError(f"data.source: {data.source} has no train split, only {', '.join(rows)}: name its files")
    unknown = set(data.limit) - set(rows)
    if unknown:
        raise UsageError(f"data.limit: there is no split {sorted(unknown)[0]!r}; the data has {', '.join(rows)}")
    for part in rows.values():
        try:
            render(data_format(recipe), part[0])
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
    return rows


def data_format(recipe: Recipe) -> Format:
    """Return how the recipe turns a row into a prompt and a completion."""
    data = recipe.data
    return Format(prompt=data.prompt, completion=data.completion, chat=data.chat, system=data.system)


def mesh_of(recipe: Recipe) -> Any:
    """Return the recipe's mesh, or None for one device."""
    mesh = make_mesh(recipe.mesh.data or -1, recipe.mesh.fsdp)
    if mesh.size == 1:
        return None
    if recipe.train.batch_size % mesh.size:
        raise UsageError(
            f"train.batch_size: {recipe.train.batch_size} does not divide over {mesh.size} devices: "
            f"change it or mesh.data"
        )
    return mesh


def load_model(recipe: Recipe, mesh: Any = None) -> Model:
    """Load the recipe's base model with its numeric policy, each weight where the mesh has it."""
    from jaxft.pretrained import load

    dtype = None if recipe.model.dtype == "auto" else np.dtype(jax.numpy.dtype(recipe.model.dtype))
    put = None if mesh is None else lambda path, array: jax.device_put(array, shardings({path: array}, mesh)[path])
    model = load(recipe.model.source, dtype=dtype, put=put)
    if model.tokenizer is None:
        raise UsageError(f"model.source: {recipe.model.source} has no tokenizer: add its files to the directory")
    numerics = model.architecture.numerics._replace(remat=recipe.model.remat, unroll=recipe.model.unroll)
    return dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, numerics=numerics))


def make_parts(recipe: Recipe, rows: Mapping[str, Rows], model: Model, mesh: Any = None) -> Parts:
    """Return everything that a run of a resolved recipe works with."""
    train = recipe.train
    encoded = {name: encode_rows(recipe, part, model) for name, part in rows.items()}
    examples = {name: part for name, (part, _) in encoded.items()}
    options = _batch_options(model)
    batches = Batches(
        examples["train"], train.batch_size, seed=recipe.data.seed, num_buckets=recipe.data.buckets, **options
    )
    steps = train.steps or math.ceil(train.epochs * batches.steps_per_epoch)
    config = optimizer_config(recipe.optimizer, steps)
    optimizer = make_optimizer(config, steps)
    method = from_config(tokenised(recipe.method, model.tokenizer))
    init_key, key = jax.random.split(jax.random.key(train.seed))
    trainable, frozen = method.init(init_key, {"params": model.params})
    loss = token_loss(smoothed_cross_entropy(train.label_smoothing)) if train.label_smoothing else token_loss()
    return Parts(
        model=model,
        method=method,
        mesh=mesh,
        frozen=shard(frozen, mesh),
        state=shard(init_state(trainable, optimizer), mesh),
        step=train_step(model, method, optimizer, loss=loss, accumulate=train.accumulate, mesh=mesh),
        schedule=make_schedule(config, steps),
        steps=steps,
        batches=batches,
        examples=examples,
        reports={name: report for name, (_, report) in encoded.items()},
        key=key,
    )


def encode_rows(recipe: Recipe, rows: Rows, model: Model) -> tuple[list[Encoded], EncodeReport]:
    """Return a split's encoded examples and what was cut or left out."""
    data, config = recipe.data, model.config
    longest = config.max_length
    if data.max_length is not None and data.max_length > longest:
        raise UsageError(f"data.max_length: {data.max_length} is beyond the model's context of {longest}")
    return encode(
        rows,
        data_format(recipe),
        model.tokenizer,
        max_length=data.max_length or longest,
        max_prompt=data.max_prompt,
        max_completion=data.max_completion,
        encoder_decoder=hasattr(config, "decoder_start_token_id"),
        on_long=data.on_long,
        on_bad=data.on_bad,
        eos_token_ids=config.eos_token_ids,
    )


def in_order(model: Model, examples: Sequence[Encoded], batch_size: int) -> Batches:
    """Return the batches in which `examples` are evaluated."""
    return evaluation_batches(examples, batch_size, **_batch_options(model))


def placer(mesh: Any) -> Callable[[Any], Any] | None:
    """Return what puts a batch on the mesh's devices; None without a mesh."""
    return None if mesh is None else functools.partial(shard_batch, mesh=mesh)


def fingerprint(model: Model) -> str:
    """Return a digest of a model's configuration and of a few numbers of each of its weights."""
    digest = hashlib.sha256(repr(model.config).encode())
    for leaf in jax.tree.leaves(model.params):
        first = leaf[(0,) * (leaf.ndim - 1)][:16]
        digest.update(repr(leaf.shape).encode() + np.asarray(first, np.float32).tobytes())
    return digest.hexdigest()[:16]


def _batch_options(model: Model) -> dict[str, Any]:
    start = getattr(model.config, "decoder_start_token_id", None)
    return {"pad_token_id": model.config.pad_token_id, "decoder_start_token_id": start}
