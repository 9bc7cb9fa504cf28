"""Ways to ask an untuned model: worked examples before the prompt, other wordings; and the examples that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxft.data import Encoded, EncodeReport, Format, Rows, render
from jaxft.data.sources import split_name
from jaxft.data.tasks import Task, Template, encode_task
from jaxft.data.templates import check_template
from jaxft.errors import UsageError
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.parts import AnyRows, data_format
from jaxft.runs.tasks import Chosen, TaskRows, merged

_NUMBERS = {0: "zero-shot", 1: "one-shot"}


class Variant(NamedTuple):
    """A way to ask: `shots` worked examples and one wording: a `prompt`, or of each task the phrasing of a number.

    Without either the wording is the recipe's, or one of the task's for each example.
    """

    name: str
    shots: int = 0
    prompt: str | None = None
    phrasing: int | None = None


def variants(recipe: Recipe, part: AnyRows) -> list[Variant]:
    """Return the ways that the recipe asks for: its numbers of shots, then its prompts and each task's phrasings."""
    options = recipe.evaluate.in_context
    found = [Variant(_NUMBERS.get(count, f"{count}-shot"), count) for count in dict.fromkeys(options.shots)]
    found += [Variant(f"prompt {i}", prompt=text) for i, text in enumerate(options.prompts, 1)]
    if isinstance(part, TaskRows):
        wordings = [_phrasings(recipe, one.task, part.split) for one in part.chosen]
        for i in range(min(options.phrasings, max(map(len, wordings)))):
            own = wordings[0][i].id if len(wordings) == 1 else i + 1
            found.append(Variant(f"phrasing {own}", phrasing=i))
    return found


def check_prompts(recipe: Recipe, rows: Mapping[str, AnyRows]) -> None:
    """Raise UsageError, before a model is loaded, for negative shots and prompts that fail on the data's first rows."""
    options = recipe.evaluate.in_context
    if options.enabled and (min(options.shots, default=0) < 0 or not (options.shots or options.prompts)):
        raise UsageError(f"evaluate.in_context.shots: {options.shots}: give numbers from 0, at least one")
    for text in options.prompts if options.enabled else ():
        check_template("evaluate.in_context.prompts:", text)
        for part in rows.values():
            if isinstance(part, TaskRows):
                continue  # fields are a task's own, and seen when its examples are made
            format = data_format(recipe)
            try:
                render(Format(text, format.completion, format.chat, format.system), part[0])
            except UsageError as error:
                raise UsageError(f"evaluate.in_context.prompts: {error}") from None
            except ValueError:
                continue  # a bad row: counted when all are encoded


def encode_variant(
    recipe: Recipe, rows: Mapping[str, AnyRows], split: str, variant: Variant, model: Model, wanted: Sequence[Encoded]
) -> tuple[list[Encoded], EncodeReport]:
    """Return the `wanted` examples asked in another way, and what was cut and left out for the model's context."""
    ids = {example.id for example in wanted}
    part = rows[split]
    if not isinstance(part, TaskRows):
        assert isinstance(part, Rows)
        task = _plain_task(recipe, variant, {name: own for name, own in rows.items() if isinstance(own, Rows)})
        task.held[split] = part.take([i for i in range(len(part)) if part.id(i) in ids])
        examples, report = _encode(recipe, task, split, variant, model)
        return [dataclasses.replace(example, task="", template="") for example in examples], report
    found: list[Encoded] = []
    reports = {}
    for one in part.chosen:
        held = _held(recipe, one, split, variant, ids)
        if len(held.held[split]):
            examples, reports[one.task.name] = _encode(recipe, held, split, variant, model)
            found += [dataclasses.replace(example, id=f"{one.task.name}:{example.id}") for example in examples]
    return found, merged(reports)


@dataclasses.dataclass(frozen=True)
class _Held(Task):
    """A task some of whose splits are here."""

    held: dict[str, Rows] = dataclasses.field(default_factory=dict)

    def rows(self, split: str, limit: int | None = None, on_bad: str = "error") -> Rows:
        own = self.held.get(split_name(split))
        return super().rows(split, limit, on_bad) if own is None else own.limit(limit)


def _plain_task(recipe: Recipe, variant: Variant, rows: Mapping[str, Rows]) -> _Held:
    format = data_format(recipe)
    template = Template("prompt", variant.prompt or format.prompt)
    return _Held("data", "", (template,), completion=format.completion, system=format.system, held=dict(rows))


def _held(recipe: Recipe, one: Chosen, split: str, variant: Variant, ids: set[str]) -> _Held:
    task = one.task
    rows = task.rows(split, one.limit.get(split), on_bad="skip")
    rows = rows.take([i for i in range(len(rows)) if f"{task.name}:{rows.id(i)}" in ids])
    templates = task.templates
    if variant.prompt is not None:
        templates = (Template("prompt", variant.prompt),)
    elif variant.phrasing is not None:
        own = _phrasings(recipe, task, split)
        templates = (own[variant.phrasing % len(own)],)
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(Task)}
    if len(templates) == 1:
        templates = (dataclasses.replace(templates[0], held_out=False),)
    return _Held(**fields | {"templates": templates}, held={split: rows})


def _phrasings(recipe: Recipe, task: Task, split: str) -> list[Template]:
    held_out = recipe.data.held_out_templates and split != "train"
    return [template for template in task.templates if template.held_out == held_out]


def _encode(
    recipe: Recipe, task: Task, split: str, variant: Variant, model: Model
) -> tuple[list[Encoded], EncodeReport]:
    encoder_decoder = hasattr(model.config, "decoder_start_token_id")
    one_wording = variant.prompt is not None or variant.phrasing is not None
    # Training's limits are for training: worked examples may take all that generation leaves.
    room = None if encoder_decoder else max(2, model.config.max_length - recipe.generate.max_new_tokens)
    try:
        return encode_task(
            task,
            split,
            model.tokenizer,
            max_length=model.config.max_length,
            max_prompt=room,
            encoder_decoder=encoder_decoder,
            chat=recipe.data.chat,
            seed=recipe.data.seed,
            shots=variant.shots,
            held_out=recipe.data.held_out_templates and not one_wording and bool(recipe.data.tasks),
            on_long="truncate",
            on_bad="skip",
            eos_token_ids=model.config.eos_token_ids,
        )
    except UsageError as error:
        raise UsageError(f"evaluate.in_context, {variant.name}: {error}") from None
