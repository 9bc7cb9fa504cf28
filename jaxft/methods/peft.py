"""Adapters as the files that Hugging Face's PEFT reads and writes.

    save_adapter("adapter", method, trainable, frozen, model)
    method, trainable, frozen = load_adapter("adapter", model)

`adapter_config.json` and `adapter_model.safetensors` are PEFT's own; `jaxft.json` beside them holds the method's
settings and the shape of the base (PEFT warns about keys it does not know, so they are not in its file). Full tuning
has no adapter: it is written as a model directory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import Error, UsageError, nearest
from jaxft.methods import Method, from_config, full
from jaxft.methods.trees import nest
from jaxft.models import DecoderConfig, Model, T5Config
from jaxft.pretrained import config as configs
from jaxft.pretrained import names, save
from jaxft.pretrained.atomic import replaced
from jaxft.pretrained.safetensors_file import SafetensorsFile, open_folder
from jaxft.pretrained.saving import write_json, write_tensors
from jaxft.pretrained.weights import listed, read_params

CONFIG, WEIGHTS, OURS = "adapter_config.json", "adapter_model.safetensors", "jaxft.json"
PROMPT = "prompt_embeddings"

# Settings of PEFT's LoRA that need nothing here: they say where the file came from, how it was trained or started.
ORIGIN = """
    peft_type task_type auto_mapping base_model_name_or_path revision inference_mode peft_version target_modules
    exclude_modules r lora_alpha lora_dropout use_rslora init_lora_weights megatron_config megatron_core loftq_config
    eva_config corda_config lora_ga_config qalora_group_size runtime_config ensure_weight_tying
