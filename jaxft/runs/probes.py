"""The probes of a recipe: read before a model is loaded, asked before, during and after training.

    asked = read_probes(recipe)                  # UsageError for what cannot be asked
    probing = Probing(recipe, parts, asked)      # scores the model as it is
    probing.row(step, state)                     # a line of metrics.jsonl
    probing.summary(state)                       # what summary.json says of forgetting

All of these run the same compiled programs: the first time the method is bound as it starts, which is the base. Only a
soft prompt or prefix is not nothing at the start; there the base is scored without it, by programs of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.data import Encoded, Format, encode_prompts
from jaxft.data.tasks import Task, encode_task, render_task
from jaxft.errors import UsageError
from jaxft.evaluation.forgetting import Probed, Probes, evaluate_probes, forgetting, mean_score
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.parts import Parts
from jaxft.runs.resources import count_compilations
from jaxft.runs.tasks import Chosen, chosen_tasks, has_split

OWN = "own"
PASSAGE = 256  # tokens of a passage at most
NOT_NOTHING = ("prompt", "prefix")  # methods that change the model before they have learnt anything


class Asked(NamedTuple):
    """What is asked, as text: tasks with the split that they are scored on and how many, passages, neutral prompts."""

    tasks: tuple[tuple[Task, str, int], ...]
    passages: tuple[str, ...]
    prompts: tuple[str, ...]


def read_probes(recipe: Recipe) -> Asked | None:
    """Return what a recipe's probes are, None where they are off; UsageError for what cannot be asked."""
    probes = recipe.probes
    if not probes.enabled:
        if probes.stop.drop is not None:
            raise UsageError("probes.stop: there are no probes to stop on: set probes.enabled, or leave it out")
        return None
    from jaxft.data.probes.texts import PASSAGES, PROMPTS

    tasks = tuple(_asked(recipe, one) for one in chosen_tasks(recipe, probes.tasks, "probes.tasks"))
    passages = PASSAGES if probes.text == OWN else _read("probes.text", probes.text, "\n\n")
    prompts = PROMPTS if probes.prompts == OWN else _read("probes.prompts", probes.prompts, "\n")
    if not (tasks or passages or prompts):
        raise UsageError("probes: there is nothing to ask: name tasks, a text or prompts, or set probes: false")
    if probes.stop.drop is not None:
        _check_stop(recipe, tasks)
    return Asked(tasks, tuple(passages[: probes.examples]), tuple(prompts[: probes.examples]))


