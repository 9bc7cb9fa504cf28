"""Selective tuning: some of the base's own weights are trained, the rest stays (BitFit: Zaken et al. 2021,
arXiv:2106.10199; norms alone: Zhao et al. 2024, arXiv:2312.11420)."""

from __future__ import annotations

from jaxft.errors import UsageError
from jaxft.methods.method import Method, bound, fresh, refuse_quantised, whole_number
from jaxft.methods.targets import Targets, find_leaves, listed
from jaxft.methods.trees import is_last, nest, split_last, without


def selective(targets: Targets = "norms", last: int | None = None) -> Method:
    """Train the chosen weights.

    Args:
        targets: "norms", "bitfit" (biases and norms), "embeddings", "head", "attention", "mlp", "layers", a name such
            as "o", a regular expression over paths such as `layers/attention/q/kernel`, or a list of these.
        last: Only in that many last layers (the decoder's, in an encoder-decoder); those before them get no backward
            pass. Weights outside the layers are then left alone.

    Raises `UsageError` for targets that match nothing, "bitfit" on a model without biases, "head" on a tied one, and
    kernels of a quantised base.
    """
    if last is not None:
        whole_number(last, "last")

    def init(key, variables):
        params = variables["params"] if last is None else split_last(variables["params"], last)
        leaves = find_leaves(params, targets)
        if last is not None:
            leaves = {path: leaf for path, leaf in leaves.items() if is_last(path, params, last)}
        if not leaves:
            raise UsageError(f"targets: {targets!r} matches no weight in the last {last} layers; use 'layers'")
        refuse_quantised(leaves, "choose 'norms', tune it with lora, or load the model without quantize")
        trainable = nest({path: fresh(leaf) for path, leaf in leaves.items()})
        return trainable, {**variables, "params": without(params, leaves)}

    def bind(trainable, frozen):
        return bound(frozen, params=trainable)

    return Method(init, bind, {"name": "selective", "targets": listed(targets), "last": last})
