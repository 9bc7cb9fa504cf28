"""The record of a task, and the rows it is about.

    name: glue/rte
    source: "{root}/glue/rte"                     # a file, a directory, {split: file}, or a name on the hub
    splits: {train: train, validation: 200, test: dev}      # a number: so many rows of train, or a share of them
    fields: {answer: "{{ {'entailment': 'yes', 'not_entailment': 'no'}.get(label, label) }}"}
    completion: answer
    choices: ["yes", "no"]
    templates:
      follows: "{{ sentence1 }}\\nDoes it follow that {{ sentence2 }}"
      is_true: {prompt: "Is it true that {{ sentence2 }}", held_out: true}

Every text with `{{ }}` is a Jinja template over the row, sandboxed as in `jaxft.data.templates`; a text without names a
field. A field that is one expression keeps its type. Templates also see `options` (the list of choices, if there are
any) and `reason_first` (whether the answer comes with its rationale).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict

from jaxft.data.formats import canonical
from jaxft.data.rows import Row, Rows, Unusable
from jaxft.data.sources import carve, read_cached, split_name
from jaxft.data.templates import BadRow, check_template, evaluate, render_references
from jaxft.errors import UsageError, nearest

_CONFIG = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclasses.dataclass(frozen=True)
class Template:
    """One phrasing. What it does not say is the task's.

    rationale: the completion with the reasoning before the answer. choices: the answers in this phrasing's words.
    held_out: never drawn in training.
    """

    __pydantic_config__ = _CONFIG

    id: str
    prompt: str
    completion: str | None = None
    rationale: str | None = None
    choices: list[str] | str | None = None
    system: str | None = None
    held_out: bool = False

    def __post_init__(self):
        for kind in ("prompt", "completion", "rationale", "choices", "system"):
            text = getattr(self, kind)
            if isinstance(text, str):
                check_template(f"template {self.id!r}: {kind}", text)


@dataclasses.dataclass(frozen=True)
class Task:
    """A task; `load_task` makes one of YAML or a mapping and names what is wrong with it.

    source: a file, a directory or a name on the hub, or one for each split; paths start at the working directory.
    splits: the task's splits and the source's (empty: the source's own). where: keep the rows that have these values.
    fields: new fields, in order. completion: the answer, checked against `choices` (a list, or an expression over the
    row). format: what the rows are (see `jaxft.data.formats`); then templates may be left out. metrics, licence and
    stop (texts that end an answer) say how it is scored and used. train: False for what may only be evaluated.
    """

    __pydantic_config__ = _CONFIG

    name: str
    source: str | dict[str, str]
    templates: tuple[Template, ...] = ()
    version: str = "1"
    format: str | None = None
    streaming: bool = False
    splits: dict[str, str | int | float] = dataclasses.field(default_factory=dict)
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    system: str | None = None
    completion: str | None = None
    choices: list[str] | str | None = None
    metrics: tuple[str, ...] = ()
    licence: str = ""
    stop: tuple[str, ...] = ()
    train: bool = True

    def __post_init__(self):
        if not self.name.strip():
            raise UsageError("a task needs a name")
        if self.format is not None and not self.templates:
            object.__setattr__(self, "templates", (Template("as_is", "prompt"),))
        if self.format is not None and self.completion is None:
            object.__setattr__(self, "completion", "completion")
        if isinstance(self.choices, list) and len(set(self.choices)) < max(len(self.choices), 2):
            raise UsageError("choices: give two or more different ones")
        _check_templates(self)
        object.__setattr__(self, "splits", {split_name(k): v for k, v in self.splits.items()})

    def rows(self, split: str, limit: int | None = None, on_bad: str = "error") -> Rows:
        """Return the first `limit` rows of a split with the task's fields.

        Raises UsageError for a split that is missing or not to be trained on, and for a row whose fields cannot be made
        or whose label is not among the choices, naming file and line. With `on_bad="skip"` such rows stay in their
        places as `Unusable`, and are counted and left out where examples are made.
        """
        rows = self._read(split_name(split)).limit(limit)
        made = [self._prepared(row) for row in rows]
        bad = [(i, row.reason) for i, row in enumerate(made) if isinstance(row, Unusable)]
        if bad and on_bad == "error":
            i, reason = bad[0]
            raise UsageError(f"{self.name}: {rows.place(i)}: {reason} ({len(bad)} of {len(rows)} rows are bad); "
                             "mend them, or set on_bad to 'skip'")  # fmt: skip
        named = [_named(row, rows.id(i)) for i, row in enumerate(made)]
        return Rows(named, rows.split, places=[rows.place(i) for i in range(len(rows))])

    def options(self, row: Row, template: Template | None = None) -> tuple[str, ...]:
        """Return the answers that a row has; none if it is not a choice."""
        choices = self.choices if template is None or template.choices is None else template.choices
        if choices is None or isinstance(choices, list):
            return tuple(choice.strip() for choice in choices or ())
        values = evaluate("choices", choices, row)
        if isinstance(values, str) and "|||" in values:
            values = [value.strip() for value in values.split("|||")]
        if isinstance(values, (str, int, float, type(None))):
            raise UsageError(f"{self.name}: choices {choices!r} give no list but {values!r}")
        return tuple(str(value).strip() for value in values)

    def context(self, row: Row, template: Template | None = None, reason_first: bool = False) -> dict[str, Any]:
        """Return what templates see of a row."""
        options = self.options(row, template)
        has = self.choices is not None or (template is not None and template.choices is not None)
        return {**row, **({"options": list(options)} if has else {}), "reason_first": reason_first}

    def answers(self, row: Row, template: Template | None = None) -> tuple[str, ...]:
        """Return the texts of a right answer; BadRow for one that is empty or not among the choices."""
        own = template.completion if template is not None else None
        options = self.options(row, template)
        context = self.context(row, template)
        references = render_references(own or self.completion or "", context)
        # A phrasing may wrap the answer in words of its own; then the task's answer is what is looked up.
        wrapped = own is not None and template is not None and template.choices is None
        label = references if not wrapped or self.completion is None else render_references(self.completion, context)
        if options and label[0].strip() not in options:
            raise BadRow(f"the label {label[0].strip()!r} is not among {', '.join(map(repr, options))}")
        return references

    def _prepared(self, row: Row) -> dict[str, Any]:
        if isinstance(row, Unusable):
            return row
        made = {**row, "about": self.about} if self.about else dict(row)
        try:
            for name, value in self.fields.items():
                made[name] = evaluate(f"{self.name}: field {name!r}", value, made) if isinstance(value, str) else value
            if self.completion is not None and self.choices is not None:
                self.answers(made)
        except BadRow as error:
            return Unusable(row, str(error))
        return made

    def _read(self, split: str) -> Rows:
        if split == "train" and not self.train:
            raise UsageError(f"{self.name} is for evaluation only: it may not be trained on")
        wanted = self.splits.get(split, None if self.splits else split)
        if wanted is None:
            raise UsageError(f"{self.name}: no split {split!r}; it has {', '.join(self.splits)}")
        sizes = {name: size for name, size in self.splits.items() if not isinstance(size, str)}
        if split in sizes or (split == "train" and sizes):
            train = self.splits.get("train", "train")
            parts = carve(self._chosen(str(train), "train"), sizes)
            return parts[split]
        return self._chosen(str(wanted), split)

    def _chosen(self, wanted: str, split: str) -> Rows:
        whole = isinstance(self.source, Mapping)
        part = None if whole else wanted
        rows = read_cached(self._path(wanted), part, name=split, where=self.where, streaming=self.streaming)
        if not len(rows):
            raise UsageError(f"{self.name}: no row of split {split!r} has {self.where}")
        return rows if self.format is None else canonical(rows, self.format)

    def _path(self, wanted: str) -> str:
        source = self.source
        if isinstance(source, Mapping):
            if wanted not in source:
                raise UsageError(f"{self.name}: its source has no {wanted!r}{nearest(wanted, source)}")
            source = source[wanted]
        if "{root}" in source:
            raise UsageError(f"{self.name}: its data lie in {source}; say where with `root` or JAXFT_DATA")
        return source


def _check_templates(task: Task) -> None:
    ids = [template.id for template in task.templates]
    if len(set(ids)) < len(ids):
        raise UsageError(f"templates: the id {next(i for i in ids if ids.count(i) > 1)!r} is there twice")
    if not any(not template.held_out for template in task.templates):
        raise UsageError("templates: give at least one that is not held out")
    if task.completion is None and any(template.completion is None for template in task.templates):
        raise UsageError("completion is missing: set it for the task, or for each template")
    texts: Sequence[tuple[str, Any]] = [
        ("system", task.system),
        ("completion", task.completion),
        ("choices", task.choices),
        *((f"field {name!r}", text) for name, text in task.fields.items()),
    ]
    for kind, text in texts:
        if isinstance(text, str):
            check_template(kind, text)


def _named(row: dict[str, Any], name: str) -> dict[str, Any]:
    # The id stays with the row, wherever it is taken to.
    if row.get("id") not in (None, ""):
        return row
    named = {**row, "id": name}
    return Unusable(named, row.reason) if isinstance(row, Unusable) else named
