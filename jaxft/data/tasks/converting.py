"""Templates of others: promptsource's Jinja (`input ||| target`) and FLAN's str.format patterns."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxft.data.tasks.task import Template
from jaxft.data.templates import check_template
from jaxft.errors import UsageError

_OPTIONS = "OPTIONS:\n- {{ options | join('\n- ') }}"


def from_promptsource(id: str, jinja: str, answer_choices: str | None = None, held_out: bool = False) -> Template:
    """Return the template of a promptsource entry: `jinja` has input and target on the two sides of `|||`.

    `answer_choices` is a text, or a Jinja template of one, with `|||` between the choices. UsageError for a template
    without `|||`, and for one that draws at random (`choice`) or uses other filters that Jinja does not have.
    """
    if "|||" not in jinja:
        raise UsageError(f"template {id!r} has no '|||' between input and target")
    text = re.sub(r"\banswer_choices\b", "options", jinja)
    halves = [half.strip() for half in text.split("|||", 1)]
    prompt, completion = (half if "{{" in half or "{%" in half else f"{{{{ {half!r} }}}}" for half in halves)
    try:
        check_template(id, prompt)
        check_template(id, completion)
    except UsageError:
        # The bar stands inside an {% if %}: render the whole, then take its sides.
        whole = f"{{% set whole %}}{text}{{% endset %}}"
        prompt, completion = (f"{whole}{{{{ (whole.split('|||') + [''])[{side}] | trim }}}}" for side in (0, 1))
    choices: list[str] | str | None = answer_choices
    if answer_choices is not None and "{{" not in answer_choices and "{%" not in answer_choices:
        choices = [choice.strip() for choice in answer_choices.split("|||")]
    return Template(id, prompt, completion, choices=choices, held_out=held_out)


def from_flan(id: str, input: str, target: str, held_out: bool = False) -> Template:
    """Return the template of a FLAN pattern pair; `{options_}` lists the choices as FLAN writes them.

    >>> from_flan("a", "{premise} So {hypothesis}?\\n{options_}", "{answer}").prompt
    "{{ premise }} So {{ hypothesis }}?\\nOPTIONS:\\n- {{ options | join('\\n- ') }}"
    """
    return Template(id, "".join(_jinja(id, input)), "".join(_jinja(id, target)), held_out=held_out)


def converted(values: Mapping[str, Any]) -> Mapping[str, Any] | Template:
    """Return a template's mapping as it is, or the template of one in promptsource's or FLAN's words."""
    rest = {key: value for key, value in values.items() if key in ("id", "held_out")}
    if "promptsource" in values:
        return from_promptsource(jinja=values["promptsource"], answer_choices=values.get("answer_choices"), **rest)
    if set(values) - set(rest) == {"input", "target"}:
        return from_flan(input=values["input"], target=values["target"], **rest)
    return values


def flan_templates(patterns: Sequence[Mapping[str, str]]) -> tuple[Template, ...]:
    """Return the templates of a list of FLAN's `{input, target}` patterns, named by their numbers."""
    return tuple(from_flan(f"flan_{i}", one["input"], one["target"]) for i, one in enumerate(patterns))


def _jinja(id: str, pattern: str) -> Iterator[str]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise UsageError(f"template {id!r}: {pattern!r} is no str.format pattern ({error})") from None
    for literal, field, spec, conversion in parts:
        yield f"{{% raw %}}{literal}{{% endraw %}}" if "{" in literal else literal
        if field == "options_":
            yield _OPTIONS
        elif field is not None:
            if spec or conversion or not field.isidentifier():
                raise UsageError(f"template {id!r}: {{{field}}} is no bare field name")
            yield f"{{{{ {field} }}}}"
