"""What an own T5 knows: held-out losses, scores without tuning, completions to read, and what tuning from it gains.

Command     JAXFT_DATA=../shared/data python experiments/pretraining/measure.py losses zero samples tune --size tiny
Results     experiments/pretraining/README.md; as JSON beside the model
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from own_t5 import COMPLETION, LENGTH, RUNS, SEED, SIZES, architecture, examples, held_out_losses
from texts import tasks

import jaxft
from jaxft.data.tasks import encode_task, load_task, load_tasks
from jaxft.evaluation.tasks import evaluate_examples
from jaxft.models import Model
from jaxft.training.journal import write_json

PROMPT = "Summarise this dialogue.\n\n{{ dialogue }}"
SUMMARY = {"name": "dialogues", "source": "generated:dialogues", "completion": "summary",
           "metrics": ["rouge1", "rougeL"], "templates": {"summarise": PROMPT}}  # fmt: skip
TUNING = {
    "full": ({"name": "full"}, {"learning_rate": 1e-3}),
    "lora": ({"name": "lora", "rank": 16, "alpha": 32, "targets": "all"}, {"learning_rate": 5e-3}),
    "prompt": ({"name": "prompt", "length": 20}, {}),
}


def untrained(size: str, model: Model) -> Model:
    """Return the model with the weights that training began with."""
    t5 = architecture(SIZES[size], model.config.vocab_size)
    return dataclasses.replace(model, params=t5.init(jax.random.key(SEED)))


def losses(size: str, model: Model) -> dict[str, Any]:
    """Return held-out losses per target token: trained, untrained, and by the frequencies of the training targets."""
    held, learnt = (examples(split, model.tokenizer, limit) for split, limit in (("validation", 60), ("train", 30000)))
    method = jaxft.full()
    found = {}
    for name, one in (("trained", model), ("untrained", untrained(size, model))):
        trainable, frozen = method.init(jax.random.key(0), {"params": one.params})
        found[name] = held_out_losses(one, method, held)(trainable, frozen)
    found["unigram"] = {}
    for kind, spans in (("span_corruption", True), ("instructions", False)):
        kinds = [name for name in held if name.startswith("span/") == spans and name != "e2e"]
        counts = np.bincount(np.concatenate([one.completion for name in kinds for one in learnt[name][::7]]),
                             minlength=model.config.vocab_size) + 1.0  # fmt: skip
        targets = np.concatenate([one.completion for name in kinds for one in held[name]])
        found["unigram"][kind] = float(-np.log(counts / counts.sum())[targets].mean())
    return found


def zero(size: str, model: Model, most: int = 60) -> dict[str, Any]:
    """Return scores without tuning, of tasks that were trained on and of others, with 95 % intervals."""
    groups = tasks()
    sets = {
        "seen: superni": ([*groups["superni"]], "validation", 5),
        "seen: support": (groups["support"], "validation", most),
        "seen: dart": (groups["dart"], "test", most),
        "seen: boolq": (groups["boolq"], "validation", 2 * most),
        "seen: flan_cot": (groups["flan_cot"], "validation", 20),
        "unseen: superni": (load_tasks(["superni/*"]), "test", 12),
        "unseen: e2e": ([load_task("nlg/e2e")], "test", most),
        "unseen: summaries": ([load_task(SUMMARY)], "test", most),
        "unseen: sst2": ([load_task("glue/sst2")], "validation", 2 * most),
        "unseen: rte": ([load_task("glue/rte")], "validation", 2 * most),
    }
    found: dict[str, Any] = {}
    start = untrained(size, model)
    for name, (members, split, limit) in sets.items():
        chosen = [one for task in members if split in task.splits or not task.splits
                  for one in encoded(task, split, model.tokenizer, limit)]  # fmt: skip
        for label, one in (("trained", model), ("untrained", start)):
            scored = evaluate_examples(one, {"params": one.params}, chosen, settings={"max_new_tokens": 48})
            scores = {key: [s.value, *(s.interval or ())] for key, s in scored.scores.items()}
            found.setdefault(name, {"n": scored.n})[label] = scores
        print(name, found[name], flush=True)
    return found


def encoded(task, split: str, tokenizer: Any, limit: int):
    return encode_task(task, split, tokenizer, max_length=LENGTH, max_completion=COMPLETION, encoder_decoder=True,
                       limit=limit, on_long="truncate", on_bad="skip")[0]  # fmt: skip


def samples(size: str, model: Model) -> list[dict[str, Any]]:
    """Return completions to read: of texts with gaps, and of tasks seen and unseen."""
    tokens = model.tokenizer
    held = examples("validation", tokens, 60)
    groups, rows = tasks(), []
    for name in ("span/dialogues", "span/p3", "span/flan_cot"):
        rows += [(name, held[name][i].prompt, tokens.decode(held[name][i].completion[:-1])) for i in (1, 5)]
    for label, task, split in (("dart", groups["dart"][0], "test"), ("support", groups["support"][0], "validation"),
                               ("e2e (unseen)", load_task("nlg/e2e"), "test"),
                               ("summaries (unseen)", load_task(SUMMARY), "test")):  # fmt: skip
        rows += [(label, one.prompt, one.references[0]) for one in encoded(task, split, tokens, 2)]
    prompts = [prompt.tolist() for _, prompt, _ in rows]
    variables = {"params": model.params}
    ids = jaxft.generate(model, variables, prompts, max_new_tokens=48, return_tokens=True)
    texts = [tokens.decode([i for i in one if i != tokens.eos_token_id]) for one in ids]  # sentinels stay
    return [
        {"task": label, "prompt": tokens.decode(prompt[:-1]), "reference": reference, "completion": text}
        for (label, prompt, reference), text in zip(rows, texts, strict=True)
    ]


def tune(size: str, model: Model, steps: int = 100) -> dict[str, Any]:
    """Return scores on summaries of dialogues after tuning from the trained and from the untrained weights."""
    from jaxft.recipe import (
        DataRecipe,
        EvaluateRecipe,
        GenerateRecipe,
        ModelRecipe,
        OptimizerRecipe,
        ProbesRecipe,
        Recipe,
        TrainRecipe,
    )

    folder = RUNS / f"t5-{size}" / "tuned"
    jaxft.save(folder / "untrained-model", untrained(size, model))
    found: dict[str, Any] = {}
    for label, source in (("trained", model.source), ("untrained", str(folder / "untrained-model"))):
        for method, (config, rates) in TUNING.items():
            recipe = Recipe(
                model=ModelRecipe(source, unroll=True, remat="none"),
                method=config,
                data=DataRecipe("generated:dialogues", prompt=PROMPT, completion="summary",
                                max_prompt=LENGTH, max_completion=80, on_long="truncate", buckets=1,
                                limit={"validation": 24, "test": 60}),
                optimizer=OptimizerRecipe(**rates),
                train=TrainRecipe(steps=steps, batch_size=8, eval_generate=0),
                generate=GenerateRecipe(max_new_tokens=56),
                evaluate=EvaluateRecipe(metrics=["rouge1", "rougeL"], before=method == "full"),
                probes=ProbesRecipe(enabled=False),
                out=str(folder / f"{label}-{method}"),
            )  # fmt: skip
            summary = jaxft.run(recipe, overwrite=True)
            found[f"{label}, {method}"] = {
                "after": summary["after"], "before": summary.get("before"), "intervals": summary.get("intervals")
            }  # fmt: skip
            print(label, method, summary["after"], flush=True)
    return found


PARTS = {"losses": losses, "zero": zero, "samples": samples, "tune": tune}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--model", help="directory or source; default: jaxft:t5-SIZE")
    given = parser.parse_args()
    model = jaxft.load(given.model or f"jaxft:t5-{given.size}")
    for part in given.parts or PARTS:
        result = PARTS[part](given.size, model)
        write_json(Path(RUNS / f"t5-{given.size}" / f"{part}.json"), result)
        print(part, result, flush=True)


if __name__ == "__main__":
    main()
