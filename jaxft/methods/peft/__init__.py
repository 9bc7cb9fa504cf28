"""Adapters as the files that Hugging Face's PEFT reads and writes.

    save_adapter("adapter", method, trainable, frozen, model)
    method, trainable, frozen = load_adapter("adapter", model)

`adapter_config.json` and `adapter_model.safetensors` are PEFT's own, for every method that PEFT can express: LoRA and
its family, VeRA, IA3, norms, prompts, and prefixes of decoder-only models. The others lie in the same two files under
a type of ours, which PEFT refuses. `jaxft.json` beside them holds the method's settings and the shape of the base
(PEFT warns about keys it does not know, so they are not in its file). Full tuning is written as a model directory.
"""

from jaxft.methods.peft.files import CONFIG, OURS, WEIGHTS
from jaxft.methods.peft.loading import adapted, load_adapter
from jaxft.methods.peft.saving import save_adapter

__all__ = ["CONFIG", "OURS", "WEIGHTS", "adapted", "load_adapter", "save_adapter"]
