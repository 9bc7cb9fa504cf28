"""From a recipe to what a run works with: rows, model, method, encoded splits, batches and the step.

rows = read_rows(recipe)                 # what is wrong with the data shows before a model is fetched
model = load_model(recipe)
parts = make_parts(recipe, rows, model)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxft.data import Batches, Encoded, EncodeReport, Format, Rows, encode, evaluation_batches, render, splits
from jaxft.data.buckets import Shape
from jaxft.errors import UsageError, nearest
from jaxft.methods import Method, from_config
from jaxft.methods.method import fresh
from jaxft.methods.prompt import tokenised
from jaxft.models import Model
from jaxft.recipe import Recipe, optimizer_config
from jaxft.runs.replay import read_replay, with_replay
from jaxft.runs.tasks import TaskRows, encode_tasks, merged, mixture_of, read_tasks
from jaxft.training.anchors import Anchored
from jaxft.training.loss import smoothed_cross_entropy, token_loss
from jaxft.training.optimizer import make_optimizer, make_schedule
from jaxft.training.sharding import make_mesh, shard, shard_batch, shardings
from jaxft.training.state import TrainState, init_state
from jaxft.training.step import train_step

AnyRows = Rows | TaskRows  # of one split: rows, or the tasks that have it


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run works with. `state` is that of step 0; `examples` and `reports` are by split.

    The step takes `anchors`: what the method froze (`frozen`) and what the penalties against forgetting hold on to.
    """

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
    task_reports: Mapping[str, Mapping[str, EncodeReport]]  # by split and task; empty without tasks
    key: jax.Array
    anchors: Anchored

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint has to agree with to be continued."""
        return {
            "model": fingerprint(self.model),
            "method": dict(self.method.config),
            "data": self.batches.plan_hash(0),
        }


def read_splits(recipe: Recipe) -> Mapping[str, AnyRows]:
    """Return the rows, or the tasks, of each split that there is."""
    data = recipe.data
    if data.tasks:
        return read_tasks(recipe)
    assert data.source is not None  # a recipe has tasks or a source
    return splits(data.source, validation=data.validation, test=data.test, seed=data.seed, limit=data.limit)


def read_split(recipe: Recipe, split: str) -> AnyRows:
    """Return the rows, or the tasks, of one split; UsageError for one that the data lacks."""
    rows = read_splits(recipe)
    if split not in rows:
        raise UsageError(f"--split: the data has no split {split!r}{nearest(split, rows)}")
    return rows[split]


def read_rows(recipe: Recipe) -> Mapping[str, AnyRows]:
    """Return `read_splits`, after rendering the first row of each: UsageError names what does not fit.

    Training needs a train split.
    """
    data, rows = recipe.data, read_splits(recipe)
    if "train" not in rows and data.tasks:
        raise UsageError("data.tasks: all of them are for evaluation only: name one to learn from")
    if "train" not in rows:
        raise UsageError(f"data.source: {data.source} has no train split, only {', '.join(rows)}: name its files")
    unknown = set(data.limit) - set(rows)
    if unknown:
        raise UsageError(f"data.limit: there is no split {sorted(unknown)[0]!r}; the data has {', '.join(rows)}")
    train = rows["train"]
    read_replay(recipe, train if isinstance(train, TaskRows) else None)
    for part in rows.values():
        if isinstance(part, TaskRows):
            continue  # `read_tasks` has done it
        try:
            render(data_format(recipe), part[0])
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
    return rows


def data_format(recipe: Recipe) -> Format:
    """Return how the recipe turns a row into a prompt and a completion."""
    data = recipe.data
    assert data.prompt is not None and data.completion is not None  # a recipe has them or tasks
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
    model = load(recipe.model.source, dtype=dtype, put=put, quantize=recipe.model.quantize)
    if model.tokenizer is None:
        raise UsageError(f"model.source: {recipe.model.source} has no tokenizer: add its files to the directory")
    numerics = model.architecture.numerics._replace(remat=recipe.model.remat, unroll=recipe.model.unroll)
    return dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, numerics=numerics))


def make_parts(recipe: Recipe, rows: Mapping[str, AnyRows], model: Model, mesh: Any = None) -> Parts:
    """Return everything that a run of a resolved recipe works with."""
    train = recipe.train
    encoded = {name: _encoded(recipe, part, model, name == "train") for name, part in rows.items()}
    examples = {name: part for name, (part, _, _) in encoded.items()}
    batches = training_batches(recipe, rows["train"], examples["train"], model)
    steps = train.steps or batches.steps(train.epochs)
    config = optimizer_config(recipe.optimizer, steps)
    optimizer = make_optimizer(config, steps)
    method = from_config(tokenised(recipe.method, model.tokenizer))
    init_key, key = jax.random.split(jax.random.key(train.seed))
    trainable, frozen = _begin(recipe, method, model, init_key)
    anchors = _anchors(recipe, method, model, trainable, frozen, mesh)
    loss = token_loss(smoothed_cross_entropy(train.label_smoothing)) if train.label_smoothing else token_loss()
    return Parts(
        model=model,
        method=method,
        mesh=mesh,
        frozen=anchors.frozen,
        state=shard(init_state(trainable, optimizer), mesh),
        step=train_step(
            model,
            method,
            optimizer,
            loss=loss,
            accumulate=train.accumulate,
            mesh=mesh,
            tasks=len(batches.tasks),
            kl_to_base=train.kl_to_base,
            l2_to_base=train.l2_to_base,
        ),
        schedule=make_schedule(config, steps),
        steps=steps,
        batches=batches,
        examples=examples,
        reports={name: report for name, (_, report, _) in encoded.items()},
        task_reports={name: reports for name, (_, _, reports) in encoded.items() if reports},
        key=key,
        anchors=anchors,
    )


def _begin(recipe: Recipe, method: Method, model: Model, key: jax.Array) -> tuple[Any, Any]:
    if recipe.train.start is None:
        return method.init(key, {"params": model.params})
    from jaxft.methods.peft import load_adapter

    found, trainable, frozen = load_adapter(recipe.train.start, model)
    if dict(found.config) != dict(method.config):
        raise UsageError(f"train.start: {recipe.train.start} holds {dict(found.config)}, the recipe's method is "
                         f"{dict(method.config)}: make them the same")  # fmt: skip
    return jax.tree.map(fresh, trainable), frozen


def _anchors(recipe: Recipe, method: Method, model: Model, trainable: Any, frozen: Any, mesh: Any) -> Anchored:
    start = None
    if recipe.train.l2_to_base:
        # Full tuning starts at the base, which is kept anyway; the state, which is donated, never shares an array.
        at_base = method.config["name"] == "full" and recipe.train.start is None
        start = model.params if at_base else shard(jax.tree.map(fresh, trainable), mesh)
    base = {"params": model.params} if recipe.train.kl_to_base else None
    return Anchored(shard(frozen, mesh), base, start)


def training_batches(recipe: Recipe, rows: AnyRows, examples: Sequence[Encoded], model: Model) -> Batches:
    """Return the batches that a recipe is trained on: shuffled, mixed where there are tasks, packed if asked."""
    data, mixture = recipe.data, None
    if isinstance(rows, TaskRows):
        mixture = mixture_of(recipe, rows, examples)
    replay = read_replay(recipe, rows if isinstance(rows, TaskRows) else None)
    if replay is not None:
        examples, mixture = with_replay(recipe, replay, examples, mixture, model, _encode_options(recipe, model))
    return Batches(
        examples,
        recipe.train.batch_size,
        seed=data.seed,
        num_buckets=data.buckets,
        mixture=mixture,
        packing=data.packing,
        row_length=data.max_length,
        tasks=tuple(mixture.counts) if mixture else (),
        **_batch_options(model),
    )


def encode_rows(recipe: Recipe, rows: AnyRows, model: Model, train: bool = False) -> tuple[list[Encoded], EncodeReport]:
    """Return a split's encoded examples and what was cut or left out; of rows to `train` on, repeats too."""
    return _encoded(recipe, rows, model, train)[:2]


