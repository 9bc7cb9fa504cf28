"""`inspect`: what a model is, and what tuning it takes, without reading a weight.

found = inspect("folder/config.json", batch_size=8, length=1024)
found.parameters, [(one.method, one.bytes) for one in found.needs]
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest
from jaxft.methods.trees import flatten, spelled
from jaxft.models import DecoderConfig, T5Config
from jaxft.models.stack import REMAT
from jaxft.pretrained.peeking import Peeked, peek
from jaxft.runs.needs import Need, abstract_batch, abstract_mesh, need
from jaxft.runs.sizes import optimizer_of
from jaxft.training.progress import Progress

DEVICES = (16, 24, 80)  # GB, a thousand million bytes each
RESERVE = 0.1  # of a device: for the runtime, the allocator's gaps and batches under way

DEFAULTS: tuple[dict[str, Any], ...] = (
    {"name": "full"},
    {"name": "selective", "targets": "norms"},
    {"name": "lora", "rank": 16, "targets": "all"},
    {"name": "dora", "rank": 16, "targets": "all"},
    {"name": "adapter"},
    {"name": "prompt"},
    {"name": "prefix"},
    {"name": "ia3"},
)

# The group of a weight is that of the first word found in its path.
GROUPS = {"norm": "norms", "attention": "attention", "relative_bias": "attention", "mlp": "mlp", "head": "head"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """What lies on disk: how many numbers of each type ("BF16", "Q4_1"), and bytes of the files."""

    types: dict[str, int]
    bytes: int


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer: its class, how many tokens it has, special ones by role, and its chat template."""

    kind: str
    size: int
    special: dict[str, tuple[str, int]]
    chat_template: str | None


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the needs are for: shapes of the batch, numerics, and devices (`{}`: one)."""

    batch_size: int
    length: int
    prompt_length: int | None
    dtype: str
    remat: str
    quantize: str | None
    mesh: dict[str, int]
    compiler: str


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` found. `parameters` counts by group; `weights`, `tokenizer` are None where there are none."""

    source: str
    config: DecoderConfig | T5Config
    parameters: dict[str, int]
    weights: Weights | None
    tokenizer: Vocabulary | None
    setting: Setting
    needs: tuple[Need, ...]

    @property
    def total(self) -> int:
        """The number of parameters."""
        return sum(self.parameters.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        made = dataclasses.asdict(dataclasses.replace(self, needs=()))
        scaling = getattr(self.config, "rope_scaling", None)
        if scaling is not None:
            made["config"]["rope_scaling"] = scaling._asdict()
        made["parameters"] = {**self.parameters, "total": self.total}
        made["needs"] = [
            {**one._asdict(), "sizes": one.sizes._asdict(), "bytes": one.bytes, "fits": fits(one.bytes)}
            for one in self.needs
        ]
        return made


def inspect(
    source: str | Path,
    *,
    methods: Sequence[Mapping[str, Any]] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    length: int | None = None,
    prompt_length: int | None = None,
    dtype: str = "bfloat16",
    remat: str = "dots",
    quantize: str | None = None,
    mesh: Mapping[str, int] | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Return what a model is and what tuning it by each method would hold in memory; nothing is allocated.

    Args:
        source: All that `jaxft.load` takes, or a `config.json` or a folder with nothing else. From the hub only the
            configuration and the tokenizer are fetched.
        methods: Configs as recipes have them; default: eight methods with default settings. () says what the model is
            and compiles nothing.
        optimizer: Fields of a recipe's optimizer, in place of those that the methods' authors published.
        batch_size: Rows of a step.
        length: Tokens of a row (of an encoder-decoder: of its decoder); default 512, or a shorter context.
        prompt_length: Tokens that an encoder reads; default `length`.
        dtype: Of base weights and activations: "bfloat16", or "float32" as on CPU.
        remat: As in a recipe's model: "none", "dots" or "full".
        quantize: "int8" or "nf4": the base as `jaxft.load` holds it then.
        mesh: `{"data": 8, "fsdp": 32}`, devices that need not be there; what is said is then for one of them.

    Raises `UsageError` and `Error` as `load` does, and for settings that cannot be.
    """
    found, show = peek(source, revision=revision), progress or Progress(quiet=True)
    for value, known, name in ((dtype, ("bfloat16", "float32"), "--dtype"), (remat, REMAT, "--remat")):
        if value not in known:
            raise UsageError(f"{name}: {value!r}{nearest(value, known)}")
    model = found.abstract(jnp.dtype(dtype), remat, quantize)
    length = min(512, found.config.max_length) if length is None else length
    batch = abstract_batch(found.config, batch_size, length, prompt_length)
    devices = abstract_mesh(**(mesh or {}))
    # Quantised weights are frozen.
    chosen = (
        [config for config in DEFAULTS if not (quantize and config["name"] == "full")] if methods is None else methods
    )
    needs: list[Need] = []
    for config in chosen:
        show.note(f"compiling a step of {config['name']} ({len(needs) + 1} of {len(chosen)}) ...")
        needs.append(need(model, config, optimizer_of(config, optimizer or {}), batch, devices))
    sides = (length, batch["encoder_tokens"].shape[1] if "encoder_tokens" in batch else None)
    setting = Setting(batch_size, *sides, dtype, remat, quantize, dict(mesh or {}), jax.default_backend())
    return Inspection(
        str(source), found.config, _parameters(model.params), _weights(found), _vocabulary(found), setting, tuple(needs)
    )


def fits(needed: int) -> dict[int, bool]:
    """Say which of `DEVICES` would hold so many bytes, the reserve left free."""
    return {size: needed <= (1 - RESERVE) * size * 1e9 for size in DEVICES}


def read_mesh(text: str) -> dict[str, int]:
    """Return `{"data": 8, "fsdp": 32}` for "data=8,fsdp=32"; raise `UsageError` for anything else.

    >>> read_mesh("data=8,fsdp=32")
    {'data': 8, 'fsdp': 32}
    """
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in ("data", "fsdp") or name in axes or not size.isdecimal():
            raise UsageError(f"--mesh: {text!r} is not of the form data=8,fsdp=32")
        axes[name] = int(size)
    return axes


def _parameters(params: Any) -> dict[str, int]:
    counts = dict.fromkeys(("embedding", "attention", "mlp", "norms", "head"), 0)
    for path, leaf in flatten(params).items():
        name = spelled(path)
        group = next((group for word, group in GROUPS.items() if word in name), "embedding")
        counts[group] += math.prod(leaf.shape)
    return counts


def _weights(found: Peeked) -> Weights | None:
    if found.tensors is None:
        return None
    types: Counter[str] = Counter()
    for name, shape in found.tensors.shapes.items():
        types[found.tensors.types[name]] += math.prod(shape)
    return Weights(dict(types.most_common()), found.tensors.bytes)


def _vocabulary(found: Peeked) -> Vocabulary | None:
    tokenizer = found.tokenizer
    if tokenizer is None:
        return None
    special = {role: getattr(tokenizer, f"{role}_token", None) for role in ("bos", "eos", "pad", "unk")}
    ids = {role: (token, tokenizer.convert_tokens_to_ids(token)) for role, token in special.items() if token}
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several, by name
        template = template.get("default") or next(iter(template.values()), None)
    return Vocabulary(type(tokenizer).__name__, len(tokenizer), ids, template)
