"""Read an adapter's files, ours or PEFT's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest
from jaxft.methods import Method, from_config, full, trees
from jaxft.methods.peft import container, ia3, lora, norms, prefix, prompt, vera
from jaxft.methods.peft.files import CONFIG, OURS, WEIGHTS, base_of, check_base
from jaxft.methods.peft.saving import WRITERS, in_peft
from jaxft.models import Model
from jaxft.pretrained import config as configs
from jaxft.pretrained.safetensors_file import SafetensorsFile, open_folder
from jaxft.pretrained.weights import read_params

# (PEFT's settings, where they are, tensors, model) -> our settings, the trainable tree, what the method keeps.
READERS: dict[str, Any] = {
    "LORA": lora.read,
    "VERA": vera.read,
    "IA3": ia3.read,
    "LN_TUNING": norms.read,
    "PROMPT_TUNING": prompt.read,
    "P_TUNING": prompt.read,
    "PREFIX_TUNING": prefix.read,
    container.TYPE: container.read,
}


def load_adapter(directory: Path | str, model: Model) -> tuple[Method, Any, Any]:
    """Return `(method, trainable, frozen)` as they were saved, by jaxft or by PEFT.

    Raises `UsageError` for a directory without an adapter, for one of another base model and for what PEFT has and
    jaxft has not; `Error` for a broken file and for tensors that are missing, unknown or of another shape.
    """
    folder = Path(directory)
    if not (folder / CONFIG).is_file():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder}: neither {CONFIG} nor a model's config.json, so there is nothing to load")
        return _load_full(folder, model)
    config = configs.read_json(folder / CONFIG)
    ours = configs.read_json(folder / OURS) if (folder / OURS).is_file() else {}
    if "base" in ours:
        check_base(ours["base"], model, folder)
    kind = config.get("peft_type")
    if kind not in READERS:
        raise UsageError(f"{folder / CONFIG}: peft_type {kind!r} is not supported{nearest(str(kind), READERS)}")
    method, trainable, own = READERS[kind](config, folder / CONFIG, _open(folder), model)
    if kind != container.TYPE:
        found = from_config(method), trainable, own
        method, trainable, own = _as_saved(ours.get("method"), config, found, model) or found
    return method, trainable, _frozen(method, own, model)


def adapted(model: Model, adapter: str | Path | None) -> tuple[Method, Any, Any]:
    """Return what `load_adapter` returns, and the model as it is where no adapter is named."""
    return load_adapter(adapter, model) if adapter else (full(), model.params, {})


def _open(folder: Path) -> SafetensorsFile:
    if not (folder / WEIGHTS).is_file():
        pickled = " (adapter_model.bin is a pickle, which can run code: save it again with a newer peft)"
        raise UsageError(f"{folder}: no {WEIGHTS}{pickled if (folder / 'adapter_model.bin').is_file() else ''}")
    return SafetensorsFile([folder / WEIGHTS], folder / WEIGHTS)


def _as_saved(settings: Any, config: Mapping[str, Any], found: tuple, model: Model) -> tuple | None:
    # PEFT's file is the truth about the weights. Ours says what PEFT cannot, and may be left over from before: it is
    # believed if its method has such a tree and would be written as this very configuration.
    if not settings or settings.get("name") not in WRITERS:
        return None
    peft, trainable, own = found
    if settings["name"] == "pissa" and peft.config["name"] == "lora":
        trainable, own = lora.apart(trainable)
    try:
        method = from_config(settings)
        started, _ = jax.eval_shape(method.init, jax.random.key(0), {"params": model.params})
    except UsageError:
        return None
    if jax.tree.map(jnp.shape, started) != jax.tree.map(jnp.shape, trainable):
        return None
    written = in_peft(method, trainable, own, model)
    same = written and all(config.get(name) == value for name, value in written[0].items())
    return (method, trainable, own) if same else None


def _frozen(method: Method, own: Mapping[str, Any], model: Model) -> dict[str, Any]:
    key, variables = jax.random.key(0), {"params": model.params}
    shapes = jax.eval_shape(method.init, key, variables)[1]
    if shapes.keys() - own.keys() != {"params"}:
        own = method.init(key, variables)[1]  # what follows from the base is in no file: the lengths of DoRA's columns
    params = model.params
    for part in method.config.get("methods", [method.config]):
        params = trees.split_last(params, part["last"]) if part.get("last") else params
    # In these the params that stay frozen have the place that the method gives them.
    return {**own, "params": trees.refilled(shapes["params"], trees.flatten(params))}


def _load_full(folder: Path, model: Model) -> tuple[Method, Any, Any]:
    check_base(base_of(configs.read_folder(folder), str(folder)), model, folder)
    return full(), read_params(open_folder(folder), model.architecture, jnp.float32), {}
