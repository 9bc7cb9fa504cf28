"""The fields of a recipe, and the settings of the methods, as `--help` prints them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from jaxft.recipe.schema import recipe_fields

_INDENT = " " * 6


def explain(*sections: str) -> str:
    """Return a paragraph for each field of the named sections ("" is the whole recipe): type, default, meaning.

    >>> print(explain("mesh").split("\\n")[0])
    fields (YAML, or --field=value):
    """
    lines = ["fields (YAML, or --field=value):"]
    for field in recipe_fields():
        if "" in sections or field.key.split(".")[0] in sections:
            lines += _paragraph(field.key, field.type, field.default, field.help)
    if {"", "method"} & set(sections):
        lines += ["", "settings of the methods:"]
        lines += _methods()
    return "\n".join(lines)


def _methods() -> Iterator[str]:
    from jaxft.methods import METHODS

    for name, constructor in METHODS.items():
        explained = inspect.getdoc(constructor) or ""
        yield f"  method.name={name}  {explained.partition(chr(10))[0]}"
        for parameter in inspect.signature(constructor).parameters.values():
            # Docstrings explain each argument in a paragraph that begins with its name.
            found = re.search(rf"^ +{parameter.name}: (.+(\n {{5,}}.+)*)", explained, re.MULTILINE)
            text = " ".join(found[1].split()) if found else ""
            yield from _paragraph(f"method.{parameter.name}", str(parameter.annotation), parameter.default, text)


def _paragraph(key: str, type_name: str, default: Any, text: str) -> list[str]:
    shown = "required" if default is dataclasses.MISSING else f"default {_plain(default)}"
    return [
        f"  {key}  ({type_name}; {shown})",
        *textwrap.wrap(text, 110, initial_indent=_INDENT, subsequent_indent=_INDENT),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) and not value else str(value)
