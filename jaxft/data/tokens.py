"""Token ids of prompts and completions, tokenised apart: generation sees exactly the prompt ids of training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data.caching import cached_tokens
from jaxft.data.chat import Pieces, chat_pieces, chat_prompt, chat_texts, plain_pieces, plain_prompt
from jaxft.data.templates import Format, Rendered, render_prompt
from jaxft.errors import UsageError


class Tokens(NamedTuple):
    """Ids of a prompt, of the completion with its end token (none if empty), and which of the latter are learnt.

    `counted` is None where all are. `choices` are the ids of each answer that there is, without an end token.
    """

    prompt: list[int]
    completion: list[int]
    counted: list[bool] | None = None
    choices: tuple[tuple[int, ...], ...] = ()


def encode_prompts(
    rows: Sequence[Mapping[str, Any]], format: Format, tokenizer: Any, *, encoder_decoder: bool = False
) -> list[np.ndarray]:
    """Return int32 ids of each row's prompt, as `encode` makes them; the rows need no completion.

    Raises what `render` raises for a row.
    """
    _check_chat(format.chat, encoder_decoder)
    rendered = [render_prompt(format, row) for row in rows]
    texts = [chat_prompt(tokenizer, prompt, system) if format.chat else prompt for prompt, system in rendered]
    return [np.array(ids, np.int32) for ids in _prompt_ids(tokenizer, texts, format.chat, encoder_decoder)]


def encode_texts(
    rendered: Sequence[Rendered],
    tokenizer: Any,
    chat: bool = False,
    encoder_decoder: bool = False,
    eos_token_ids: Sequence[int] = (),
    every_turn: bool = False,
) -> list[Tokens]:
    """Return the tokens of each example: its prompt and first reference, and with `every_turn` whole conversations.

    The prompt has the special tokens that the tokenizer adds by itself; with a chat template, those in the template.
    With `every_turn` (decoder-only) an example that has earlier turns has as its prompt what comes before the
    assistant's first turn, and as its completion all the rest, of which the assistant's turns are counted.
    """
    _check_chat(chat, encoder_decoder)
    ends = [i for i in (tokenizer.eos_token_id, *eos_token_ids) if i is not None]
    if not ends:
        raise UsageError("the tokenizer names no end-of-sequence token; set its eos_token")
    whole = [every_turn and bool(r.turns) and not encoder_decoder for r in rendered]
    alone = [r for r, is_whole in zip(rendered, whole, strict=True) if not is_whole]
    if chat:
        texts = [chat_texts(tokenizer, r.prompt, r.references[0], r.system, ends, r.turns) for r in alone]
    else:
        texts = [(plain_prompt(r.prompt, r.system, r.turns), r.references[0]) for r in alone]
    prompts = _prompt_ids(tokenizer, [prompt for prompt, _ in texts], chat, encoder_decoder)
    completions = _ids(tokenizer, [completion for _, completion in texts], special=False)
    closed = (_closed(ids, ends) for ids in completions)
    choices = _choices(tokenizer, alone, [completion for _, completion in texts])
    pairs = zip(prompts, closed, itertools.repeat(None, len(alone)), choices, strict=True)
    conversations = [r for r, is_whole in zip(rendered, whole, strict=True) if is_whole]
    pieces = (chat_pieces(tokenizer, r, ends) if chat else plain_pieces(r) for r in conversations)
    wholes = (_conversation(tokenizer, p, chat, ends) for p in pieces)
    return [next(wholes) if is_whole else Tokens(*next(pairs)) for is_whole in whole]


def _choices(tokenizer: Any, rendered: Sequence[Rendered], completions: Sequence[str]) -> list[tuple]:
    """The ids of each example's choices, written as its completion is; none where that is no choice but a sentence."""
    texts: list[list[str]] = []
    for one, completion in zip(rendered, completions, strict=True):
        label = one.references[0].strip()
        written = label in one.choices and label in completion
        # What a chat template, or the space after a colon, sets before an answer stays before each.
        lead = completion[: completion.index(label)] if written else ""
        texts.append([lead + choice for choice in one.choices] if written else [])
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    ids = dict(zip(distinct, map(tuple, _ids(tokenizer, distinct, special=False)), strict=True)) if distinct else {}
    return [tuple(ids[text] for text in row) for row in texts]


def _conversation(tokenizer: Any, pieces: Pieces, chat: bool, ends: Sequence[int]) -> Tokens:
    # Tokenised piece by piece, so that each answer starts where generation would start it.
    prompt = _prompt_ids(tokenizer, [pieces[0][0]], chat, False)[0]
    rest = _ids(tokenizer, [text for text, _ in pieces[1:]], special=False)
    tokens, counted = [], []
    for ids, (_, learnt) in zip(rest, pieces[1:], strict=True):
        ids = _closed(ids, ends) if learnt else ids
        tokens += ids
        counted += [learnt] * len(ids)
    return Tokens(prompt, tokens, counted)


def _closed(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids if not ids or ids[-1] in ends else [*ids, ends[0]]


def _check_chat(chat: bool, encoder_decoder: bool) -> None:
    if chat and encoder_decoder:
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
    return cached_tokens(tokenizer, texts, special)
