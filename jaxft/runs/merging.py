"""An adapter on its base, and the two as one model.

merge_adapter("runs/x/adapter", "merged")      # a directory that transformers loads
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError
from jaxft.methods import merge
from jaxft.methods.method import Variables
from jaxft.models import Model

# Methods that change what the layers are given, or add layers: no weights of the base model do the same.
NOT_WEIGHTS = ("prompt", "prefix", "adapter")


def merge_adapter(adapter: str | Path, out: str | Path, source: str | None = None) -> Model:
    """Write base and adapter as one Hugging Face model directory, `out`; return the model that lies there.

    The base is that of `source`, or the one whose name was saved with the adapter. The directory's card shows the
    recipe and the scores of the run that the adapter lies in, if it lies in one. Raises `UsageError` for a method that
    is no change of weights (before the base is loaded, where the adapter says so), for a directory that holds
    something else, and as `load_on_base` does.
    """
    from jaxft.pretrained import save

    model = merged_model(adapter, source)
    save(out, model, card=card_of_run(model, adapter))
    return dataclasses.replace(model, source=str(out))


def merged_model(adapter: str | Path, source: str | None = None, dtype: Any = None) -> Model:
    """Return base and adapter as one model in memory, in `dtype` (default as in `load`); raises as `merge_adapter`."""
    refuse_soft(adapter)
    model, variables = load_on_base(adapter, source, dtype)
    return dataclasses.replace(model, params=merge(variables))


def refuse_soft(adapter: str | Path) -> None:
    """Raise `UsageError` if the adapter says that it is no change of weights, or if there is none."""
    soft = [name for name in _methods(adapter) if name in NOT_WEIGHTS]
    if soft:
        raise UsageError(f"{adapter}: {' and '.join(soft)} cannot be folded into weights; use it with --adapter")


def card_of_run(model: Model, folder: str | Path) -> str:
    """Return the card of `model`, with the recipe and scores of the run that `folder`, an adapter or model, lies in."""
    from jaxft.methods.peft import CONFIG
    from jaxft.pretrained.card import model_card
    from jaxft.pretrained.config import read_json

    methods = _methods(folder) if (Path(folder) / CONFIG).is_file() else []
    run = Path(folder).absolute().parent
    recipe, summary = run / "recipe.yaml", run / "summary.json"
    ran = recipe.is_file() and summary.is_file()
    text, scores = (recipe.read_text(encoding="utf-8"), read_json(summary)) if ran else ("", None)
    return model_card(model, recipe=text, scores=scores, method=" and ".join(methods))


def load_on_base(adapter: str | Path, source: str | None = None, dtype: Any = None) -> tuple[Model, Variables]:
    """Return the adapter's base model, of `source` or of the name in the adapter, and the variables with the adapter.

    Raises `UsageError` if neither names a base, or it is not there or not the adapter's; `Error` for broken files.
    """
    from jaxft.methods.peft import load_adapter
    from jaxft.pretrained import load

    model = load(source or _base(adapter), dtype=dtype)
    method, trainable, frozen = load_adapter(adapter, model)
    return model, method.bind(trainable, frozen)


def _base(adapter: str | Path) -> str:
    from jaxft.pretrained.source import locate

    name = _read(adapter).get("base_model_name_or_path")
    if not name:
        raise UsageError(f"{adapter}: does not name its base; give --model")
    try:
        locate(name)
    except UsageError as problem:
        raise UsageError(f"{adapter}: its base is not found ({problem}); give --model") from None
    return name


def _methods(adapter: str | Path) -> list[str]:
    from jaxft.methods.peft import OURS

    config = _read(adapter, OURS).get("method", {})
    return [member["name"] for member in config.get("methods", [config]) if "name" in member]


def _read(adapter: str | Path, name: str = "") -> Mapping[str, Any]:
    from jaxft.methods.peft import CONFIG
    from jaxft.pretrained.config import read_json

    folder = Path(adapter)
    if not (folder / CONFIG).is_file():
        whole = (folder / "config.json").is_file()
        raise UsageError(f"{folder}: {'is a whole model already' if whole else f'holds no {CONFIG}'}")
    file = folder / (name or CONFIG)
    return read_json(file) if file.is_file() else {}
