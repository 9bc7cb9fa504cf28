"""Perturbed versions of examples: the fields of a row are perturbed, then it is rendered and encoded as ever.

What is perturbed is what the prompt writes out of a row: each text field that its template has as `{{ field }}`, plain
or filtered, and uses for nothing else (a field that is compared or indexed keeps its meaning). What stays:

- the template's own words, worked examples and the chat template (HELM, too, leaves instructions and examples alone);
- the choices and the right answer, whatever the perturbation: a field that is one of them is left as it is, and so are
  the letters that mark options, `A.` at the start of a line and `(A)` anywhere (own definition: HELM's perturbations
  for fairness also change the texts of choices);
- fields that a family of tasks is divided by (`where`), and those made only of such fields or of `about`.

References of texts to be written are changed with the fields where HELM does so: dialect, gender and names.

    versions = perturbed_examples(rows, examples, encode, "{{ dialogue }}", ["typos", "person_name"])
    versions["typos"][0].prompt                                            # examples[0] with typos
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from jaxft.data import Encoded
from jaxft.data.rows import Row, Rows, Unusable
from jaxft.data.sources import split_name
from jaxft.data.tasks import Task
from jaxft.data.templates import is_template
from jaxft.evaluation.choices import is_ranked
from jaxft.evaluation.helm.perturbations import PERTURBATIONS, check_perturbations, perturb
from jaxft.evaluation.helm.words import Words, own_words

_ENVIRONMENT = jinja2.Environment()
_OPTION = re.compile(r"((?:^|(?<=\n))[ \t]*[A-Z][.):](?=\s)|\([A-Z]\))")
Encode = Callable[[Any], Sequence[Encoded]]


def perturbed_examples(
    rows: Any,
    examples: Sequence[Encoded],
    encode: Encode,
    prompt: str | None,
    perturbations: Sequence[str],
    *,
    seed: int = 0,
    words: Words | None = None,
) -> dict[str, list[Encoded | None]]:
    """Return for each perturbation the examples that it makes of `examples`, None for those that it leaves as they are.

    rows: the split's `Rows`, with the `prompt` template or field that they are written by; or its tasks, as a recipe's
    `TaskRows`. encode: makes examples of such rows; those that it leaves out (too long, for one) are None, too.
    """
    check_perturbations(perturbations)
    words = own_words() if words is None else words
    found = {}
    for name in perturbations:
        change = functools.partial(perturb, name, seed=seed, words=words)
        references = PERTURBATIONS[name].references
        if isinstance(rows, Rows):
            changer = _Changer(change, {example.id: example for example in examples}, references, {})
            changers = {"": changer}
            changed = changer.rows(rows, written_fields(prompt or ""))
        else:
            changers = {one.task.name: _Changer(change, _of_task(examples, one.task), references, {})
                        for one in rows.chosen}  # fmt: skip
            tasks = [one._replace(task=_perturbed(one.task, rows.split, changers[one.task.name]))
                     for one in rows.chosen]  # fmt: skip
            changed = dataclasses.replace(rows, chosen=tuple(tasks))
        by_id = {example.id: example for example in encode(changed)}
        made = {example.id: text for one in changers.values() for example, text in one.made.values()}
        found[name] = [_version(example, by_id.get(example.id), made.get(example.id)) for example in examples]
    return found


def written_fields(template: str) -> tuple[str, ...]:
    """Return the fields that a template, or a field's name, writes out and uses for nothing else, in order.

    >>> written_fields("{% if kind == 'cause' %}{{ kind }}{% endif %} {{ text | trim }} {{ text }} {{ options[0] }}")
    ('text',)
    """
    if not is_template(template):
        return (template,) if template else ()
    tree = _ENVIRONMENT.parse(template)
    written = [name for output in tree.find_all(nodes.Output) for node in output.nodes if (name := _bare(node))]
    all_names = [node.name for node in tree.find_all(nodes.Name)]
    return tuple(name for name in dict.fromkeys(written) if written.count(name) == all_names.count(name))


def protected(texts: Sequence[str], change: Callable[[Sequence[str]], list[str]]) -> list[str]:
    """Return the changed texts of an example, with the letters that mark options as they were.

    >>> protected(["Which?\\n(A) Red\\n(B) Blue"], lambda texts: [text.lower() for text in texts])
    ['which?\\n(A) red\\n(B) blue']
    """
    parts = [_OPTION.split(text) for text in texts]
    new = iter(change([part for some in parts for part in some[::2]]))
    for some in parts:
        some[::2] = [next(new) for _ in some[::2]]
    return ["".join(some) for some in parts]


def _bare(node: nodes.Node) -> str | None:
    while isinstance(node, nodes.Filter):
        if node.node is None:
            return None
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


@dataclasses.dataclass(frozen=True)
class _Changer:
    """Changes the rows of the examples `originals` (by row id); `made` gets each one's references as they are now."""

    change: Callable[..., list[str]]
    originals: Mapping[str, Encoded]
    references: bool
    made: dict[str, tuple[Encoded, tuple[str, ...]]]

    def rows(self, rows: Rows, fields: Sequence[str]) -> Rows:
        new = [self._row(rows[i], rows.id(i), fields) for i in range(len(rows))]
        return Rows(new, rows.split, places=[rows.place(i) for i in range(len(rows))])

    def _row(self, row: Row, name: str, fields: Sequence[str]) -> Row:
        original = self.originals.get(name)
        if original is None or isinstance(row, Unusable):
            return row
        answers = {*original.choices, *original.references}
        kept = [field for field in fields if isinstance(row.get(field), str) and row[field].strip()]
        kept = [field for field in kept if row[field].strip() not in answers]
        references = original.references if self.references and not is_ranked(original) else ()
        # All of an example at once, references first as in HELM, so that a name becomes the same one everywhere.
        texts = [*references, *(row[field] for field in kept)]
        new = protected(texts, functools.partial(self.change, row=name))
        self.made[name] = original, tuple(new[: len(references)]) or original.references
        return {**row, "id": name, **dict(zip(kept, new[len(references) :], strict=True))}