def probe_steps(recipe: Recipe, steps: int) -> Collection[int]:
    """Return the steps after which the probes are asked: in the middle, or every so many, and the last."""
    every = recipe.probes.every
    if every is None:
        every = -(-steps // 2)
    return {*(range(every, steps, every) if every else ()), steps} if recipe.probes.enabled else set()


class Probing:
    """The probes of one run, and what they said so far by step; making it asks the model that training starts from.

    KL is taken from the base; where the run goes on from an adapter (`train.start`), before is with that adapter.
    """

    def __init__(self, recipe: Recipe, parts: Parts, asked: Asked):
        self.recipe, self.parts = recipe, parts
        self.base = {"params": parts.model.params}
        self.compiled: list[int] = []
        self.found: dict[int, Probed] = {}
        with count_compilations() as compiled:
            self.probes = encode_probes(recipe, asked, parts.model)
        self.compiled.append(compiled())
        goes_on = recipe.train.start is not None
        whole = goes_on or not _names(parts.method.config) & set(NOT_NOTHING)
        variables = parts.method.bind(parts.state.trainable, parts.frozen) if whole else self.base
        self.before = self._ask(variables, self.base if goes_on else None)

    @property
    def start(self) -> float | None:
        """The probes' mean score before training."""
        return mean_score(self.before.row()["probes"], self.before.metrics)

    def ask(self, step: int, state: Any) -> Probed:
        """Return what the probes say of the state after `step`; asked again, it is known."""
        if step not in self.found:
            self.found[step] = self._ask(self.parts.method.bind(state.trainable, self.parts.frozen), self.base)
        return self.found[step]

    def summary(self, step: int, state: Any, during: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Return what summary.json says of forgetting; `during` are the values by probe of earlier evaluations."""
        found = forgetting(self.before, during, self.ask(step, state))
        return {**found, "compilations": {"before": sum(self.compiled[:2]), "later": sum(self.compiled[2:])}}

    def _ask(self, variables: Any, base: Any) -> Probed:
        with count_compilations() as compiled:
            found = evaluate_probes(self.probes, self.parts.model, variables, base)
        self.compiled.append(compiled())
        return found


class Stopper:
    """Early stopping: which step was the last within the limit, and whether too many in a row were beyond it.

    >>> stopper = Stopper(start=0.8, drop=0.05, patience=2)
    >>> [stopper.told(step, mean) for step, mean in ((10, 0.79), (20, 0.7), (30, 0.78), (40, 0.7), (50, 0.6))]
    [False, False, False, False, True]
    >>> stopper.good
    30
    """

    def __init__(self, start: float, drop: float, patience: int):
        self.limit, self.patience = start - drop, patience
        self.good, self.bad = 0, 0

    @property
    def stopped(self) -> bool:
        """Whether training is to end."""
        return self.bad >= self.patience

    def told(self, step: int, mean: float) -> bool:
        """Take note of the probes' mean score after a step, and return `stopped`."""
        if mean >= self.limit - 1e-9:
            self.good, self.bad = step, 0
        else:
            self.bad += 1
        return self.stopped


def encode_probes(recipe: Recipe, asked: Asked, model: Model) -> Probes:
    """Return the token ids of what is asked; the base answers the neutral prompts greedily."""
    from jaxft.generation import generate

    options, encoder_decoder = recipe.probes, hasattr(model.config, "decoder_start_token_id")
    room = max(2, model.config.max_length - sum(_soft(recipe.method)))
    prompts = encode_prompts([{"prompt": text} for text in asked.prompts],
                             Format("prompt", "prompt", chat=options.chat), model.tokenizer,
                             encoder_decoder=encoder_decoder) if asked.prompts else []  # fmt: skip
    given = [one.tolist()[: max(1, room - options.tokens)] for one in prompts]
    answers = generate(model, {"params": model.params}, given, max_new_tokens=options.tokens, return_tokens=True,
                       batch_size=options.batch_size) if given else []  # fmt: skip
    return Probes(
        examples=[one for task in asked.tasks for one in _encoded(recipe, *task, model, room, encoder_decoder)],
        passages=[_halves(ids, encoder_decoder) for ids in _passages(asked.passages, model, min(PASSAGE, room))],
        neutral=list(zip(given, answers, strict=True)),
        generate=options.generate,
        settings={"batch_size": options.batch_size, "max_new_tokens": recipe.generate.max_new_tokens},
    )


def _encoded(
    recipe: Recipe, task: Task, split: str, limit: int, model: Model, room: int, encoder_decoder: bool
) -> list[Encoded]:
    return encode_task(
        task,
        split,
        model.tokenizer,
        max_length=room,
        encoder_decoder=encoder_decoder,
        chat=recipe.probes.chat,
        seed=recipe.data.seed,
        limit=limit,
        on_long="truncate",
        eos_token_ids=model.config.eos_token_ids,
    )[0]


def _passages(texts: Sequence[str], model: Model, room: int) -> list[list[int]]:
    ids = [model.tokenizer(text)["input_ids"][:room] for text in texts]
    short = next((i for i, one in enumerate(ids) if len(one) < 2), None)
    if short is not None:
        raise UsageError(f"probes.text: passage {short + 1} has fewer than two tokens: make it longer or leave it out")
    return ids


def _halves(ids: list[int], encoder_decoder: bool) -> tuple[list[int], list[int]]:
    # A decoder reads its first token alone; an encoder reads the first half.
    first = len(ids) // 2 if encoder_decoder else 1
    return ids[:first], ids[first:]


def _asked(recipe: Recipe, chosen: Chosen) -> tuple[Task, str, int]:
    task = chosen.task
    split = next((name for name in ("test", "validation") if has_split(recipe, task, name)), None)
    if split is None:
        raise UsageError(f"probes.tasks: {task.name} has neither a test nor a validation split: choose another")
    limit = chosen.limit.get(split, recipe.probes.examples)
    try:
        render_task(task, task.rows(split, limit), recipe.data.seed)
    except UsageError as error:
        raise UsageError(f"probes.tasks: {error}: a probe needs its labels") from None
    return task, split, limit


def _check_stop(recipe: Recipe, tasks: Sequence[tuple[Task, str, int]]) -> None:
    chosen = [task for task, _, _ in tasks if task.choices or any(one.choices for one in task.templates)]
    if not (chosen or (tasks and recipe.probes.generate)):
        raise UsageError("probes.stop: no probe is scored in 0..1: name tasks with choices, or set probes.generate")
    if recipe.probes.every == 0:
        raise UsageError("probes.stop: probes.every is 0, so that nothing is asked on the way: leave it out")
    if recipe.train.use == "best":
        raise UsageError("probes.stop: beside train.use=best two rules say which weights count: choose one")


def _read(field: str, path: str | None, separator: str) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{field}: {path} cannot be read ({reason})") from None
    parts = tuple(part.strip() for part in text.replace("\r\n", "\n").split(separator) if part.strip())
    if not parts:
        raise UsageError(f"{field}: {path} is empty: give it text, or set the field to null")
    return parts


def _soft(method: Mapping[str, Any]) -> Iterator[int]:
    # Positions of the context that a soft prompt or a prefix takes.
    if method["name"] in NOT_NOTHING:
        yield method["length"]
    for member in method.get("methods", ()):
        yield from _soft(member)


def _names(method: Mapping[str, Any]) -> set[str]:
    return {method["name"]}.union(*(_names(member) for member in method.get("methods", ())))
