"""Does compile time grow with depth, and does step time grow as the arithmetic does?

Question    Seconds to compile a LoRA step (r 8, attention) and seconds a step, with rolled and with unrolled layers.
Shapes      SmolLM2-135M's width (576, 9 heads of 64, 3 for keys, mlp 1536) with a vocabulary of 8192, 4 to 32 layers,
            batch 4 x 128, random weights, every token a target.
Method      Each program is compiled once; its step is taken `--rounds` times and the median reported.
Expected    Rolled: seconds to compile within a few tenths of each other; a step's seconds linear in layers. Unrolled:
            compile time linear in layers.
Command     python experiments/benchmarks/depth.py [--rounds 5] [--smoke]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import numpy as np
import optax

import jaxft
from jaxft.models import Decoder, DecoderConfig, Model
from jaxft.models.stack import Numerics

DEPTHS = (4, 8, 16, 32)


def measure(layers: int, unroll: bool, rounds: int, smoke: bool) -> tuple[float, list[float]]:
    width = 64 if smoke else 576
    config = DecoderConfig("llama", 8192, layers, width, 9, 3, 64, 1536)
    architecture = Decoder(config, Numerics(unroll=unroll))
    model = Model(architecture, jax.jit(architecture.init)(jax.random.key(0)), None)
    tokens = np.random.default_rng(0).integers(10, 8000, (4, 128)).astype(np.int32)
    batch = {"tokens": tokens, "targets": tokens, "positions": np.tile(np.arange(128, dtype=np.int32), (4, 1))}
    batch |= {"segments": np.ones_like(tokens), "weights": np.ones(tokens.shape, np.float32)}
    method, optimizer = jaxft.lora(rank=8), optax.adamw(1e-4)
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    state, step = jaxft.init_state(trainable, optimizer), jaxft.train_step(model, method, optimizer)
    lowered = step.jitted.lower(state, frozen, batch, jax.random.key(0))
    began = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - began
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        state, metrics = compiled(state, frozen, batch, jax.random.key(0))
        jax.block_until_ready(metrics)
        took.append(time.perf_counter() - began)
    return compiling, took[1:]  # the first one touches memory for the first time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    print("| layers | rolled: compile s | step s | unrolled: compile s | step s |\n|---|---|---|---|---|")
    for layers in DEPTHS[:2] if arguments.smoke else DEPTHS:
        cells = []
        for unroll in (False, True):
            compiling, took = measure(layers, unroll, arguments.rounds, arguments.smoke)
            cells += [f"{compiling:.2f}", f"{statistics.median(took):.3f}"]
        print(f"| {layers} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
