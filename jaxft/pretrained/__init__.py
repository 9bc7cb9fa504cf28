"""Weights in and out: hub, directories, safetensors, GGUF, wheels; and back to Hugging Face's format.

    model = load("google/flan-t5-small")
    save("my-model", model, params)

The parts: `source` and `wheel` find files, `config` and `names` translate, `weights` streams, `tokenizer` speaks.
"""

from jaxft.pretrained.loading import load
from jaxft.pretrained.saving import save

__all__ = ["load", "save"]
