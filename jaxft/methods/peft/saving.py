"""Write what was trained as an adapter's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxft.errors import UsageError
from jaxft.methods import Method, finalize
from jaxft.methods.peft import container, ia3, lora, norms, prefix, prompt, vera
from jaxft.methods.peft.files import CONFIG, OURS, WEIGHTS, about, base_of
from jaxft.methods.peft.modules import unnamed
from jaxft.methods.trees import places
from jaxft.models import Model
from jaxft.pretrained import save
from jaxft.pretrained.atomic import replaced
from jaxft.pretrained.saving import write_json, write_tensors

# (settings, trainable, what the method keeps, model) -> PEFT's settings and tensors, or None where it has none.
WRITERS: dict[str, Any] = {
    "lora": lora.write,
    "dora": lora.write,
    "pissa": lora.write,
    "vera": vera.write,
    "ia3": ia3.write,
    "selective": norms.write,
    "prompt": prompt.write,
    "prefix": prefix.write,
}


def save_adapter(directory: Path | str, method: Method, trainable: Any, frozen: Any, model: Model) -> None:
    """Write what was trained of `model` to `directory`, which appears whole or not at all.

    It is PEFT's own files where PEFT can express the method, the same files of a type of ours where it cannot, and a
    model directory for full tuning. What only training needs (the networks of prompts and prefixes) is left out.
    Raises `UsageError` for a bank and if `directory` holds something else, `Error` if it cannot be written.
    """
    if method.config["name"] == "full":
        save(directory, model, trainable)
        return
    if method.config["name"] == "bank":
        raise UsageError("a bank is saved member by member: take each out with jaxft.methods.bank.member")
    method, trainable = finalize(method, trainable, frozen)
    own = {name: kept for name, kept in frozen.items() if name != "params"}
    config, tensors = in_peft(method, trainable, own, model) or container.write(method, trainable, own)
    with replaced(directory, (CONFIG,)) as folder:
        write_json(folder / CONFIG, {**about(model), **config})
        write_json(folder / OURS, {"method": dict(method.config), "base": base_of(model.config, model.source)})
        write_tensors(folder / WEIGHTS, tensors)


def in_peft(method: Method, trainable: Any, own: Any, model: Model) -> tuple[dict, dict] | None:
    """Return PEFT's settings and tensors; None where PEFT cannot express what was trained."""
    name = method.config["name"]
    joined = name not in ("lora", "pissa") and not unnamed(model).isdisjoint(places(trainable))
    if name not in WRITERS or joined:
        return None
    return WRITERS[name](method.config, trainable, own, model)
