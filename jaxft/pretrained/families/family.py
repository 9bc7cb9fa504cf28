"""What a family of models is called and how its settings are spelled, in Hugging Face's files and in GGUF files.

A tensor's `Name` is read in both directions: to load, to save, and (a module is a name without `.weight`) for PEFT's
files. `{}` stands for the layer; a kernel is `[in, out]` here and, but for GPT-2's in Hugging Face, `[out, in]` there.

    Name("layers/attention/q/kernel", "model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight")
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxft.errors import UsageError, nearest
from jaxft.models import DecoderConfig, T5Config

Config = DecoderConfig | T5Config
Fields = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


class Name(NamedTuple):
    """One tensor, or one tensor a layer, in the three conventions.

    GGUF keeps the rows of Llama's rotary projections in another order: `rotary` is the field that counts their heads.
    `otherwise` is what Hugging Face reads where a file lacks the tensor. `part` is where the tensor's outputs lie in
    one that several share (`start`, `stop`, `total`). `straight`: Hugging Face holds the kernel as `[in, out]`.
    """

    ours: str
    hf: str
    gguf: str
    rotary: str = ""
    otherwise: str = ""
    part: tuple[int, int, int] | None = None
    straight: bool = False

    def transposed(self, convention: str) -> bool:
        return self.ours.endswith("/kernel") and not (self.straight and convention == "hf")


@dataclasses.dataclass(frozen=True)
class Family(ABC):
    """A family: `model_type` and `architecture` as `config.json` names it, `gguf` as `general.architecture` does.

    The readers get every field that the file holds or its format fills in, and raise `UsageError` for a setting that
    the model does not have, `KeyError` for a missing one. The writers are their inverses. `copies` are tensors that
    some files hold a second time, with their original; `bare` is the prefix that files of the model without its head
    leave out.
    """

    model_type: str
    architecture: str
    gguf: str
    bare: str = dataclasses.field(default="", kw_only=True)

    @abstractmethod
    def from_hf(self, fields: Fields, stated: Fields, where: str) -> Config: ...

    @abstractmethod
    def to_hf(self, config: Any) -> dict[str, Any]: ...

    @abstractmethod
    def from_gguf(self, metadata: Fields, shapes: Shapes, where: str) -> Config: ...

    @abstractmethod
    def to_gguf(self, config: Any) -> dict[str, Any]: ...

    @abstractmethod
    def names(self, config: Any) -> tuple[Name, ...]: ...

    @property
    @abstractmethod
    def copies(self) -> Mapping[str, str]: ...


def block(ours: str, hf: str, gguf: str, members: Mapping[str, Name]) -> tuple[Name, ...]:
    """Return the names of one layer's members: `Name("", place in the layer, the same in GGUF)` each."""
    return tuple(
        name._replace(ours=f"{ours}/{member}", hf=f"{hf}.{{}}.{name.hf}", gguf=f"{gguf}.{{}}.{name.gguf}")
        for member, name in members.items()
    )


# Hugging Face's names of the activations that the models have.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}


def activation(name: str, where: str) -> str:
    """Return our name of one of Hugging Face's activations."""
    if name not in ACTIVATIONS:
        raise UsageError(f"{where}: activation {name!r} is not supported{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def refuse_unless(fields: Fields, neutral: Mapping[str, tuple], where: str) -> None:
    """Raise `UsageError` for a setting that is there with another value than those under which nothing changes."""
    for name, values in neutral.items():
        if name in fields and fields[name] not in values:
            raise UsageError(
                f"{where}: {name} = {fields[name]!r} is not supported; it would change what the model computes"
            )


def token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    return () if value is None else (value,) if isinstance(value, int) else tuple(value)
