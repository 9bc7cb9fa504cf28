"""`jaxft evaluate MODEL --tasks ...`: benchmarks from the name of a model to a table and a folder of results.

All tasks' requests are answered together, so that they share batches and shapes; then each task is scored by lm-eval
from those answers, by itself, so that one that fails does not lose the others.

    FOLDER/results.json     lm-eval's, with "version", intervals, provenance and what failed
    FOLDER/answers.jsonl    every answer, as it came: what a killed evaluation goes on from
    FOLDER/samples/*.jsonl  of each task its examples, prompts, answers and scores
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.util
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.errors import Error, UsageError

SEED = 1234  # lm-eval's, of which worked examples are drawn


class Settings(NamedTuple):
    """How tasks are asked: documents of each, worked examples (None: as the task says), the chat template, rows."""

    limit: int | None = None
    num_fewshot: int | None = None
    chat: bool = False
    batch_size: int = 16


def evaluate_tasks(
    source: str,
    tasks: Sequence[str],
    *,
    adapter: str | None = None,
    data_root: str | Path | None = None,
    include_path: str | Path | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    out: str | Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Return what is written to results.json: scores of the model of `source`, with an adapter, on lm-eval's `tasks`.

    `out` is the folder that is written, where an evaluation of the same model that was stopped goes on. Tasks that
    fail are in "failed", with the reason. Raises `UsageError` for settings out of range, unknown tasks, and a folder
    with the answers of another model; `Error` if no task can be loaded.
    """
    check(tasks, settings)
    from jaxft.evaluation.harness.loading import load_tasks

    began = time.time()
    loaded = load_tasks(tasks, data_root, include_path)
    note(f"{len(loaded.tasks)} tasks" + (f"; {len(loaded.failed)} cannot be loaded" if loaded.failed else ""))
    model, variables = _load(source, adapter)
    if settings.chat and not getattr(model.tokenizer, "chat_template", None):
        raise UsageError(f"--chat: {source} has no chat template")

    from jaxft.evaluation.answers import Answers
    from jaxft.evaluation.harness.model import HarnessModel

    folder = None if out is None else Path(out)
    identity = {"model": source, "adapter": adapter, "weights": _digest(variables)}
    with Answers(None if folder is None else folder / "answers.jsonl", identity) as answers:
        lm = HarnessModel(
            model, variables, batch_size=settings.batch_size, mesh=_mesh(), answers=answers, seed=SEED, note=note
        )
        known = len(answers)
        report = _evaluated(lm, loaded, settings, folder, note)
        report |= {"answers": len(answers), "answered_before": known, "compilations": lm.compilations}
    report = {"version": report.pop("version"), "model_source": source, "adapter": adapter, **report}
    report |= _provenance(source, adapter, settings, began)
    if folder is not None:
        from jaxft.training.journal import write_json

        write_json(folder / "results.json", report)
    return report


