"""What a recipe's data is: how it is mixed and cut, how long it is, what repeats, and what is learnt of it.

    found = data_report(load_recipe("recipe.yaml"))
    found.duplicates["train"].near, found.padding

The tokenizer and the model's configuration are read, and no weight. What a run would refuse (examples that are too
long, rows that are empty) is counted here, so that the recipe can be mended.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data import Batches, Encoded, EncodeReport, Rows, show_example
from jaxft.data.batches import collate, example_lengths
from jaxft.data.cleaning import DuplicateReport, contents, deduplicate, repeated
from jaxft.data.contamination import Contamination, contamination
from jaxft.data.grouping import by_task
from jaxft.data.statistics import Lengths, Statistics, lengths, statistics, target_tokens
from jaxft.errors import UsageError
from jaxft.pretrained.peeking import peek
from jaxft.recipe import Recipe
from jaxft.runs.parts import AnyRows, encode_rows, read_rows, training_batches
from jaxft.runs.tasks import TaskRows
from jaxft.training.progress import Progress

NEAR, FIRST = 0.8, 3


class Share(NamedTuple):
    """What the first epoch holds of a task: examples of those available, and shares of examples and target tokens."""

    task: str
    available: int
    drawn: int
    examples: float
    target_tokens: float


class Shown(NamedTuple):
    """An example as the model sees it: pieces of text, and whether each is learnt."""

    title: str
    pieces: tuple[tuple[str, bool], ...]


class Padding(NamedTuple):
    """The share of the first epoch's positions without a token, its steps, and the padded shapes."""

    share: float
    steps: int
    shapes: tuple[tuple[int, ...], ...]


class Repeats(NamedTuple):
    """Rows that repeat a training row: how many, and of the first ones both places and the similarity."""

    report: DuplicateReport
    first: tuple[tuple[str, str, float], ...]


class Overlap(NamedTuple):
    """Rows of which a training row has 13 words in a row: how many, and of the first ones both places and the words."""

    found: Contamination
    first: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class DataReport:
    """What `data_report` found.

    splits: for each split the counts of all its tasks together. shares, lengths, statistics: of the training split's
    tasks, of all its prompts and completions, of each task. duplicates: in train itself, and by split of train rows.
    contamination: by split and task. padding: "buckets" and "packing"; `packed` says which of them the recipe asks
    for. refused: what a run of the recipe as it stands would refuse. notes: what it leaves out or cuts.
    """

    model: str
    splits: Mapping[str, EncodeReport]
    shares: Sequence[Share]
    lengths: Mapping[str, Lengths]
    statistics: Mapping[str, Statistics]
    duplicates: Mapping[str, Repeats]
    contamination: Mapping[tuple[str, str], Overlap]
    padding: Mapping[str, Padding]
    packed: bool
    examples: Sequence[Shown]
    refused: Sequence[str]
    notes: Sequence[str]


class Part(NamedTuple):
    """One task's rows of one split ("" where the recipe names no tasks)."""

    task: str
    split: str
    rows: Rows

    def names(self) -> list[str]:
        """Return where each row stands."""
        return [f"{self.task} {self.rows.place(i)}".strip() for i in range(len(self.rows))]


def data_report(recipe: Recipe, examples: int = 3, progress: Progress | None = None) -> DataReport:
    """Return what the recipe's data is, with `examples` of its training examples in full.

    Raises UsageError for data that does not fit the recipe or the model, as a run does, but for rows that are bad or
    too long.
    """
    show = progress or Progress(quiet=True)
    rows = read_rows(recipe)
    model: Any = peek(recipe.model.source)
    if model.tokenizer is None:
        raise UsageError(f"model.source: {recipe.model.source} has no tokenizer: add its files to the directory")
    show.note("rendering and tokenising ...")
    tolerant = _tolerant(recipe)
    encoded = {split: encode_rows(tolerant, part, model, split == "train") for split, part in rows.items()}
    train = encoded["train"][0]
    batches = {packing: _batches(recipe, rows["train"], train, model, packing) for packing in (False, True)}
    show.note("looking for duplicates and contamination ...")
    parts = list(_parts(rows))
    texts = _texts(parts)
    told = list(_told(recipe, {split: report for split, (_, report) in encoded.items()}))
    return DataReport(
        model=recipe.model.source,
        splits={split: report for split, (_, report) in encoded.items()},
        shares=_shares(batches[recipe.data.packing]),
        lengths={
            "prompt": lengths([len(example.prompt) for example in train]),
            "completion": lengths([len(example.completion) for example in train]),
        },
        statistics=statistics(train, {p.task: t for p, t in zip(parts, texts, strict=True) if p.split == "train"}),
        duplicates=_duplicates(parts, texts),
        contamination=_contamination(parts, texts),
        padding={"buckets": _padding(batches[False]), "packing": _padding(batches[True])},
        packed=recipe.data.packing,
        examples=list(_shown(train, model, examples)),
        refused=[line for refused, line in told if refused],
        notes=[line for refused, line in told if not refused],
    )


def _tolerant(recipe: Recipe) -> Recipe:
    # What a run refuses is cut or left out here, and counted.
    on_long: Any = "truncate" if recipe.data.on_long == "error" else recipe.data.on_long
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, on_long=on_long, on_bad="skip"))


