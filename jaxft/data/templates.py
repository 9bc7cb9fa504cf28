"""Templates: what a row says to the model, and what the model should answer.

A `Format` holds a prompt and a completion, each a Jinja template or the bare name of a field. Templates run in
Jinja's immutable sandbox, see the row's fields and nothing else, and are pure (no `random`, no `lipsum`). Text is taken
exactly as rendered: nothing is stripped, and a newline at the end of a template stays.

>>> format = Format(prompt="Summarise:\\n{{ dialogue }}\\nSummary:", completion=" {{ summary }}")
>>> render(format, {"dialogue": "A: Hi", "summary": "A greets."}).references
(' A greets.',)

A completion that uses a list-valued field gives one reference per element; the first is trained on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from jaxft.errors import UsageError, nearest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Format:
    """How a row becomes a prompt and a completion.

    prompt, completion: a Jinja template, or the name of a field. chat: send the prompt as a user turn through the
    tokenizer's chat template. system: a system turn before it (a template too; chat only).
    """

    prompt: str
    completion: str
    chat: bool = False
    system: str | None = None

    def __post_init__(self):
        if self.system is not None and not self.chat:
            raise UsageError("format: `system` needs `chat: true`; without chat, write it into the prompt")


class Rendered(NamedTuple):
    """One rendered row; `references[0]` is the completion to train on.

    A conversation of several exchanges has `turns` before the prompt, `(role, text)` each.
    """

    prompt: str
    references: tuple[str, ...]
    system: str | None
    turns: tuple[tuple[str, str], ...] = ()
    task: str = ""
    template: str = ""
    choices: tuple[str, ...] = ()


class BadRow(ValueError):
    """A row whose prompt or completion is null or empty, or that lacks a field other rows have."""


class AbsentField(UsageError):
    """A template names a field that the row does not have."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def render(format: Format, row: Mapping[str, Any]) -> Rendered:
    """Return the row's prompt, references and system text.

    Raises AbsentField (a UsageError) for a field the row lacks, UsageError for what the template may not do, and
    BadRow for a null or empty prompt or completion.
    """
    prompt, system = render_prompt(format, row)
    return Rendered(prompt, render_references(format.completion, row), system)


def render_references(completion: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a completion says of a row, one text for each element of a list; raises what `render` raises."""
    references = _render("completion", completion, row, several=True)
    if not references or not all(reference.strip() for reference in references):
        raise BadRow("the completion is empty")
    return references


def render_prompt(format: Format, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the row's prompt and system text alone; raises what `render` raises."""
    prompt = _render("prompt", format.prompt, row, several=False)[0]
    if not prompt.strip():
        raise BadRow("the prompt is empty")
    system = format.system and _run(_compile(format.system, "system"), "system", format.system, row)
    return prompt, system


def evaluate(kind: str, text: str, row: Mapping[str, Any]) -> Any:
    """Return what a field's name or a template makes of a row; raises what `render` raises.

    A template that is one expression gives its value, of whatever type: a list stays a list.

    >>> evaluate("choices", "{{ words | map('upper') }}", {"words": ["yes", "no"]})
    ['YES', 'NO']
    """
    if not is_template(text):
        if text not in row:
            raise AbsentField(f"{kind}: no field {text!r}{nearest(text, row)}", text)
        return row[text]
    compiled = _compile(text, kind)
    expression = _expression(text)
    if expression is None:
        return _run(compiled, kind, text, row)
    value = _guarded(lambda: _written_out(expression(dict(row))), compiled[1], kind, text, row)
    return list(value) if hasattr(value, "__next__") else value


def is_template(text: str) -> bool:
    """Say whether a text is a template and not the name of a field."""
    return "{{" in text or "{%" in text


def check_template(kind: str, text: str) -> None:
    """Raise UsageError for a template that does not compile."""
    if is_template(text):
        _compile(text, kind)


class _WritesList(Exception):
    pass


class _WritesNull(Exception):
    pass


def _written(value: Any) -> Any:
    if value is None:
        raise _WritesNull
    if isinstance(value, (str, int, float, jinja2.Undefined)):
        return value
    if isinstance(value, (list, tuple, dict, set)) or hasattr(value, "__next__"):
        raise _WritesList
    return str(value)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_written
    )
    environment.globals.pop("lipsum")
    environment.filters.pop("random")
    return environment