def _encoded(
    recipe: Recipe, rows: AnyRows, model: Model, train: bool
) -> tuple[list[Encoded], EncodeReport, dict[str, EncodeReport]]:
    options = _encode_options(recipe, model)
    options["deduplicate"] = recipe.data.deduplicate if train else None
    if isinstance(rows, TaskRows):
        examples, reports = encode_tasks(recipe, rows, model, options)
        return examples, merged(reports), reports
    examples, report = encode(rows, data_format(recipe), model.tokenizer, **options)
    return examples, report, {}


def _encode_options(recipe: Recipe, model: Model) -> dict[str, Any]:
    data, config = recipe.data, model.config
    longest = config.max_length
    if data.max_length is not None and data.max_length > longest:
        raise UsageError(f"data.max_length: {data.max_length} is beyond the model's context of {longest}")
    return {
        "max_length": data.max_length or longest,
        "max_prompt": data.max_prompt,
        "max_completion": data.max_completion,
        "encoder_decoder": hasattr(config, "decoder_start_token_id"),
        "on_long": data.on_long,
        "on_bad": data.on_bad,
        "eos_token_ids": config.eos_token_ids,
    }


def in_order(
    model: Model, examples: Sequence[Encoded], batch_size: int, shapes: Sequence[Shape] | None = None
) -> Batches:
    """Return the batches in which `examples` are evaluated, of given shapes or those that fit them best."""
    return evaluation_batches(examples, batch_size, shapes=shapes, **_batch_options(model))


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
