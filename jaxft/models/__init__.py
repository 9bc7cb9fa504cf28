"""Language models as pure functions of (variables, batch).

A `Model` is an architecture (hashable: its configuration and numeric policy, no arrays) beside its base weights and
its tokenizer. Everything that computes takes the variables as an argument, so that a jitted step never closes over
weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxft.models.decoder import Decoder, DecoderConfig
from jaxft.models.t5 import T5, T5Config

__all__ = ["T5", "Decoder", "DecoderConfig", "Model", "T5Config"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A pretrained model: `architecture` computes, `params` is the base, `tokenizer` is Hugging Face's."""

    architecture: Decoder | T5
    params: Any
    tokenizer: Any
    source: str = ""

    @property
    def family(self) -> str:
        return self.architecture.config.family

    @property
    def config(self) -> DecoderConfig | T5Config:
        return self.architecture.config

    def apply(self, variables, batch):
        """Return float32 logits `[B, T, V]`."""
        architecture = self.architecture
        return architecture.head(variables, architecture.hidden(variables, batch))
