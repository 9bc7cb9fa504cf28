"""Adapters: a narrow two-layer network after a sublayer, or beside it.

h + up(act(down h))          after every attention and feed-forward: Houlsby et al. 2019, arXiv:1902.00751
                             after the feed-forward alone: Pfeiffer et al. 2021, arXiv:2005.00247
h + s up(act(down x))        beside the feed-forward, from its input: He et al. 2022, arXiv:2110.04366
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest
from jaxft.methods.method import Method, bound, whole_number
from jaxft.methods.trees import flatten, nest
from jaxft.models.layers import ACTIVATIONS

PLACES = {
    "houlsby": ("serial", ("attention", "cross_attention", "mlp")),
    "pfeiffer": ("serial", ("mlp",)),
    "parallel": ("parallel", ("mlp",)),
}


def adapter(width: int = 64, place: str = "houlsby", activation: str = "gelu", scale: float = 1.0) -> Method:
    """Train `down` `[n, D, width]` and `up` `[n, width, D]` with their biases in every layer.

    Args:
        width: The bottleneck's width.
        place: "houlsby", "pfeiffer" or "parallel".
        activation: Between the two: "gelu", "relu", "silu" or "gelu_new".
        scale: What the adapter adds is multiplied by this; 4 for parallel adapters in He et al.

    `up` starts at zero, so that training starts from the base exactly. Raises `UsageError` for unknown settings and a
    width below 1.
    """
    whole_number(width, "width")
    for field, value, known in (("place", place, PLACES), ("activation", activation, ACTIVATIONS)):
        if value not in known:
            raise UsageError(f"method.{field}: unknown {field} {value!r}{nearest(str(value), known)}")
    kind, sublayers = PLACES[place]

    def init(key, variables):
        leaves = {}
        for path, norm in flatten(variables["params"]).items():
            sublayer = str(path[-2]).removesuffix("_norm") if len(path) > 1 else ""
            if "layers" not in path or sublayer not in sublayers or path[-1] != "scale":
                continue
            key, own = jax.random.split(key)
            size, model_width = norm.shape
            at = (*path[:-2], f"{sublayer}_adapter")
            leaves[(*at, "down", "kernel")] = 0.02 * jax.random.normal(own, (size, model_width, width))
            leaves[(*at, "down", "bias")] = jnp.zeros((size, width))
            leaves[(*at, "up", "kernel")] = jnp.zeros((size, width, model_width))
            leaves[(*at, "up", "bias")] = jnp.zeros((size, model_width))
        return nest(leaves), dict(variables)

    def bind(trainable, frozen):
        placed = {}
        for path, leaf in flatten(trainable).items():
            # The path tells the model what to do with the leaves: it knows no setting.
            placed[(*path[:-2], kind, activation, *path[-2:])] = leaf * scale if path[-2] == "up" else leaf
        return bound(frozen, adapter=nest(placed))

    config = {"name": "adapter", "width": width, "place": place, "activation": activation, "scale": scale}
    return Method(init, bind, config)
