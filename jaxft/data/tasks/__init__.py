"""Tasks: what is asked of the rows of a data set, in several phrasings, as a small record in YAML or Python.

    task = load_task("glue/rte", root="data")            # one of ours, a YAML file, a mapping, or a Task
    rows = task.rows("train", limit=1000)
    rendered = render_task(task, rows, seed=0, shots={0: 0.5, 2: 0.5})
    examples, report = encode_task(task, "train", tokenizer, max_length=512, chat=True)

Each example has one phrasing, drawn from (seed, the row's id) by a hash: the same in every process and on every
machine. Phrasings that are `held_out` are never drawn in training; they score how much a model hangs on wording.
"""

from jaxft.data.tasks.converting import flan_templates, from_flan, from_promptsource
from jaxft.data.tasks.encoding import encode_task
from jaxft.data.tasks.loading import load_task, load_tasks, task_names
from jaxft.data.tasks.rendering import render_task
from jaxft.data.tasks.task import Task, Template

__all__ = [
    "Task",
    "Template",
    "encode_task",
    "flan_templates",
    "from_flan",
    "from_promptsource",
    "load_task",
    "load_tasks",
    "render_task",
    "task_names",
]