_ENVIRONMENT = _environment()


@functools.lru_cache(maxsize=1024)
def _compile(text: str, kind: str) -> tuple[jinja2.Template, frozenset[str]]:
    try:
        names = jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
        return _ENVIRONMENT.from_string(text), frozenset(names - set(_ENVIRONMENT.globals))
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"{kind} template {_short(text)}: {error.message} (line {error.lineno})") from None
    except jinja2.TemplateError as error:
        raise UsageError(f"{kind} template {_short(text)}: {error}") from None


def _render(kind: str, text: str, row: Mapping[str, Any], several: bool) -> tuple[str, ...]:
    if not is_template(text):
        return _field(kind, text, row, several)
    compiled = _compile(text, kind)
    try:
        return (_run(compiled, kind, text, row),)
    except _WritesList:
        lists = {name: row[name] for name in sorted(compiled[1]) if isinstance(row.get(name), list)}
        if not several or not lists:
            hint = "writes a list; pick an element or join it"
            raise UsageError(f"{kind} template {_short(text)} {hint}") from None
    count = max(len(values) for values in lists.values())
    if any(len(values) != count for values in lists.values()):
        raise BadRow(f"the lists {', '.join(lists)} differ in length")
    picked = [{**row, **{name: values[i] for name, values in lists.items()}} for i in range(count)]
    return tuple(_run(compiled, kind, text, one) for one in picked)


def _field(kind: str, name: str, row: Mapping[str, Any], several: bool) -> tuple[str, ...]:
    if name not in row:
        message = f"{kind}: no field {name!r}{nearest(name, row)} (text without {{{{ }}}} names a field)"
        raise AbsentField(message, name)
    values = row[name] if several and isinstance(row[name], list) else [row[name]]
    try:
        return tuple(str(_written(value)) for value in values)
    except _WritesNull:
        raise BadRow(f"the field {name!r} is null") from None
    except _WritesList:
        raise UsageError(f"{kind}: the field {name!r} is not text; write a template that picks from it") from None


def _run(compiled: tuple[jinja2.Template, frozenset[str]], kind: str, text: str, row: Mapping[str, Any]) -> str:
    template, names = compiled
    return _guarded(lambda: template.render(dict(row)), names, kind, text, row)


def _guarded(call: Callable[[], T], names: frozenset[str], kind: str, text: str, row: Mapping[str, Any]) -> T:
    try:
        return call()
    except _WritesList:
        raise
    except _WritesNull:
        nulls = [name for name in sorted(names) if row.get(name) is None]
        raise BadRow(f"the field {nulls[0]!r} is null" if nulls else f"the {kind} writes a null") from None
    except jinja2.UndefinedError as error:
        for name in sorted(names - set(row)):
            message = f"{kind} template {_short(text)} names no field of the data: {name!r}{nearest(name, row)}"
            raise AbsentField(message, name) from None
        raise UsageError(f"{kind} template {_short(text)}: {error}") from None
    except jinja2.sandbox.SecurityError as error:
        raise UsageError(f"{kind} template {_short(text)}: forbidden in a template ({error})") from None
    except Exception as error:  # a template may divide by zero, add text to numbers, loop without end ...
        raise UsageError(f"{kind} template {_short(text)}: {error}") from None


@functools.lru_cache(maxsize=1024)
def _expression(text: str) -> Callable[..., Any] | None:
    """The one expression that a template consists of, as a function of the row."""
    body = _ENVIRONMENT.parse(text.strip()).body
    nodes = body[0].nodes if len(body) == 1 and isinstance(body[0], jinja2.nodes.Output) else []
    if len(nodes) != 1 or isinstance(nodes[0], jinja2.nodes.TemplateData):
        return None
    return _ENVIRONMENT.compile_expression(text.strip()[2:-2].strip("-"), undefined_to_none=False)


def _written_out(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        str(value)  # a strict undefined value raises as soon as it is used
    return value


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
