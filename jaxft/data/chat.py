"""The prompt and completion texts of one exchange under a tokenizer's chat template.

The template is rendered twice: the user's turn with the generation prompt, and the whole conversation. What the second
has beyond the first, up to and including the end-of-turn token, is what the model has to write. Generation markers
(`{% generation %}`) are not relied on: most templates have none, and the mask then comes out all ones or all zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxft.errors import UsageError


def chat_prompt(tokenizer: Any, prompt: str, system: str | None = None) -> str:
    """Return the user's turn, after the system's if there is one, rendered up to where the assistant begins.

    Raises UsageError where the tokenizer has no chat template, or one that refuses the conversation.
    """
    return _apply(tokenizer, _turns(prompt, system), add_generation_prompt=True)


def chat_texts(
    tokenizer: Any, prompt: str, completion: str, system: str | None = None, eos_token_ids: Sequence[int] = ()
) -> tuple[str, str]:
    """Return the rendered prompt, and the text to be written after it with its end token if the template has one.

    `eos_token_ids` default to the tokenizer's own end token. Raises UsageError as `chat_prompt` does, and for a
    template that rewrites what the assistant said.
    """
    before = chat_prompt(tokenizer, prompt, system)
    turns = [*_turns(prompt, system), {"role": "assistant", "content": completion}]
    whole = _apply(tokenizer, turns, add_generation_prompt=False)
    content = completion if completion in whole else completion.strip()
    if whole.startswith(before):
        after = whole[len(before) :]
    elif (start := whole.rfind(content)) >= 0:
        # Some templates end the generation prompt with more than the finished turn has (an empty "thinking" block).
        after = whole[start:]
    else:
        raise UsageError("the chat template rewrites the assistant's turn; set `chat: false`")
    ends = [tokenizer.convert_ids_to_tokens(int(i)) for i in eos_token_ids or [tokenizer.eos_token_id]]
    return before, _until_end(after, content, ends)


def _turns(prompt: str, system: str | None) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, user] if system else [user]


def _apply(tokenizer: Any, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
    import jinja2

    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("the tokenizer has no chat template; set `chat: false`")
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
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