def check(tasks: Sequence[str], settings: Settings) -> None:
    """Raise `UsageError` without lm-eval, without tasks, and for settings out of range."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError("--tasks: needs lm-eval; install it with `pip install jaxft[lm-eval]`")
    if not tasks or not all(tasks):
        raise UsageError("--tasks: name at least one, as in --tasks mmlu,glue")
    for name, value, least in (("limit", settings.limit, 1), ("num-fewshot", settings.num_fewshot, 0),
                               ("batch-size", settings.batch_size, 1)):  # fmt: skip
        if value is not None and value < least:
            raise UsageError(f"--{name}: {value} is out of range; it must be {least} or more")


def _load(source: str, adapter: str | None) -> tuple[Any, Mapping[str, Any]]:
    from jaxft.methods.peft import adapted
    from jaxft.pretrained import load

    model = load(source)
    method, trainable, frozen = adapted(model, adapter)
    return model, method.bind(trainable, frozen)


def _mesh() -> Any:
    import jax

    from jaxft.training.sharding import make_mesh

    return make_mesh() if len(jax.devices()) > 1 else None


def _digest(variables: Mapping[str, Any]) -> str:
    """Return a digest of a few numbers of every array: what answers depend on."""
    import jax
    import numpy as np

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        few = np.asarray(leaf[(slice(0, 1),) * (leaf.ndim - 1)] if leaf.ndim else leaf, np.float32).reshape(-1)[:64]
        digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode() + few.tobytes())
    return digest.hexdigest()[:16]


def _evaluated(lm: Any, loaded: Any, settings: Settings, folder: Path | None, note: Callable) -> dict[str, Any]:
    from jaxft.evaluation.harness import results as made
    from jaxft.evaluation.harness.loading import quiet, reason

    report: dict[str, Any] = {name: {} for name in ("results", "intervals", "versions", "n-shot", "n-samples",
                                                    "higher_is_better")}  # fmt: skip
    failed = dict(loaded.failed)
    with quiet():
        _answer_all(lm, loaded.tasks, settings, failed, note)
        for name, task in loaded.tasks.items():
            if name in failed:
                continue
            try:
                found = _scored(lm, name, task, settings)
                samples = found.pop("samples")[name]
                scores = found["results"][name]
                report["intervals"][name] = made.task_intervals(task, scores, samples)
                for part in ("results", "versions", "n-shot", "n-samples", "higher_is_better"):
                    report[part][name] = found[part][name]
                _write_samples(folder, name, samples)
            except Error:
                raise
            except Exception as error:  # what a task's own code raises
                failed[name] = reason(error)
        groups = made.group_scores(loaded, report["results"])
    report["results"] |= groups
    report["intervals"] |= {name: made.group_intervals(scores) for name, scores in groups.items()}
    report["versions"] |= {name: loaded.groups[name].version for name in groups}
    members = {name: [task for task in tasks if task in report["results"]] for name, tasks in loaded.members.items()}
    report |= {"groups": groups, "group_subtasks": members, "missing": made.missing(loaded, report["results"])}
    return {"version": made.VERSION, **report, "failed": failed}


def prepare(task: Any, settings: Settings) -> None:
    """Set the number of worked examples as lm-eval does, and draw them anew from the start."""
    own = task.get_config("num_fewshot")
    if settings.num_fewshot is not None and own != 0:  # 0 in a task's file is meant
        task.set_config(key="num_fewshot", value=settings.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


def _answer_all(lm: Any, tasks: Mapping[str, Any], settings: Settings, failed: dict[str, str], note: Callable) -> None:
    """Have the requests of all tasks answered, kind by kind; if that fails, task by task to find which fails."""
    from jaxft.evaluation.harness.loading import reason

    kinds: dict[str, dict[str, list[Any]]] = {}
    for name, task in tasks.items():
        try:
            prepare(task, settings)
            task.build_all_requests(
                limit=settings.limit,
                apply_chat_template=settings.chat,
                fewshot_as_multiturn=settings.chat,
                chat_template=lm.apply_chat_template if settings.chat else None,
                tokenizer_name=lm.tokenizer_name if settings.chat else "",
            )
            for request in task.instances:
                kinds.setdefault(request.request_type, {}).setdefault(name, []).extend([request] * request.repeats)
        except Exception as error:
            failed[name] = reason(error)
    for kind, asked in kinds.items():
        try:
            note(f"{sum(map(len, asked.values())):,} requests of {len(asked)} tasks: {kind}")
            getattr(lm, kind)([request for requests in asked.values() for request in requests])
        except (UsageError, ValueError, TypeError, KeyError):
            for name, requests in asked.items():  # what has been answered is not computed again
                try:
                    getattr(lm, kind)(requests)
                except Exception as error:
                    failed[name] = reason(error)


def _scored(lm: Any, name: str, task: Any, settings: Settings) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate

    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # the bootstrap would fork a process with JAX's threads
    prepare(task, settings)
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluate(
            lm,
            {"tasks": {name: task}, "groups": {}},
            limit=settings.limit,
            bootstrap_iters=1000,
            apply_chat_template=settings.chat,
            fewshot_as_multiturn=settings.chat,
        )
    assert found is not None
    return dict(found)


def _write_samples(folder: Path | None, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
    if folder is None:
        return
    from lm_eval.utils import handle_non_serializable

    from jaxft.training.journal import write_text

    (folder / "samples").mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) + "\n" for sample in samples)
    write_text(folder / "samples" / f"{name.replace('/', '__')}.jsonl", "".join(lines))


def _provenance(source: str, adapter: str | None, settings: Settings, began: float) -> dict[str, Any]:
    import importlib.metadata

    import jax

    import jaxft
    from jaxft.runs.folder import git_commit

    devices = jax.devices()
    return {
        "config": {"model": "jaxft", "model_args": source, "adapter": adapter, **settings._asdict(), "seed": SEED,
                   "bootstrap_iters": 1000},
        "interval": "95 %: Wilson's for shares, else 1.96 standard errors of lm-eval, else 1000 resamples",
        "jaxft_version": jaxft.__version__,
        "lm_eval_version": importlib.metadata.version("lm_eval"),
        "jax_version": jax.__version__,
        "device": {"kind": devices[0].device_kind, "count": len(devices)},
        "git_hash": git_commit(),
        "date": datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        "total_evaluation_time_seconds": round(time.time() - began, 2),
    }  # fmt: skip
