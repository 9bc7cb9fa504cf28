"""When does sweeping N members as one program pay, against the same runs one after another?

Question    Seconds per step of all members, seconds of the first step (compilation), and peak memory of the process:
            N members by `sweep_step`, against N steps of `train_step`, as N solo runs would take them.
Shapes      SmolLM2-135M (T 128) and T5-small (source 128, target 32), random weights, every token a target, LoRA of
            rank 8 on attention; batch 1 and 4; 1, 2, 4 and 8 members with learning rates of their own.
Method      Sweep and solo are processes of their own that take turns: a step of the sweep, then N solo steps; the
            medians of the turns are reported. Above 1 the sweep is faster. Solo runs would also compile N times.
Command     python experiments/benchmarks/sweep.py [--rounds 5] [--smoke]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

MEMBERS, BATCHES, SHAPES = (1, 2, 4, 8), (1, 4), ("smollm2", "t5-small")
LORA = {"name": "lora", "rank": 8, "alpha": 16.0, "targets": "attention"}
STEPS = 1000  # of the schedule; far fewer are taken


def make_model(shape: str, smoke: bool):
    import jax

    from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config

    if shape == "smollm2":
        layers, vocabulary = (2, 500) if smoke else (30, 49152)
        config = DecoderConfig("llama", vocabulary, layers, 576, 9, 3, 64, 1536, rope_theta=1e5, eos_token_ids=())
        architecture = Decoder(config)
    else:
        layers, vocabulary = (2, 500) if smoke else (6, 32128)
        architecture = T5(T5Config("t5", vocabulary, layers, layers, 512, 8, 64, 2048, False, "relu"))
    return Model(architecture, jax.jit(architecture.init)(jax.random.key(0)), None)


def make_batch(shape: str, rows: int, smoke: bool) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    source, target = (16, 8) if smoke else (128, 32)

    def block(length):
        tokens = draw.integers(10, 500, (rows, length)).astype(np.int32)
        positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
        return {"tokens": tokens, "positions": positions, "segments": np.ones_like(tokens)}

    if shape == "smollm2":
        made = block(source)
    else:
        made = block(target) | {f"encoder_{name}": value for name, value in block(source).items()}
    return made | {"targets": made["tokens"], "weights": np.ones(made["tokens"].shape, np.float32)}


def sweep_side(shape: str, rows: int, count: int, smoke: bool) -> Callable[[], None]:
    import jax

    from jaxft.sweep import sweep_step
    from jaxft.sweep.step import start
    from jaxft.training.optimizer import OptimizerConfig

    model, batch, optimizer = make_model(shape, smoke), make_batch(shape, rows, smoke), OptimizerConfig()
    keys = jax.random.split(jax.random.key(1), count)
    rates = {"learning_rate": np.geomspace(1e-5, 1e-3, count).tolist()}
    members, frozen = start(model, [LORA] * count, list(keys), rates, optimizer, STEPS, LORA)
    step = sweep_step(model, LORA, optimizer, STEPS)

    def take():
        nonlocal members
        members, metrics = step(members, frozen, batch, keys)
        assert np.isfinite(metrics["loss"])

    return take


def solo_side(shape: str, rows: int, count: int, smoke: bool) -> Callable[[], None]:
    import jax

    import jaxft
    from jaxft.methods import from_config

    model, batch, method = make_model(shape, smoke), make_batch(shape, rows, smoke), from_config(LORA)
    optimizer, key = jaxft.make_optimizer(jaxft.OptimizerConfig(), STEPS), jax.random.key(1)
    trainable, frozen = method.init(key, {"params": model.params})
    state, step = jaxft.init_state(trainable, optimizer), jaxft.train_step(model, method, optimizer)

    def take():
        nonlocal state
        for _ in range(count):
            state, metrics = step(state, frozen, batch, key)
            assert np.isfinite(metrics["loss"])

    return take


def worker(side: str, shape: str, rows: int, count: int, smoke: bool) -> None:
    """Take the steps of a turn for each line read, and say how long they took."""
    take = {"sweep": sweep_side, "solo": solo_side}[side](shape, rows, count, smoke)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        take()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak}), flush=True)


def compare(shape: str, rows: int, count: int, rounds: int, smoke: bool) -> str:
    """Return a row of the table, both sides measured in turns."""
    command = [sys.executable, __file__, *(["--smoke"] if smoke else []), "--worker"]
    sides = {
        side: subprocess.Popen(
            [*command, side, shape, str(rows), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in ("sweep", "solo")
    }
    for process in sides.values():
        assert process.stdout.readline().strip() == "ready"
    turns: dict[str, list] = {side: [] for side in sides}
    for _ in range(rounds + 2):  # the first compiles, the second warms up
        for side, process in sides.items():
            process.stdin.write("\n")
            process.stdin.flush()
            turns[side].append(json.loads(process.stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    step = {side: statistics.median(turn["seconds"] for turn in taken[2:]) for side, taken in turns.items()}
    # The solo side's first turn is a compilation and `count` steps, of which one belongs to the first run.
    first = {
        "sweep": turns["sweep"][0]["seconds"],
        "solo": turns["solo"][0]["seconds"] - step["solo"] * (1 - 1 / count),
    }
    peak = {side: taken[-1]["peak"] / 1e9 for side, taken in turns.items()}
    return (
        f"| {shape} | {rows} | {count} | {step['sweep']:.3f} | {step['solo']:.3f} | {step['solo'] / step['sweep']:.2f} "
        f"| {first['sweep']:.1f} | {count} x {first['solo']:.1f} | {peak['sweep']:.2f} | {peak['solo']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="two layers, short batches, 1 and 2 members")
    parser.add_argument("--worker", nargs=4, metavar=("SIDE", "SHAPE", "ROWS", "MEMBERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, shape, rows, count = options.worker
        return worker(side, shape, int(rows), int(count), options.smoke)
    print("| shape | batch | members | sweep s/step | solo s/step | speed-up | sweep first s | solo first s ", end="")
    print("| sweep peak GB | solo peak GB |")
    print(f"|{'---|' * 10}")
    for shape in SHAPES:
        for rows in BATCHES:
            for count in MEMBERS[:2] if options.smoke else MEMBERS:
                print(compare(shape, rows, count, options.rounds, options.smoke), flush=True)


if __name__ == "__main__":
    main()