"""
INERT = frozenset(ORIGIN.split())
# Ways of starting LoRA that change the base's weights, which this base does not share.
CHANGED_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


def save_adapter(directory: Path | str, method: Method, trainable: Any, frozen: Any, model: Model) -> None:
    """Write what was trained of `model` to `directory`, which appears whole or not at all.

    LoRA and prompts become PEFT's files, full tuning a model directory. Raises `UsageError` if PEFT has no format for
    the method or `directory` holds something else, `Error` if it cannot be written.
    """
    name = method.config["name"]
    if name == "full":
        save(directory, model, trainable)
        return
    if name not in WRITERS:
        raise UsageError(f"method {name!r} has no PEFT format{nearest(name, [*WRITERS, 'full'])}")
    config, tensors = WRITERS[name](method.config, trainable, model)
    with replaced(directory, (CONFIG,)) as folder:
        write_json(folder / CONFIG, {**_about(model), **config})
        write_json(folder / OURS, {"method": dict(method.config), "base": base_of(model.config, model.source)})
        write_tensors(folder / WEIGHTS, tensors)


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
        _check_base(ours["base"], model, folder)
    kind = config.get("peft_type")
    if kind not in READERS:
        raise UsageError(f"{folder / CONFIG}: peft_type {kind!r} is not supported{nearest(str(kind), READERS)}")
    if not (folder / WEIGHTS).is_file():
        pickled = " (adapter_model.bin is a pickle, which can run code: save it again with a newer peft)"
        raise UsageError(f"{folder}: no {WEIGHTS}{pickled if (folder / 'adapter_model.bin').is_file() else ''}")
    settings, trainable = READERS[kind](config, SafetensorsFile([folder / WEIGHTS], folder / WEIGHTS), model, folder)
    method = from_config(ours["method"] if _same_method(ours.get("method"), settings) else settings)
    return method, trainable, {"params": model.params}


def base_of(config: DecoderConfig | T5Config, source: str) -> dict[str, Any]:
    """Return what tells one base from another: its source, its family and its sizes."""
    sizes = ("vocab_size", "width", "num_layers", "num_decoder_layers", "num_heads", "head_dim", "mlp_width")
    shape = {name: getattr(config, name) for name in sizes if hasattr(config, name)}
    return {"source": source, "family": config.family, **shape}


def _check_base(base: Mapping[str, Any], model: Model, folder: Path) -> None:
    here = base_of(model.config, model.source)
    differing = [name for name in here if name != "source" and base.get(name) != here[name]]
    if differing:
        name = differing[0]
        raise UsageError(
            f"{folder}: an adapter of {base.get('source') or 'another base'} ({name} {base.get(name)}), not of "
            f"{model.source or 'this model'} ({name} {here[name]}); load the base it was trained on"
        )


def _same_method(saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> bool:
    # PEFT's file is the truth about the weights: ours only adds what PEFT cannot say, and may be left over.
    keys = settings.keys() & {"name", "rank", "alpha", "length"}
    return saved is not None and all(saved.get(key) == settings[key] for key in keys)


def _about(model: Model) -> dict[str, Any]:
    encoder_decoder = isinstance(model.config, T5Config)
    return {
        "base_model_name_or_path": model.source or None,
        "task_type": "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
        "inference_mode": True,
    }


def _load_full(folder: Path, model: Model) -> tuple[Method, Any, Any]:
    _check_base(base_of(configs.read_folder(folder), str(folder)), model, folder)
    return full(), read_params(open_folder(folder), model.architecture, jnp.float32), {}


def modules(model: Model) -> dict[tuple, list[str]]:
    """Return the Hugging Face module, one a layer, of each kernel of the layers: `{("layers", 0, ...): names}`."""
    return {
        leaf.path[:-1]: [file.removesuffix(".weight") for file in leaf.files("hf")]
        for leaf in names.leaves(model.config, model.params)
        if leaf.layers is not None and leaf.path[-1] == "kernel"
    }


def _write_lora(config: Mapping[str, Any], trainable: Any, model: Model) -> tuple[dict, dict]:
    known = modules(model)
    tensors = {}
    targeted = set()
    for path, kind, stacked in _pairs(trainable):
        array = np.asarray(stacked)
        for module, one in zip(known[path], array, strict=True):
            targeted.add(module)
            tensors[f"base_model.model.{module}.lora_{kind.upper()}.weight"] = np.ascontiguousarray(one.T)
    alpha = config["alpha"]
    settings = {
        "peft_type": "LORA",
        "r": config["rank"],
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config["dropout"],
        "target_modules": _target_modules(targeted, {module for layers in known.values() for module in layers}),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
    }
    return settings, tensors


def _pairs(trainable: Any) -> list[tuple[tuple, str, Any]]:
    flat = jax.tree_util.tree_flatten_with_path(trainable)[0]
    paths = [names.plain_path(keys) for keys, _ in flat]
    return [(path[:-1], path[-1], array) for path, (_, array) in zip(paths, flat, strict=True)]


def _target_modules(targeted: set[str], known: set[str]) -> list[str]:
    # PEFT takes every module whose name ends so. The short form is right where it takes nothing else.
    short = {module.rsplit(".", 1)[1] for module in targeted}
    taken = {module for module in known if module.rsplit(".", 1)[1] in short}
    return sorted(short if taken == targeted else targeted)


def _read_lora(config: Mapping[str, Any], file: SafetensorsFile, model: Model, folder: Path) -> tuple[dict, Any]:
    _refuse_unsupported(config, folder)
    rank, known = config["r"], modules(model)
    found = {_module(name, folder) for name in file.shapes}
    leaves, problems = {}, []
    for path, layers in known.items():
        if found.isdisjoint(layers):
            continue
        kernel = _at(model.params, path)["kernel"].shape
        for kind, shape in (("a", (rank, kernel[1])), ("b", (kernel[2], rank))):
            tensors = [f"base_model.model.{module}.lora_{kind.upper()}.weight" for module in layers]
            bad = [_misfit(file, name, shape) for name in tensors]
            problems += [problem for problem in bad if problem]
            if not problems:
                stacked = np.stack([file.read(name).T for name in tensors])
                leaves[(*path, kind)] = jnp.asarray(stacked, jnp.float32)
    unknown = found - {module for layers in known.values() for module in layers}
    problems += [f"{module} is no kernel of {model.source or 'this model'}" for module in sorted(unknown)]
    if problems or not leaves:
        raise Error(f"{file.where}: does not fit the model: {listed(problems) or 'it holds no LoRA tensor'}")
    alpha = config.get("lora_alpha", 8)
    settings = {
        "name": "lora",
        "rank": rank,
        "alpha": alpha * math.sqrt(rank) if config.get("use_rslora") else alpha,
        "targets": sorted({"^" + "/".join(key for key in path[:-1] if isinstance(key, str)) + "$" for path in leaves}),
        "dropout": config.get("lora_dropout", 0.0),
    }
    return settings, nest(leaves)


def _refuse_unsupported(config: Mapping[str, Any], folder: Path) -> None:
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise UsageError(f"{folder / CONFIG}: init_lora_weights = {start!r} changed the base; convert it with peft")
    for name, value in config.items():
        if name not in INERT and value and (name, value) != ("bias", "none"):
            raise UsageError(f"{folder / CONFIG}: {name} = {value!r} is not supported")
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise UsageError(f"{folder / CONFIG}: r = {config.get('r')!r} is not a rank")


def _module(name: str, folder: Path) -> str:
    for kind in (".lora_A.weight", ".lora_B.weight"):
        if name.endswith(kind):
            return name.removeprefix("base_model.model.").removesuffix(kind)
    raise Error(f"{folder / WEIGHTS}: {name} is no LoRA tensor")


def _misfit(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> str:
    if name not in file.shapes:
        return f"{name} is missing"
    return "" if file.shapes[name] == shape else f"{name} is {list(file.shapes[name])}, not {list(shape)}"


def _at(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _write_prompt(config: Mapping[str, Any], trainable: Any, model: Model) -> tuple[dict, dict]:
    place = trainable["encoder"] if isinstance(model.config, T5Config) else trainable
    embedding = np.asarray(place["embedding"])
    settings = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": embedding.shape[0],
        "token_dim": embedding.shape[1],
        # One: PEFT gives T5 a second set of rows for the decoder, which no gradient ever reaches.
        "num_transformer_submodules": 1,
        "num_attention_heads": model.config.num_heads,
        "num_layers": model.config.num_layers,
        "prompt_tuning_init": "RANDOM",
    }
    return settings, {PROMPT: np.ascontiguousarray(embedding)}


def _read_prompt(config: Mapping[str, Any], file: SafetensorsFile, model: Model, folder: Path) -> tuple[dict, Any]:
    length, width = config.get("num_virtual_tokens"), model.config.width
    if not isinstance(length, int) or length < 1:
        raise UsageError(f"{folder / CONFIG}: num_virtual_tokens = {length!r} is not a length")
    sets = config.get("num_transformer_submodules") or (2 if isinstance(model.config, T5Config) else 1)
    problem = _misfit(file, PROMPT, (length * sets, width))
    problem = problem or listed([f"{name} is unknown" for name in file.shapes if name != PROMPT])
    if problem:
        raise Error(f"{file.where}: does not fit the model: {problem}")
    embedding = jnp.asarray(file.read(PROMPT)[:length], jnp.float32)
    trainable = {"embedding": embedding}
    settings = {"name": "prompt", "length": length}
    return settings, {"encoder": trainable} if isinstance(model.config, T5Config) else trainable


WRITERS = {"lora": _write_lora, "prompt": _write_prompt}
READERS = {"LORA": _read_lora, "PROMPT_TUNING": _read_prompt}