def _told(recipe: Recipe, reports: Mapping[str, EncodeReport]) -> Iterator[tuple[bool, str]]:
    """Yield what is the matter with a split, and whether a run refuses it."""
    for split, report in reports.items():
        if report.first_bad:
            refused = recipe.data.on_bad == "error"
            remedy = "; mend them, or set data.on_bad to skip" if refused else ""
            yield refused, f"{split}: {report.bad_rows:,} bad rows (first: {report.first_bad}){remedy}"
        if report.first_long:
            refused = recipe.data.on_long == "error"
            remedy = "; raise the limit, or set data.on_long to truncate or skip" if refused else ""
            yield refused, f"{split}: examples that are too long (first: {report.first_long}){remedy}"
        if report.dropped_shots:
            yield False, f"{split}: {report.dropped_shots:,} worked examples left out, so that prompts fit"


def _parts(rows: Mapping[str, AnyRows]) -> Iterator[Part]:
    for split, part in rows.items():
        if isinstance(part, TaskRows):
            for one in part.chosen:
                yield Part(one.task.name, split, one.task.rows(split, one.limit.get(split), on_bad="skip"))
        else:
            yield Part("", split, part)


def _batches(recipe: Recipe, rows: AnyRows, train: Sequence[Encoded], model: Any, packing: bool) -> Batches:
    changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, packing=packing))
    return training_batches(changed, rows, train, model)


def _padding(batches: Batches) -> Padding:
    return Padding(batches.padding(), batches.steps_per_epoch, batches.shapes)


def _shares(batches: Batches) -> list[Share]:
    plan = batches.plan(0)
    times = np.bincount(plan[plan >= 0], minlength=len(batches.examples))
    tokens = times * np.array([target_tokens(example) for example in batches.examples])
    members = by_task(batches.examples) or {"": list(range(len(batches.examples)))}
    rows = [
        Share(task, len(own), int(times[own].sum()), times[own].sum() / times.sum(), tokens[own].sum() / tokens.sum())
        for task, own in members.items()
    ]
    return sorted(rows, key=lambda share: (-share.drawn, share.task))


def _texts(parts: Sequence[Part]) -> list[list[str]]:
    """Return what the rows of each part say; what all rows of a task have in common says nothing."""
    found: list[list[str]] = [[] for _ in parts]
    for task in dict.fromkeys(part.task for part in parts):
        own = [i for i, part in enumerate(parts) if part.task == task]
        every = iter(contents([row for i in own for row in parts[i].rows]))
        for i in own:
            found[i] = [next(every) for _ in range(len(parts[i].rows))]
    return found


def _joined(parts: Sequence[Part], values: Sequence[Sequence[str]], split: str) -> list[str]:
    return [one for part, own in zip(parts, values, strict=True) if part.split == split for one in own]


def _duplicates(parts: Sequence[Part], texts: Sequence[Sequence[str]]) -> dict[str, Repeats]:
    names = [part.names() for part in parts]
    train, train_names = _joined(parts, texts, "train"), _joined(parts, names, "train")
    found = {}
    for split in dict.fromkeys(["train", *(part.split for part in parts)]):
        own, own_names = _joined(parts, texts, split), _joined(parts, names, split)
        report = deduplicate(train, NEAR)[1] if split == "train" else repeated(own, train, NEAR)
        first = ((own_names[one.dropped], train_names[one.kept], one.similarity) for one in report.found[:FIRST])
        found[split] = Repeats(report, tuple(first))
    return found


def _contamination(parts: Sequence[Part], texts: Sequence[Sequence[str]]) -> dict[tuple[str, str], Overlap]:
    train_names = _joined(parts, [part.names() for part in parts], "train")
    evaluated = {str(i): texts[i] for i, part in enumerate(parts) if part.split != "train"}
    result = {}
    for i, found in contamination(_joined(parts, texts, "train"), evaluated, examples=FIRST).items():
        part = parts[int(i)]
        names = part.names()
        first = ((names[one.evaluation], train_names[one.training], one.words) for one in found.examples)
        result[part.split, part.task] = Overlap(found, tuple(first))
    return result


def _shown(train: Sequence[Encoded], model: Any, count: int) -> Iterator[Shown]:
    """Yield examples of as many tasks as there are, and of as many templates."""
    start = getattr(model.config, "decoder_start_token_id", None)
    order = _spread([(example.task, example.template) for example in train])[:count]
    for i in order:
        shape = tuple(example_lengths([train[i]], start is not None)[0].tolist())
        shown = show_example(collate([train[i]], 1, shape, model.config.pad_token_id, start), model.tokenizer)
        title = ", ".join(filter(None, (train[i].task, train[i].template, train[i].id)))
        yield Shown(title, tuple(_pieces(shown)))


def _spread(groups: Sequence[tuple[str, str]]) -> list[int]:
    """Return positions in such an order that the first ones are of different tasks, then of different templates.

    >>> _spread([("a", "1"), ("a", "1"), ("a", "2"), ("b", "3")])
    [0, 3, 2, 1]
    """
    tasks: Counter[str] = Counter()
    templates: Counter[tuple[str, str]] = Counter()
    keys = []
    for i, (task, template) in enumerate(groups):
        fresh = templates[task, template] == 0
        keys.append((templates[task, template], tasks[task] if fresh else i, i))
        tasks[task] += fresh
        templates[task, template] += 1
    return [i for *_, i in sorted(keys)]


def _pieces(text: Any) -> Iterator[tuple[str, bool]]:
    end = 0
    for span in text.spans:
        if span.start > end:
            yield text.plain[end : span.start], False
        yield text.plain[span.start : span.end], span.style == "green"
        end = span.end
