"""Data roots for offline use: folders named and laid out as lm-eval's tasks look for them on the hub.

    python -m jaxft.evaluation.harness.mirrors DATA OUT
    jaxft evaluate MODEL --tasks mmlu,super_glue --data-root OUT

Made from plain files (`mmlu/test.jsonl.gz`, `glue/cola/dev.jsonl.gz` ..., as under JAXFT_DATA). What is not there is
left out. Left out for a reason:

- MultiRC's and MNLI's validation sets: only MultiRC's training set is there, and MNLI's does not say which of the two
  validation sets it is of;
- ReCoRD and WSC: not there;
- examples of WiC whose word is not found in its sentences: the tasks need its place, which joined texts do not say.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.data.files import read_file
from jaxft.errors import Error, UsageError
from jaxft.pretrained.atomic import replaced
from jaxft.training.journal import write_json

MARK = "jaxft_mirrors.json"
Example = dict[str, Any]


class Part(NamedTuple):
    """A split of one configuration of a data set: where it comes from, and what becomes of a row (None: left out)."""

    name: str
    config: str
    split: str
    source: str
    row: Callable[[Example], Example | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a data root; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 2:
        print("usage: python -m jaxft.evaluation.harness.mirrors DATA OUT", file=sys.stderr)
        return 2
    try:
        for name, counts in make_mirrors(*given).items():
            print(f"{name}: {', '.join(f'{split} {count}' for split, count in counts.items())}")
    except Error as error:
        print(f"mirrors: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def make_mirrors(data: Path | str, out: Path | str) -> dict[str, dict[str, int]]:
    """Write a data root to the folder `out` from the files under `data`; return rows of each data set and split.

    Raises `UsageError` if nothing that is known is there, or `out` holds something else.
    """
    found: dict[str, dict[str, dict[str, list[Example]]]] = {}
    for part in _parts(Path(data)):
        path = _file(Path(data) / part.source)
        for config, rows in _by_config(part, read_file(path)[0] if path else []).items():
            found.setdefault(part.name, {}).setdefault(config, {})[part.split] = rows
    if not found:
        raise UsageError(
            f"{data}: has none of mmlu/, bbh/, glue/, superglue/, bigbench/, dialogsum/, samsum/, nlg/e2e/"
        )
    counts: dict[str, dict[str, int]] = {}
    with replaced(out, (MARK,)) as folder:
        for name, configs in found.items():
            _write(folder / name, configs)
            splits = sorted({split for own in configs.values() for split in own})
            counts[name] = {split: sum(len(own.get(split, ())) for own in configs.values()) for split in splits}
        write_json(folder / MARK, {"version": 1, "rows": counts})
    return counts


def _write(folder: Path, configs: Mapping[str, Mapping[str, Sequence[Example]]]) -> None:
    """Write the files of a data set and the README whose front matter says which configuration has which."""
    entries = []
    for config, splits in configs.items():
        files = []
        for split, rows in splits.items():
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            files.append({"split": split, "path": f"{config}/{path.name}"})
        entries.append({"config_name": config, "data_files": files})
    # JSON is YAML too.
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(entries)}\n---\n", encoding="utf-8")


def _file(path: Path) -> Path | None:
    return next((one for one in (path, path.with_name(path.name + ".gz")) if one.is_file()), None)


def _by_config(part: Part, rows: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for row in rows:
        made = part.row(row)
        if made is not None:
            found.setdefault(part.config.format(**row), []).append(made)
    return found


def _parts(data: Path) -> Iterator[Part]:
    tasks = _file(data / "bigbench/tasks.jsonl")
    prefixes = {row["task"]: row for row in read_file(tasks)[0]} if tasks else {}
    for split, source in (("test", "test"), ("validation", "val"), ("dev", "dev")):
        yield Part("cais/mmlu", "{subject}", split, f"mmlu/{source}.jsonl", _keeping("question subject choices answer"))
    yield Part("SaylorTwift/bbh", "{task}", "test", "bbh/test.jsonl", _keeping("input target"))
    yield Part("hails/bigbench", "{task}_zero_shot", "default", "bigbench/test.jsonl",
               functools.partial(_bigbench, prefixes))  # fmt: skip
    for split, source in (("train", "train"), ("validation", "dev"), ("test", "test")):
        for task, row in GLUE.items():
            yield Part("nyu-mll/glue", task, split, f"glue/{task}/{source}.jsonl", row)
        yield Part("nyu-mll/glue", "qqp", split, f"superglue/qqp/{source}.jsonl", _qqp)
        yield Part("aps/super_glue", "rte", split, f"glue/rte/{source}.jsonl", _super_rte)
        for task, row in SUPER_GLUE.items():
            yield Part("aps/super_glue", task, split, f"superglue/{task}/{source}.jsonl", row)
        dialogues = _summary
        yield Part("knkarthick/dialogsum", "default", split, f"dialogsum/{source}.jsonl", dialogues)
        yield Part("knkarthick/samsum", "default", split, f"samsum/{source}.jsonl", dialogues)
        yield Part("GEM/e2e_nlg", "default", split, f"nlg/e2e/{source}.jsonl", _e2e)


def _keeping(names: str, **labels: Mapping[str, int]) -> Callable[[Example], Example | None]:
    def row(example: Example) -> Example | None:
        kept = {name: example[name] for name in names.split()}
        return kept | {name: numbers.get(example[name], example[name]) for name, numbers in labels.items()}

    return row


ENTAILMENT = {"entailment": 0, "not_entailment": 1}
GLUE = {
    "cola": _keeping("sentence label"),
    "sst2": _keeping("sentence label"),
    "mrpc": _keeping("sentence1 sentence2 label"),
    "stsb": _keeping("sentence1 sentence2 label"),
    "wnli": _keeping("sentence1 sentence2 label"),
    "rte": _keeping("sentence1 sentence2", label=ENTAILMENT),
    "qnli": _keeping("question sentence", label=ENTAILMENT),
}
TRUTH = {"False": 0, "True": 1}


def _joined(pattern: str, names: str, labels: Mapping[str, int]) -> Callable[[Example], Example | None]:
    """Return what finds the fields in a text that `pattern` says how they were joined in."""
    matches = re.compile(pattern, re.DOTALL).fullmatch

    def row(example: Example) -> Example | None:
        found = matches(example["text"])
        if found is None or example["label"] not in labels:
            return None
        fields = (field.strip() for field in found.groups())
        return dict(zip(names.split(), fields, strict=True)) | {"label": labels[example["label"]]}

    return row


def _super_rte(example: Example) -> Example:
    return {"premise": example["sentence1"], "hypothesis": example["sentence2"], "label": ENTAILMENT[example["label"]]}


def _wic(example: Example) -> Example | None:
    row = _joined(r"word: ([^\n]*)\n([^\n]*)\n(.*)", "word sentence1 sentence2", TRUTH)(example)
    if row is None:
        return None
    for number in (1, 2):
        place = _place(row["word"], row[f"sentence{number}"])
        if place is None:
            return None
        row[f"start{number}"], row[f"end{number}"] = place
    return row


def _place(word: str, sentence: str) -> tuple[int, int] | None:
    """Return where the word, or a form of it that begins alike, stands in a sentence."""
    stem = re.escape(word if len(word) < 4 else word[:-1])
    for pattern in (rf"\b{re.escape(word)}\b", rf"\b{re.escape(word)}\w*", rf"\b{stem}\w*"):
        found = re.search(pattern, sentence, re.IGNORECASE)
        if found:
            return found.span()
    return None


_qqp = _joined(r"first sentence: (.*?)\nsecond sentence: (.*)", "question1 question2", TRUTH)
SUPER_GLUE = {
    "boolq": _joined(r"question: (.*?)\npassage: (.*)", "question passage", TRUTH),
    "cb": _joined(
        r"sentence 1: (.*?)\nsentence 2: (.*)",
        "premise hypothesis",
        {"entailment": 0, "contradiction": 1, "neutral": 2},
    ),
    "copa": _joined(
        r'Which sentence is the (cause|effect) of "(.*)"\? Choose one between A and B\.\nA: (.*?)\nB: (.*)',
        "question premise choice1 choice2",
        {"A": 0, "B": 1},
    ),
    "wic": _wic,
    "multirc": _joined(
        r"paragraph: (.*?)\nquestion: (.*?)\ncandidate answer: (.*)", "paragraph question answer", TRUTH
    ),
}


def _bigbench(prefixes: Mapping[str, Example], example: Example) -> Example:
    """Write an input as BIG-bench's JSON tasks do: the task's prefix, question, choices, and the answer's prefix."""
    own = prefixes.get(example["task"], {})
    before, after = (own.get(f"example_{side}_prefix") or other for side, other in
                     (("input", "\nQ: "), ("output", "\nA: ")))  # fmt: skip
    scores = example.get("target_scores") or {}
    choices = "".join(f"\n  choice: {choice}" for choice in scores)
    targets = example.get("target") or [choice for choice, value in scores.items() if value == max(scores.values())]
    return {
        "inputs": f"{own.get('task_prefix') or ''}{before}{example['input']}{choices}{after.rstrip(' ')}",
        "targets": targets,
        "multiple_choice_targets": list(scores),
        "multiple_choice_scores": list(scores.values()),
    }


def _summary(example: Example) -> Example:
    texts = example["summary"] if isinstance(example["summary"], list) else [example["summary"]]
    return {"id": example["id"], "dialogue": example["dialogue"], "summary": texts[0], "references": texts}


def _e2e(example: Example) -> Example:
    texts = example.get("references") or [example["reference"]]
    return {"meaning_representation": example["mr"], "target": texts[0], "references": texts}


if __name__ == "__main__":
    sys.exit(main())
