"""What the own models read: texts and tasks whose licences permit it to be used, and what is kept apart to measure on.

Taken: Super-NaturalInstructions (training tasks whose instances have a free licence), FLAN's chain-of-thought data,
E2E, DART, BoolQ, some data sets of the P3 sample, Dolly, Self-Instruct's seeds, and conversations that jaxft makes up.
Never seen: GLUE, the summaries of the made-up dialogues, Super-NaturalInstructions' test tasks, MMLU, BBH, BIG-bench,
DialogSum, SAMSum, Alpaca, Multi30k, and E2E and WebNLG as tasks. Entries of both come in DART's own form: a third of
its rows are WebNLG's, whose licence is not for commercial use (card.md says so).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from jaxft.data.dialogues import dialogues
from jaxft.data.dialogues.support import support
from jaxft.data.tasks import Task, load_task, load_tasks

# Super-NaturalInstructions states a licence for each task's instances.
FREE = re.compile(r"apache|mit\b|cc0|public domain|bsd|afl|wordnet|cc[ -]by", re.IGNORECASE)
NOT_FREE = re.compile(r"\bnc\b|unknown|\?|race|msr|dedicated|ccg|amazon", re.IGNORECASE)
# Stated as free, but of others' texts (newspapers, reviews, forums), or hateful.
LEFT_OUT = ("xsum", "reddit", "yelp", "conllpp", "hatexplain", "stereoset", "toxic")
# Of P3 the sets that are under Creative Commons' BY or BY-SA licences or MIT, as their authors state.
P3 = ("adversarial_qa", "common_gen", "cosmos_qa", "dbpedia_14", "kilt_tasks_hotpotqa", "qasc", "quarel", "quartz",
      "quoref", "ropes", "wiki_bio", "wiki_hop")  # fmt: skip
# Seeds of what is made up: none that the quickstart, the tests or the experiments use.
TRAIN_SEED, VALIDATION_SEED = 7001, 7002


def tasks() -> dict[str, list[Task]]:
    """Return the instruction tasks by group; all have a training and a validation split."""
    return {
        "superni": [_carved(task) for task in load_tasks(["superni/*"]) if "train" in task.splits and _free(task)],
        "flan_cot": load_tasks(["flan_cot/*"]),
        "e2e": [load_task("nlg/e2e")],
        "dart": [load_task("nlg/dart")],
        "boolq": [load_task("superglue/boolq")],
        "p3": [_carved(task) for task in load_tasks([f"t0/{name}*" for name in P3])],
        "instruct": load_tasks(["instruct/dolly", "instruct/self_instruct"]),
        "support": [_carved(load_task("support"))],
    }


def texts(groups: dict[str, list[Task]], split: str) -> Iterator[tuple[str, list[str]]]:
    """Yield groups of plain texts for span corruption, of the same split as the tasks."""
    for name, members in groups.items():
        if name not in ("boolq", "support"):
            yield name, [text for task in members for row in task.rows(split, on_bad="skip") for text in _of(name, row)]
    yield "boolq", [row["text"] for row in groups["boolq"][0].rows(split, limit=2000 if split == "train" else 200)]
    seed, share = (TRAIN_SEED, 1) if split == "train" else (VALIDATION_SEED, 50)
    yield "dialogues", [row["dialogue"] for row in dialogues(seed, 10000 // share)]
    yield "conversations", [_conversation(row["messages"]) for row in support(seed, 4000 // share)]


def _of(name: str, row) -> list[str]:
    if name == "superni":
        return [f"{row['input']}\n{row['output'][0]}"]
    if name == "flan_cot":
        return [f"{row['question'].strip()}\n{row['rationale'].strip()}"]
    if name == "e2e":
        return row["targets"][:1]
    if name == "dart":
        return [f"{row['facts']}\n{row['references'][0]}"]
    if name == "p3":
        return [f"{row['input']}\n{row['output']}"]
    return ["\n".join(part for part in (row["instruction"], row["given"], row["reply"]) if part)]


def _conversation(messages) -> str:
    return "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def _free(task: Task) -> bool:
    stated = task.licence
    return bool(FREE.search(stated)) and not NOT_FREE.search(stated) and not any(word in task.name for word in LEFT_OUT)


def _carved(task: Task) -> Task:
    return dataclasses.replace(task, splits={"train": task.splits.get("train", "train"), "validation": 0.05})
