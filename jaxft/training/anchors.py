"""What training is held back by: the base model, and the trainable tree that it began with.

Two penalties against forgetting, added to the mean token loss:

- `kl_to_base`: coefficient x mean over the batch's target tokens of KL(base || tuned), the frozen model's distribution
  against the tuned one's (Hinton et al. 2015, arXiv:1503.02531, with the model before tuning as the teacher; Li & Hoiem
  2016, arXiv:1606.09282);
- `l2_to_base`: coefficient / 2 x the squared distance of the trainable tree from its start, so that its gradient is
  coefficient x (theta - theta_0) (L2-SP: Li et al. 2018, arXiv:1802.01483). It is part of the gradient, not decoupled:
  clipping and moments see it.

Both need arrays that are no part of the train state. They come beside what the method froze, as arguments of the step:

    step = train_step(model, method, optimizer, kl_to_base=0.1)
    state, metrics = step(state, Anchored(frozen, base={"params": model.params}), batch, key)

The base's arrays are those that the method froze already, so a parameter-efficient method pays nothing for them but
the second forward pass. Full tuning keeps the base's weights beside its own; the start is a copy of the trainable tree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from jaxft.errors import UsageError


class Anchored(NamedTuple):
    """What a method froze, the base's variables (for `kl_to_base`) and the first trainable tree (for `l2_to_base`)."""

    frozen: Any
    base: Any = None
    start: Any = None


def anchored(frozen: Any, kl_to_base: float, l2_to_base: float, banked: bool = False) -> Anchored:
    """Return `frozen` as anchors; raise `UsageError` where a penalty has nothing to hold on to."""
    anchors = frozen if isinstance(frozen, Anchored) else Anchored(frozen)
    for name, coefficient, anchor in (
        ("kl_to_base", kl_to_base, anchors.base),
        ("l2_to_base", l2_to_base, anchors.start),
    ):
        if coefficient and banked:
            raise UsageError(f"{name}: the members of a bank have no base of their own; train them one by one")
        if coefficient and anchor is None:
            field = "base={'params': model.params}" if name == "kl_to_base" else "start=the first trainable tree"
            raise UsageError(f"{name}: there is no base to keep to: give the step Anchored(frozen, {field})")
    return anchors


def distance(trainable: Any, start: Any) -> tuple[Any, jax.Array]:
    """Return `theta - theta_0`, leaf by leaf, and half its squared norm."""
    moved = jax.tree.map(lambda leaf, first: leaf - first.astype(leaf.dtype), trainable, start)
    return moved, optax.tree.norm(moved, squared=True) / 2
