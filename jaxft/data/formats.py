"""Formats that people's data sets have, made into rows with `prompt`, `completion`, and for conversations `turns`.

    {"instruction": ..., "input": ..., "output": ...}                          alpaca (dolly: context, response)
    {"messages": [{"role": "user", "content": ...}, ...]}                      messages (OpenAI)
    {"conversations": [{"from": "human", "value": ...}, ...]}                  sharegpt
    {"Definition": ..., "Positive Examples": ..., "Instances": [...]}          superni (a task file of its own)
    {"prompt": ..., "completion": ...}, input/target, question/answer ...      pairs

`auto` tells them apart by their fields. All rows of a file have to be of one kind: what differs is an error that names
both lines. A row's own fields stay, so that templates may use them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxft.data.rows import Row, Rows, Unusable
from jaxft.data.templates import BadRow
from jaxft.errors import UsageError, nearest

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("inputs", "targets"),
    ("input", "target"),
    ("input", "output"),
    ("question", "answer"),
    ("source", "target"),
)
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}


def canonical(rows: Rows, format: str = "auto") -> Rows:
    """Return the rows with the fields `prompt` and `completion`; conversations also have `system` and `turns`.

    A row that cannot be used (an unknown role, turns out of order) becomes `Unusable`. Raises UsageError for a format
    that does not exist or that the rows do not have, and for two schemas in one file.
    """
    if format != "auto" and format not in _FORMATS:
        raise UsageError(f"unknown format {format!r}{nearest(format, ['auto', *_FORMATS])}")
    schemas = [_schema(row, format) for row in rows]
    if schemas and not schemas[0]:
        known = f"format {format!r}" if format != "auto" else f"known format ({', '.join(_FORMATS)})"
        raise UsageError(f"{rows.place(0)}: its fields {_listed(rows[0])} are those of no {known}")
    for i, schema in enumerate(schemas):
        if schema != schemas[0]:
            raise UsageError(f"mixed schemas in one file: {rows.place(0)} has {_listed(rows[0])}, {rows.place(i)} has "
                             f"{_listed(rows[i])}; put each kind into a file of its own")  # fmt: skip
    if not schemas:
        return rows
    if schemas[0][0] == "superni":
        rows = _instances(rows)
    convert = _FORMATS[schemas[0][0]].convert
    made = [_converted(row, convert) for row in rows]
    return dataclasses.replace(rows, rows=made, indices=None, places=[rows.place(i) for i in range(len(rows))])


def conversation(messages: Any) -> dict[str, Any]:
    """Return `system`, `turns`, `prompt` and `completion` of a list of messages; BadRow says what is wrong with it.

    After the system's turn, if there is one, user and assistant take turns, and the assistant has the last word.

    >>> conversation([{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Hello"}])["completion"]
    'Hello'
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow("the conversation is empty")
    turns = [_turn(message, number) for number, message in enumerate(messages, start=1)]
    system = turns.pop(0)[1] if turns[0][0] == "system" else None
    first = len(messages) - len(turns) + 1
    for i, (role, _) in enumerate(turns):
        expected = ("user", "assistant")[i % 2]
        if role != expected:
            raise BadRow(f"turn {first + i} is out of order: {role} where {expected} is expected")
    if len(turns) < 2 or turns[-1][0] != "assistant":
        raise BadRow("the conversation does not end with an answer of the assistant")
    return {"system": system, "turns": turns[:-2], "prompt": turns[-2][1], "completion": turns[-1][1]}


def _turn(message: Any, number: int) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise BadRow(f"turn {number} is no message but {type(message).__name__}")
    role = message.get("role", message.get("from"))
    if role not in ROLES:
        raise BadRow(f"turn {number} has an unknown role: {role!r}{nearest(role, ROLES)}")
    text = message.get("content", message.get("value"))
    if isinstance(text, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in text):
        text = "".join(str(part.get("text") or "") for part in text)
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"turn {number} ({role}) has no text")
    return ROLES[role], text


def _alpaca(row: Row) -> dict[str, Any]:
    given = row.get("input") or row.get("context")
    prompt = f"{row['instruction']}\n\n{given}" if given and row["instruction"] else row["instruction"]
    return {"prompt": prompt, "completion": row["output"] if "output" in row else row["response"]}


def _superni(row: Row) -> dict[str, Any]:
    prompt = f"{row['about']['definition']}\n\nInput: {row['input']}\nOutput:"
    return {"prompt": prompt, "completion": row["output"]}


def _instances(rows: Rows) -> Rows:
    """Each instance of the task files, with what the file says of the task under `about`."""
    made, places = [], []
    for i, task in enumerate(rows):
        definition = task["Definition"]
        about = {key.lower().replace(" ", "_"): value for key, value in task.items() if key != "Instances"}
        about["definition"] = "\n".join(definition) if isinstance(definition, list) else definition
        for number, instance in enumerate(task["Instances"], start=1):
            made.append({**instance, "about": about})
            places.append(f"{rows.place(i)} instance {number}")
    return Rows(made, rows.split, places=places)


@dataclasses.dataclass(frozen=True)
class _Kind:
    schema: Callable[[Row], tuple[str, ...] | None]  # the fields by which a row is of this kind
    convert: Callable[[Row], dict[str, Any]]


def _has(*fields: str) -> Callable[[Row], tuple[str, ...] | None]:
    return lambda row: fields if all(field in row for field in fields) else None


def _pair(row: Row) -> tuple[str, ...] | None:
    return next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), None)


def _from_pair(row: Row) -> dict[str, Any]:
    prompt, completion = _pair(row) or PAIRS[0]
    return {"prompt": row[prompt], "completion": row[completion]}


_FORMATS = {
    "superni": _Kind(_has("Definition", "Instances"), _superni),
    "messages": _Kind(_has("messages"), lambda row: conversation(row["messages"])),
    "sharegpt": _Kind(_has("conversations"), lambda row: conversation(row["conversations"])),
    "alpaca": _Kind(_has("instruction", "output"), _alpaca),
    "dolly": _Kind(_has("instruction", "response"), _alpaca),
    "pairs": _Kind(_pair, _from_pair),
}


def _schema(row: Row, format: str) -> tuple[str, ...]:
    for name, kind in _FORMATS.items():
        if format in ("auto", name) and (fields := kind.schema(row)):
            return name, *fields
    return ()


def _converted(row: Row, convert: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {**row, **convert(row)}
    except BadRow as error:
        return Unusable(row, str(error))


def _listed(row: Row) -> str:
    return ", ".join(map(repr, row)) or "no fields"
