"""Token ids of prompts and completions, tokenised apart: generation sees exactly the prompt ids of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxft.data.chat import chat_prompt, chat_texts
from jaxft.data.templates import Format, Rendered, render_prompt
from jaxft.errors import UsageError


def encode_prompts(
    rows: Sequence[Mapping[str, Any]], format: Format, tokenizer: Any, *, encoder_decoder: bool = False
) -> list[np.ndarray]:
    """Return int32 ids of each row's prompt, as `encode` makes them; the rows need no completion.

    Raises what `render` raises for a row.
    """
    _check_chat(format, encoder_decoder)
    rendered = [render_prompt(format, row) for row in rows]
    texts = [chat_prompt(tokenizer, prompt, system) if format.chat else prompt for prompt, system in rendered]
    return [np.array(ids, np.int32) for ids in _prompt_ids(tokenizer, texts, format.chat, encoder_decoder)]


def token_pairs(
    rendered: Sequence[Rendered],
    format: Format,
    tokenizer: Any,
    encoder_decoder: bool = False,
    eos_token_ids: Sequence[int] = (),
) -> list[tuple[list[int], list[int]]]:
    """Return for each example the ids of its prompt, and of its first reference with the end token (none if empty).

    The prompt has the special tokens that the tokenizer adds by itself; with a chat template, those in the template.
    """
    _check_chat(format, encoder_decoder)
    ends = [i for i in (tokenizer.eos_token_id, *eos_token_ids) if i is not None]
    if not ends:
        raise UsageError("the tokenizer names no end-of-sequence token; set its eos_token")
    if format.chat:
        texts = [chat_texts(tokenizer, r.prompt, r.references[0], r.system, ends) for r in rendered]
    else:
        texts = [(r.prompt, r.references[0]) for r in rendered]
    prompts = _prompt_ids(tokenizer, [prompt for prompt, _ in texts], format.chat, encoder_decoder)
    completions = _ids(tokenizer, [completion for _, completion in texts], special=False)
    closed = [ids if not ids or ids[-1] in ends else [*ids, ends[0]] for ids in completions]
    return list(zip(prompts, closed, strict=True))


def _check_chat(format: Format, encoder_decoder: bool) -> None:
    if format.chat and encoder_decoder:
        raise UsageError("format: chat templates are for decoder-only models; set `chat: false`")


def _prompt_ids(tokenizer: Any, texts: list[str], chat: bool, encoder_decoder: bool) -> list[list[int]]:
    prompts = _ids(tokenizer, texts, special=not chat)
    if chat or encoder_decoder:
        return prompts
    # A tokenizer that ends every text with </s> would say, before the completion, that all is over. But where the one
    # token of an empty text is both start and end (GPT-2 with a start token), it is the start.
    empty = _ids(tokenizer, [""], special=True)[0]
    ended = empty[-1:] == [tokenizer.eos_token_id] and (len(empty) > 1 or empty[0] != tokenizer.bos_token_id)
    return [ids[:-1] for ids in prompts] if ended else prompts


def _ids(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
