"""Conversations as texts: under a tokenizer's chat template, or plainly.

A conversation is a `Rendered`: the system's text, earlier `turns`, the user's prompt and the answer to it. The template
is rendered up to where the assistant begins (with the generation prompt), and with the answer. What the second has
beyond the first, up to and including the end-of-turn token, is what the model has to write. Generation markers
(`{% generation %}`) are not relied on: most templates have none, and the mask then comes out all ones or all zeros.

A template that refuses or ignores the system's turn gets its text at the head of the first user's turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxft.data.templates import Rendered
from jaxft.errors import UsageError

Turns = Sequence[tuple[str, str]]
Pieces = list[tuple[str, bool]]  # consecutive texts, each with whether it is learnt

_NAMES = {"user": "User", "assistant": "Assistant"}


def chat_prompt(tokenizer: Any, prompt: str, system: str | None = None, turns: Turns = ()) -> str:
    """Return the conversation rendered up to where the assistant begins to answer the prompt.

    Raises UsageError where the tokenizer has no chat template, or one that refuses the conversation.
    """
    return _apply(tokenizer, [*turns, ("user", prompt)], system, add_generation_prompt=True)


def chat_texts(
    tokenizer: Any,
    prompt: str,
    completion: str,
    system: str | None = None,
    eos_token_ids: Sequence[int] = (),
    turns: Turns = (),
) -> tuple[str, str]:
    """Return the rendered prompt, and the text to be written after it with its end token if the template has one.

    `eos_token_ids` default to the tokenizer's own end token. Raises UsageError as `chat_prompt` does, and for a
    template that rewrites what the assistant said.
    """
    before, whole, start, end = _answer(tokenizer, [*turns, ("user", prompt)], completion, system, eos_token_ids)
    return before, whole[start:end]


def chat_pieces(tokenizer: Any, rendered: Rendered, eos_token_ids: Sequence[int] = ()) -> Pieces:
    """Return the whole conversation in pieces, of which every answer of the assistant is learnt.

    Raises UsageError as `chat_texts` does, and for a template under which earlier turns look different later on.
    """
    turns = [*rendered.turns, ("user", rendered.prompt), ("assistant", rendered.references[0])]
    pieces: Pieces = []
    done = ""
    for i, (role, said) in enumerate(turns):
        if role != "assistant":
            continue
        before, whole, start, end = _answer(tokenizer, turns[:i], said, rendered.system, eos_token_ids)
        last = i == len(turns) - 1
        # Some templates end the generation prompt with more than a finished turn has: it is there where one answers.
        head = before if last else whole[:start]
        if not head.startswith(done):
            raise UsageError("the chat template rewrites earlier turns; learn the last answer alone, or no `chat`")
        pieces += [(head[len(done) :], False), (whole[start:end], True)]
        done = whole[:end]
    return pieces


def plain_prompt(prompt: str, system: str | None = None, turns: Turns = ()) -> str:
    """Return a conversation without a chat template, up to where the assistant answers; a bare prompt stays as it is.

    >>> plain_prompt("And 3+3?", "Be brief.", [("user", "2+2?"), ("assistant", "4")])
    'Be brief.\\n\\nUser: 2+2?\\nAssistant: 4\\nUser: And 3+3?\\nAssistant:'
    """
    head = f"{system}\n\n" if system else ""
    if not turns:
        return head + prompt
    said = [f"{_NAMES[role]}: {text}" for role, text in [*turns, ("user", prompt)]]
    return head + "\n".join(said) + "\nAssistant:"


def plain_pieces(rendered: Rendered) -> Pieces:
    """Return what `plain_prompt` writes and the answer in pieces, of which every answer is learnt."""
    turns = [*rendered.turns, ("user", rendered.prompt), ("assistant", rendered.references[0])]
    pieces: Pieces = []
    said = f"{rendered.system}\n\n" if rendered.system else ""
    for role, text in turns:
        if role == "assistant":
            pieces += [(f"{said}Assistant:", False), (f" {text.strip()}", True)]
            said = "\n"
        else:
            said += f"{_NAMES[role]}: {text}\n"
    return pieces


def _answer(
    tokenizer: Any, turns: Turns, answer: str, system: str | None, eos_token_ids: Sequence[int]
) -> tuple[str, str, int, int]:
    # The text before the answer, the whole, and where in it the answer starts and ends.
    before = _apply(tokenizer, turns, system, add_generation_prompt=True)
    whole = _apply(tokenizer, [*turns, ("assistant", answer)], system, add_generation_prompt=False)
    content = answer if answer in whole else answer.strip()
    if whole.startswith(before):
        start = len(before)
    elif (start := whole.rfind(content)) < 0:
        raise UsageError("the chat template rewrites the assistant's turn; set `chat: false`")
    # Otherwise the generation prompt ends with more than the finished turn has (an empty "thinking" block).
    ends = [tokenizer.convert_ids_to_tokens(int(i)) for i in eos_token_ids or [tokenizer.eos_token_id]]
    return before, whole, start, start + len(_until_end(whole[start:], content, ends))


def _apply(tokenizer: Any, turns: Turns, system: str | None, add_generation_prompt: bool) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    if not system:
        return _rendered(tokenizer, messages, add_generation_prompt)
    try:
        text = _rendered(tokenizer, [{"role": "system", "content": system}, *messages], add_generation_prompt)
        if system.strip() in text:
            return text
    except UsageError as error:
        if not messages or messages[0]["role"] != "user" or "no chat template" in str(error):
            raise
    folded = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
    return _rendered(tokenizer, [folded, *messages[1:]], add_generation_prompt)


def _rendered(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    import jinja2

    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("the tokenizer has no chat template; set `chat: false`")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateError as error:
        raise UsageError(f"the tokenizer's chat template refuses the conversation ({error})") from None


def _until_end(after: str, content: str, ends: Sequence[str]) -> str:
    # The search starts behind the content, which may itself quote an end token.
    start = max(after.find(content), 0) + (len(content) if content in after else 0)
    stops = [(at, end) for end in ends if (at := after.find(end, start)) >= 0]
    if stops:
        at, end = min(stops)
        return after[: at + len(end)]
    return after[:start] + after[start:].rstrip()
