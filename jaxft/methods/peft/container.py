"""Our own type of adapter, for what PEFT cannot express: every leaf of the trainable tree under its own path.

    trainable/layers/0/mlp_adapter/down/kernel
    frozen/union/0/pissa/layers/0/attention/q/a       # what a method keeps and does not train; never the base

The method's settings are in `adapter_config.json`. PEFT refuses such a file, whose `peft_type` it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import Error
from jaxft.methods import Method, from_config, trees
from jaxft.methods.peft.files import check_tensors
from jaxft.models import Model
from jaxft.pretrained.safetensors_file import SafetensorsFile

TYPE = "JAXFT"


def write(method: Method, trainable: Any, own: Mapping[str, Any]) -> tuple[dict, dict]:
    """Return the settings and tensors of an adapter."""
    leaves = trees.flatten({"trainable": trainable, "frozen": own})
    tensors = {_name(path): np.asarray(leaf, order="C") for path, leaf in leaves.items()}
    return {"peft_type": TYPE, "method": dict(method.config)}, tensors


def read(config: Mapping[str, Any], where: Path, file: SafetensorsFile, model: Model) -> tuple[Method, Any, Any]:
    """Return the method, its trainable tree and what it keeps; `Error` lists the tensors that are not what it makes."""
    if not isinstance(config.get("method"), Mapping):
        raise Error(f"{where}: names no method; it was cut short or written by hand")
    method = from_config(config["method"])
    trainable, frozen = jax.eval_shape(method.init, jax.random.key(0), {"params": model.params})
    tree = {"trainable": trainable, "frozen": {name: kept for name, kept in frozen.items() if name != "params"}}
    shapes = trees.flatten(tree)
    check_tensors(file, {_name(path): leaf.shape for path, leaf in shapes.items()}, model)
    leaves = {path: jnp.asarray(file.read(_name(path)), leaf.dtype) for path, leaf in shapes.items()}
    tree = trees.refilled(tree, leaves)
    return method, tree["trainable"], tree["frozen"]


def _name(path: trees.Path) -> str:
    return "/".join(map(str, path))
