"""Model cards: the README.md of a model directory, as hubs read it.

    model_card(model, recipe=text, scores=summary)      # what it is, how it was made, what it scores

The part between the lines of dashes is YAML that hubs index; the rest is for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxft.errors import Error
from jaxft.models import Model, T5Config
from jaxft.pretrained.source import REPOSITORY, cache_folder, locate

_FRONT = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


def model_card(model: Model, *, recipe: str = "", scores: Mapping[str, Any] | None = None, method: str = "") -> str:
    """Return the card of `model`, whose `source` names what it was made from.

    `recipe` is the YAML of the run that made it, `scores` the run's summary (its "before" and "after", and where it
    says so "scored_on" and "provenance"), `method` how it was tuned. What is not known is left out.
    """
    parts = [_front(model, method), f"# {_title(model)}", _what(model, method), _use(model)]
    if scores and scores.get("after"):
        parts.append(_scores(scores))
    if recipe:
        parts.append(f"## Recipe\n\n```yaml\n{recipe.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def license_of(source: str) -> str | None:
    """Return the license that a model's files name, looking only at what lies on this machine; None if they do not."""
    try:
        path = _on_disk(source)
        if path is None:
            return None
        if path.suffix == ".gguf":
            from jaxft.pretrained.gguf_file import GgufFile

            return GgufFile(path).metadata.get("general.license")
        return _fields(path.read_text(encoding="utf-8")).get("license")
    except (OSError, UnicodeDecodeError, Error):
        return None


def _on_disk(source: str) -> Path | None:
    if not source:
        return None
    if source.startswith("pypi:"):
        name = re.sub(r"[-_.]+", "-", source.removeprefix("pypi:").partition("==")[0]).lower()
        return next(iter(sorted((cache_folder() / "pypi" / name).glob("*/*.gguf"), reverse=True)), None)
    path = locate(source) if source.startswith("jaxft:") else Path(source).expanduser()
    if path.exists():
        card = path / "README.md" if path.is_dir() else path
        return card if card.is_file() else None
    return _cached(source)


def _cached(source: str) -> Path | None:
    if not REPOSITORY.fullmatch(source):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "README.md")
    return Path(found) if isinstance(found, str) else None


def _fields(card: str) -> dict[str, str]:
    # One line each: no more of YAML is needed, and none of it is trusted.
    front = _FRONT.match(card)
    lines = front[1].splitlines() if front else []
    pairs = (line.partition(":") for line in lines if re.match(r"\w+: *\S", line))
    return {name: value.strip().strip("'\"") for name, _, value in pairs}


def _front(model: Model, method: str) -> str:
    task = "text2text-generation" if isinstance(model.config, T5Config) else "text-generation"
    lines = ["library_name: transformers", f"pipeline_tag: {task}"]
    if _on_hub(model.source):
        lines.insert(0, f"base_model: {model.source}")
    license = license_of(model.source)
    if license:
        lines.append(f"license: {license}")
    tags = ["jaxft", model.config.family, *([method] if method else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _on_hub(source: str) -> bool:
    return bool(REPOSITORY.fullmatch(source)) and not Path(source).expanduser().exists()


def _title(model: Model) -> str:
    name = model.source.removeprefix("pypi:").rstrip("/")
    return f"{Path(name).name}, tuned" if name else f"A {model.config.family} model"


def _what(model: Model, method: str) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    base = f", from `{model.source}`" if model.source else ""
    tuned = f", tuned by {method}" if method else ""
    kind = "an encoder-decoder" if isinstance(model.config, T5Config) else "a decoder-only"
    return (
        f"This is {kind} language model of the family {model.config.family} with {count:,} parameters{base}{tuned}, "
        "written by jaxft, which tunes language models in JAX."
    )


def _use(model: Model) -> str:
    kind = "AutoModelForSeq2SeqLM" if isinstance(model.config, T5Config) else "AutoModelForCausalLM"
    return (
        "## Use\n\n```python\n"
        f"from transformers import {kind}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("this/directory")\n'
        f'model = {kind}.from_pretrained("this/directory")\n```'
    )


def _scores(scores: Mapping[str, Any]) -> str:
    on, before = scores.get("scored_on"), scores.get("before", {})
    rows = [f"| {name} | {_number(before.get(name))} | {_number(after)} |" for name, after in scores["after"].items()]
    parts = ["## Scores", *([f"On {on['examples']} {on['split']} examples."] if on else [])]
    parts.append("\n".join(["| | before | after |", "|---|---|---|", *rows]))
    return "\n\n".join([*parts, *dict.fromkeys(scores.get("provenance", {}).values())])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
