"""Optimizers and schedules, from optax."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import optax

from jaxft.errors import UsageError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the trainable tree is updated; rates are per step."""

    name: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = 2e-4
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    lora_plus_ratio: float = 1.0


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Return `step -> learning rate`: linear warm-up from 0, then constant, or down to 0 at `total_steps`."""
    if config.warmup_steps >= total_steps > 0 and config.warmup_steps:
        raise UsageError(f"warmup_steps: {config.warmup_steps} leaves none of the {total_steps} steps; lower it")
    decay_steps = max(1, total_steps - config.warmup_steps)
    decay = {
        "constant": optax.constant_schedule(config.learning_rate),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, decay_steps),
    }[config.schedule]
    if not config.warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Return the optimizer of the trainable tree: clipping by global norm, then AdamW or Adafactor.

    Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) runs without parameter scaling, as prompt tuning uses it.
    Weight decay spares norms and biases. With `lora_plus_ratio` LoRA's `b` moves that many times as far as the rest,
    its decay included (LoRA+, Hayou et al. 2024, arXiv:2402.12354).
    """
    schedule = make_schedule(config, total_steps)
    if config.name == "adamw":
        update = optax.adamw(
            schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=_decayed
        )
    else:
        update = optax.adafactor(
            schedule,
            multiply_by_parameter_scale=False,
            weight_decay_rate=config.weight_decay or None,
            weight_decay_mask=_decayed,
        )
    steps = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    steps.append(update)
    if config.lora_plus_ratio != 1:
        steps.append(optax.stateless(lambda updates, _: _scale_b(updates, config.lora_plus_ratio)))
    return optax.chain(*steps) if len(steps) > 1 else update


def _scale_b(updates, ratio):
    def scaled(path, update):
        return update * ratio if getattr(path[-1], "key", None) == "b" else update

    return jax.tree_util.tree_map_with_path(scaled, updates)


def _decayed(tree: Any) -> Any:
    def is_decayed(path, _):
        return getattr(path[-1], "key", None) not in ("scale", "bias", "relative_bias")

    return jax.tree_util.tree_map_with_path(is_decayed, tree)