@dataclasses.dataclass(frozen=True)
class _Perturbed(Task):
    """A task whose rows of one split are changed after they have been prepared."""

    changer: Any = None
    on: str = ""

    def rows(self, split: str, limit: int | None = None, on_bad: str = "error") -> Rows:
        rows = super().rows(split, limit, on_bad)
        if split_name(split) != self.on:  # worked examples are of another one
            return rows
        return self.changer.rows(rows, sorted(name for name in _written_by(self) if _varies(self, name)))


def _perturbed(task: Task, split: str, changer: _Changer) -> Task:
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(Task)}
    return _Perturbed(**fields, changer=changer, on=split_name(split))


def _of_task(examples: Sequence[Encoded], task: Task) -> dict[str, Encoded]:
    # A recipe's examples are named after their task and row.
    return {example.id.removeprefix(f"{task.name}:"): example for example in examples if example.task == task.name}


def _written_by(task: Task) -> set[str]:
    """Fields that every phrasing which uses them only writes out."""
    used = {
        template.id: set(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(template.prompt)))
        if is_template(template.prompt)
        else {template.prompt}
        for template in task.templates
    }
    written = {template.id: set(written_fields(template.prompt)) for template in task.templates}
    return set().union(*written.values()) - set().union(*(used[name] - written[name] for name in used))


def _varies(task: Task, name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a field says something of the row, and not of the part of a family that the task is."""
    if name in task.where or name in ("about", "id") or name in seen:
        return False
    made = task.fields.get(name)
    if made is None:
        return True
    if not isinstance(made, str) or not is_template(made):
        return False
    needs = jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(made))
    return any(_varies(task, one, seen | {name}) for one in needs)


def _version(original: Encoded, changed: Encoded | None, references: tuple[str, ...] | None) -> Encoded | None:
    if changed is None or changed.prompt.tolist() == original.prompt.tolist():
        return None
    # The prompt alone is new, and references of what is to be written: label and choices stay by construction.
    return dataclasses.replace(original, prompt=changed.prompt, references=references or original.references)
