"""A model at work outside a run: texts for prompts, scores on a split."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxft.data import Format, encode_prompts
from jaxft.errors import UsageError
from jaxft.recipe import GenerateRecipe
from jaxft.runs.evaluating import evaluate_split, loaded

__all__ = ["evaluate_split", "generate_texts", "read_prompts"]


def read_prompts(prompts: Sequence[str] | None, file: str | None) -> list[str]:
    """Return the given prompts, those of a file (one a line), or the whole of standard input as one."""
    if prompts:
        return list(prompts)
    if file is None:
        text = sys.stdin.read()
        lines = [text.rstrip("\n")] if text.strip() else []
    else:
        try:
            lines = [line for line in Path(file).read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--file: {file} cannot be read ({error})") from None
    if not lines:
        raise UsageError("there is no prompt: give --prompt, --file with a prompt a line, or standard input")
    return lines


def generate_texts(
    source: str,
    prompts: Sequence[str],
    adapter: str | None = None,
    settings: GenerateRecipe = GenerateRecipe(),  # noqa: B008 (frozen)
    chat: bool = False,
    system: str | None = None,
    seed: int = 0,
) -> list[str]:
    """Return what the model of `source`, with an adapter if one is given, writes after the prompts."""
    from jaxft.generation import generate

    format = Format(prompt="prompt", completion="prompt", chat=chat, system=system)
    model, variables, _ = loaded(source, adapter)
    rows = [{"prompt": prompt} for prompt in prompts]
    encoder_decoder = hasattr(model.config, "decoder_start_token_id")
    ids = encode_prompts(rows, format, model.tokenizer, encoder_decoder=encoder_decoder)
    options = dataclasses.asdict(settings) | {"key": jax.random.key(seed)}
    return generate(model, variables, [one.tolist() for one in ids], **options)
