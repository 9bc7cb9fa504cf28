"""What does learning to summarise dialogues cost a small model elsewhere?

Question    SmolLM2-135M-Instruct tuned on DialogSum by full, LoRA and prompt tuning: what happened to other tasks, to
            plain text, and how far is it from what it was?
Data        The adapters of `dialogsum_lora.py` (made by it where they are missing). Probes: the first 60 test examples
            each of RTE, SST-2, COPA, AG News and MMLU miscellaneous, 40 of BoolQ (ranked by likelihood, accuracy), 30
            of SAMSum and E2E (loss of the reference), all through the chat template, and 16 of each of jaxft's own
            probes; its own 12 passages and 16 neutral prompts. Gain: ROUGE-1 on 200 test dialogues.
Model       SmolLM2-135M-Instruct, as in `dialogsum_lora.py`.
Expected    Full tuning moves farthest (KL, loss on text) and forgets most; LoRA learns less and forgets less (Biderman
            et al. 2024, arXiv:2405.09673). SAMSum, which is nearly the same task, gains. At 135M parameters RTE, BoolQ,
            COPA and MMLU are near chance before tuning, so that little can be lost there.
Command     python experiments/forgetting.py [full lora prompt]      (JAXFT_DATA and JAXFT_RUNS as everywhere)
Results     experiments/README.md
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dialogsum_lora

from jaxft.evaluation.forgetting import Probed, Probes, evaluate_probes, forgetting, plot_gain_forgetting
from jaxft.recipe import ProbesRecipe, Recipe
from jaxft.training.journal import write_json, write_text

RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "forgetting"
SHORT = ("glue/rte", "glue/sst2", "superglue/copa", "superglue/agnews", "mmlu/miscellaneous")
LONG = {"superglue/boolq": 40, "samsum": 30, "nlg/e2e": 30}
OTHERS = ProbesRecipe(
    tasks=[*SHORT, *({"task": name, "limit": {"test": count}} for name, count in LONG.items())],
    **{"examples": 60, "text": None, "prompts": None, "chat": True},
)
OWN = ProbesRecipe(examples=16, chat=True)


def recipe(method: str, probes: ProbesRecipe) -> Recipe:
    """The run of `dialogsum_lora.py`, asked about other tasks."""
    made = dialogsum_lora.recipe(method)
    data = dataclasses.replace(made.data, root=str(dialogsum_lora.DATA.parent))
    return dataclasses.replace(made, data=data, probes=probes)


def tuned(method: str) -> Path:
    """The adapter of a finished run, made if it is not there."""
    folder = dialogsum_lora.RUNS / method / "adapter"
    if not folder.exists():
        from jaxft.runs import run

        run(dialogsum_lora.recipe(method))
    return folder


def gain(method: str) -> dict[str, Any]:
    """ROUGE-1 on the test dialogues before and after, with the same prompt, and the difference."""
    from jaxft.evaluation.metrics import score
    from jaxft.evaluation.statistics import compare
    from jaxft.training.journal import read_lines

    if not (dialogsum_lora.RUNS / "prompt1.jsonl").exists():
        dialogsum_lora.score_prompts()
    untuned = {row["id"]: row["prediction"] for row in read_lines(dialogsum_lora.RUNS / "prompt1.jsonl")}
    rows = [row for row in read_lines(dialogsum_lora.RUNS / method / "predictions.jsonl") if row["id"] in untuned]
    references = [row["references"] for row in rows]
    before = score([untuned[row["id"]] for row in rows], references, ["rouge1"])["rouge1"]
    after = score([row["after"] for row in rows], references, ["rouge1"])["rouge1"]
    return {
        "before": {"rouge1": before.value},
        "after": {"rouge1": after.value},
        "comparison": {"rouge1": compare(after, before).to_dict()},
        "n": after.n,
    }


def measure(methods: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ask the untuned model, then each tuned one, and write what was forgotten."""
    from jaxft.methods.peft import load_adapter
    from jaxft.recipe import resolve
    from jaxft.runs.parts import load_model
    from jaxft.runs.probes import encode_probes, read_probes

    parts = [resolve(recipe("lora", probes)) for probes in (OTHERS, OWN)]
    asked = [read_probes(part) for part in parts]
    folders = {method: tuned(method) for method in methods}
    RUNS.mkdir(parents=True, exist_ok=True)
    model = load_model(parts[0])
    base = {"params": model.params}
    each = [encode_probes(part, one, model) for part, one in zip(parts, asked, strict=True) if one is not None]
    probes = dataclasses.replace(each[1], examples=[*each[0].examples, *each[1].examples])
    before = timed("untuned", probes, model, base, None)
    for method, folder in folders.items():
        made, trainable, frozen = load_adapter(folder, model)
        after = timed(method, probes, model, made.bind(trainable, frozen), base)
        summary = {**gain(method), "forgetting": forgetting(before, [], after)}
        write_json(RUNS / f"{method}.json", summary)
        yield method, summary


