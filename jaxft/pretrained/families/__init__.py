"""The families of models that jaxft has: a new one is one more record, in `decoder.py` most likely."""

from __future__ import annotations

from jaxft.pretrained.families import decoder, t5
from jaxft.pretrained.families.family import Config, Family, Name

__all__ = ["BY_GGUF", "BY_TYPE", "Config", "Family", "Name"]

# By what config.json and GGUF files call them; of two that GGUF calls alike the first one reads the file.
BY_TYPE: dict[str, Family] = {family.model_type: family for family in (*decoder.FAMILIES, *t5.FAMILIES)}
BY_GGUF = {family.gguf: family for family in reversed(BY_TYPE.values())}
