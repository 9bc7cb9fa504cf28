"""What all kinds of adapter files have in common: their names, their base, and how misfits are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError
from jaxft.models import DecoderConfig, Model, T5Config
from jaxft.pretrained.safetensors_file import SafetensorsFile
from jaxft.pretrained.weights import listed

CONFIG, WEIGHTS, OURS = "adapter_config.json", "adapter_model.safetensors", "jaxft.json"

# Settings of PEFT's that need nothing here: they say where the file came from, or are seen in its tensors.
ORIGIN = """
    peft_type task_type auto_mapping base_model_name_or_path revision inference_mode peft_version target_modules
    exclude_modules
"""


def about(model: Model) -> dict[str, Any]:
    """Return the settings that every adapter of `model` has in PEFT."""
    return {
        "base_model_name_or_path": model.source or None,
        "task_type": "SEQ_2_SEQ_LM" if isinstance(model.config, T5Config) else "CAUSAL_LM",
        "inference_mode": True,
    }


def base_of(config: DecoderConfig | T5Config, source: str) -> dict[str, Any]:
    """Return what tells one base from another: its source, its family and its sizes."""
    sizes = (
        "vocab_size", "width", "num_layers", "num_decoder_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_width",
    )  # fmt: skip
    shape = {name: getattr(config, name) for name in sizes if hasattr(config, name)}
    return {"source": source, "family": config.family, **shape}


def check_base(base: Mapping[str, Any], model: Model, folder: Path) -> None:
    """Raise `UsageError` naming the first thing in which `base` is not `model`; where it lies does not matter."""
    here = base_of(model.config, model.source)
    differing = [name for name in here if name != "source" and base.get(name, here[name]) != here[name]]
    if differing:
        name = differing[0]
        raise UsageError(
            f"{folder}: an adapter of {base.get('source') or 'another base'} ({name} {base.get(name)}), not of "
            f"{model.source or 'this model'} ({name} {here[name]}); load the base it was trained on"
        )


def refuse_unsupported(config: Mapping[str, Any], known: str, where: Path) -> None:
    """Raise `UsageError` for a setting that is on and neither in `known` (names apart by spaces) nor in `ORIGIN`."""
    for name, value in config.items():
        if name not in f"{ORIGIN} {known}".split() and value and (name, value) != ("bias", "none"):
            raise UsageError(f"{where}: {name} = {value!r} is not supported")


def count(config: Mapping[str, Any], name: str, where: Path, what: str) -> int:
    """Return a setting that has to be a whole number of at least 1; else raise `UsageError`."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{where}: {name} = {value!r} is not a {what}")
    return value


def check_tensors(file: SafetensorsFile, expected: Mapping[str, tuple[int, ...]], model: Model) -> None:
    """Raise `Error` listing every tensor that is missing, of another shape or unknown."""
    problems = [problem for name, shape in expected.items() if (problem := _misfit(file, name, shape))]
    refuse([*problems, *(f"{name} is unknown" for name in sorted(file.shapes.keys() - expected.keys()))], file, model)


def refuse(problems: Iterable[str], file: SafetensorsFile, model: Model) -> None:
    """Raise `Error` if there are problems."""
    found = listed(list(problems))
    if found:
        raise Error(f"{file.where}: does not fit {model.source or 'the model'}: {found}")


def _misfit(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> str:
    if name not in file.shapes:
        return f"{name} is missing"
    return "" if file.shapes[name] == tuple(shape) else f"{name} is {list(file.shapes[name])}, not {list(shape)}"