def timed(name: str, probes: Probes, model: Any, variables: Any, base: Any) -> Probed:
    """Ask, and say how long it took."""
    began = time.perf_counter()
    found = evaluate_probes(probes, model, variables, base)
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def table(summaries: Mapping[str, Any]) -> str:
    """Return the results as a Markdown table: a star where the change stands (p < 0.05, Holm over the probes)."""
    first = next(iter(summaries.values()))["forgetting"]
    lines = ["| probe | n | untuned | " + " | ".join(summaries) + " |", "|---" * (len(summaries) + 3) + "|"]
    for name, probe in first["probes"].items():
        found = [summary["forgetting"]["probes"][name] for summary in summaries.values()]
        lines.append(line(f"{name}, {probe['metric']}", probe["n"], probe["before"], found))
    found = [summary["forgetting"]["text_loss"] for summary in summaries.values()]
    lines.append(line("plain text, loss", found[0]["n"], found[0]["before"], found))
    rows = {
        "mean change of what is scored in 0..1": lambda one: interval(one["backward_transfer"],
                                                                      one["backward_transfer_interval"], "+"),
        "KL(base \\|\\| tuned), nats a token": lambda one: interval(
            one["kl_to_base"]["value"], (one["kl_to_base"]["low"], one["kl_to_base"]["high"])
        ),
    }  # fmt: skip
    for label, shown in rows.items():
        lines.append(f"| {label} | | | " + " | ".join(shown(s["forgetting"]) for s in summaries.values()) + " |")
    gains = [summary["comparison"]["rouge1"] for summary in summaries.values()]
    shown = [interval(one["difference"], (one["low"], one["high"]), "+") for one in gains]
    start = next(iter(summaries.values()))
    lines.append(f"| DialogSum, gain in ROUGE-1 | {start['n']} | {start['before']['rouge1']:.3f} | "
                 + " | ".join(shown) + " |")  # fmt: skip
    return "\n".join(lines)


def line(label: str, n: int, before: Mapping[str, float], found: list[Mapping[str, Any]]) -> str:
    """Return a row: before with its interval, and for each method the change with its own."""
    changes = [one["change"] for one in found]
    cells = [interval(one["value"], (one["low"], one["high"]), "+") + "*" * one["stands"] for one in changes]
    return (
        f"| {label} | {n} | {interval(before['value'], (before['low'], before['high']))} | " + " | ".join(cells) + " |"
    )


def interval(value: float, ends: Any, sign: str = "") -> str:
    """Return a number with its interval."""
    return f"{value:{sign}.3f} [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"


def main(methods: list[str]) -> None:
    methods = methods or list(dialogsum_lora.METHODS)
    for _ in measure(methods):
        known = {name: RUNS / f"{name}.json" for name in dialogsum_lora.METHODS}
        found = {name: json.loads(path.read_text()) for name, path in known.items() if path.exists()}
        write_text(RUNS / "table.md", table(found) + "\n")
        plot_gain_forgetting(found, RUNS / "forgetting.png", "rouge1")
    print((RUNS / "table.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
