"""What does the input pipeline cost, alone and beside a training step, and what does packing save?

Question    Rows/s and tokens/s of rendering, tokenising (1 and 2 threads, cached or not) and batching; the share of a
            step's time that making its batch takes; the share of padding with length buckets and with packing.
Data        DialogSum's 12,460 training rows with one template, and a mixture of some 80 tasks of ours (`TASKS`; at most
            `--task-rows` training rows each, a template drawn for each row).
Shapes      GPT-2's tokenizer with SmolLM2-135M's layers, T5's with T5-small's; random weights, LoRA of rank 8, batch 8,
            at most 512 tokens (T5: of each side).
Method      Each measurement is a process of its own, so that the number of threads can be set and no cache is warm by
            accident; the least of three times for what is done thrice. Batches are timed in the thread that trains,
            without the prefetching that hides them in a run.
            With --clock cpu everything is in seconds of a core's work: what to use where other programs run beside it.
Command     python experiments/benchmarks/data.py [--steps 10] [--rows N] [--only pipeline|step] [--clock wall|cpu]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SHAPES, DATA = ("smollm2", "t5-small"), ("dialogsum", "mixture")
TASKS = ("superni/*", "glue/*", "superglue/*", "nlg/*", "flan_cot/*", "dialogsum", "samsum")
PROMPT = "Summarise the dialogue.\n\n{{ dialogue }}\n\nSummary:"
BATCH, LENGTH = 8, 512
clock = time.process_time if os.environ.get("JAXFT_CLOCK") == "cpu" else time.perf_counter


def make_tokenizer(shape: str) -> Any:
    import transformers

    folder = ROOT / "tokenizers" / ("t5" if shape == "t5-small" else "gpt2")
    if shape == "t5-small":
        return transformers.T5Tokenizer.from_pretrained(str(folder))
    end = "<|endoftext|>"
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=end)


def timed(seconds: dict[str, float], name: str, call: Callable[[], Any], times: int = 1) -> Any:
    for _ in range(times):
        began = clock()
        result = call()
        seconds[name] = min(seconds.get(name, np.inf), clock() - began)
    return result


def encoder(data: str, shape: str, rows: int, task_rows: int) -> Callable[[], list]:
    """Return what renders and tokenises the data anew at each call."""
    from jaxft.data import Format, encode, read

    tokenizer = make_tokenizer(shape)
    limits = {"max_length": LENGTH, "encoder_decoder": shape == "t5-small", "on_long": "truncate", "on_bad": "skip"}
    if data == "dialogsum":
        train = read(ROOT / "dialogsum", "train").limit(rows)
        format = Format(PROMPT, " {{ summary }}" if shape == "smollm2" else "summary")
        return lambda: encode(train, format, tokenizer, **limits)[0]
    from jaxft.data.tasks import encode_task, load_tasks

    found = [task for task in load_tasks(TASKS, ROOT) if task.train and "train" in task.splits]

    def encode_all() -> list:
        parts = (encode_task(task, "train", tokenizer, limit=task_rows, **limits)[0] for task in found)
        return list(itertools.chain.from_iterable(parts))

    return encode_all


def make_batches(examples: list, shape: str, packing: bool) -> Any:
    from jaxft.data import Batches
    from jaxft.data.grouping import by_task
    from jaxft.data.mixture import Mixture

    counts = {task: len(places) for task, places in by_task(examples).items()}
    return Batches(
        examples,
        BATCH,
        decoder_start_token_id=0 if shape == "t5-small" else None,
        mixture=Mixture(counts) if len(counts) > 1 else None,
        packing=packing,
        row_length=LENGTH,
    )


def pipeline(data: str, shape: str, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    from jaxft.data import tokens as tokens_module
    from jaxft.data.caching import tokenise

    encode_all = encoder(data, shape, rows, options.task_rows)
    seconds: dict[str, float] = {}
    tokenising: list[float] = []

    def plain(tokenizer, texts, special):
        began = clock()
        ids = tokenise(tokenizer, texts, special)
        tokenising[-1] += clock() - began
        return ids

    def encode_plainly():
        tokenising.append(0.0)
        return encode_all()

    cached, tokens_module.cached_tokens = tokens_module.cached_tokens, plain
    examples = timed(seconds, "without cache", encode_plainly, times=3)
    seconds["tokenising"] = min(tokenising)
    count = sum(len(example.prompt) + len(example.completion) for example in examples)
    result: dict[str, Any] = {"rows": len(examples), "tokens": count, "seconds": seconds}
    if options.threads == 1:
        return result
    tokens_module.cached_tokens = cached
    timed(seconds, "into the cache", encode_all)
    timed(seconds, "from the cache", encode_all, times=3)
    for packing in (False, True):
        batches = make_batches(examples, shape, packing)
        name = "packing" if packing else "buckets"
        timed(seconds, f"plan {name}", lambda batches=batches: batches.plan(0))
        steps = min(batches.steps_per_epoch, 200)
        held = timed(seconds, f"batches {name}", lambda b=batches, n=steps: sum(sizes(b.batch(i)) for i in range(n)))
        result[name] = {"steps": batches.steps_per_epoch, "padding": batches.padding(), "timed": steps, "tokens": held}
    return result


def sizes(batch: dict[str, np.ndarray]) -> int:
    return sum(int((array > 0).sum()) for name, array in batch.items() if name.endswith("segments"))


def step(data: str, shape: str, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    import jax

    import jaxft
    from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config

    batches = make_batches(encoder(data, shape, rows, options.task_rows)(), shape, packing=False)
    if shape == "t5-small":
        architecture = T5(T5Config("t5", 32128, 6, 6, 512, 8, 64, 2048, False, "relu"))
    else:
        architecture = Decoder(DecoderConfig("llama", 50257, 30, 576, 9, 3, 64, 1536, rope_theta=1e5, eos_token_ids=()))
    model = Model(architecture, jax.jit(architecture.init)(jax.random.key(0)), None)
    method, key = jaxft.lora(rank=8, targets="attention"), jax.random.key(1)
    trainable, frozen = method.init(key, {"params": model.params})
    optimizer = jaxft.make_optimizer(jaxft.OptimizerConfig(), 1000)
    state, take = jaxft.init_state(trainable, optimizer), jaxft.train_step(model, method, optimizer)
    # The steps of one shape, the one that most batches have, so that one compilation will do.
    shapes = [batches.shape(i) for i in range(min(batches.steps_per_epoch, 200))]
    common = max(set(shapes), key=shapes.count)
    chosen = [i for i, one in enumerate(shapes) if one == common][: options.steps + 2]
    spent: dict[str, list[float]] = {"batch": [], "step": []}
    for i in chosen:
        began = clock()
        batch = batches.batch(i)
        made = clock()
        state, metrics = take(state, frozen, batch, key)
        metrics["loss"].block_until_ready()
        spent["batch"].append(made - began)
        spent["step"].append(clock() - made)
    medians = {name: statistics.median(times[2:]) for name, times in spent.items()}
    return {"shape": common, "steps": len(chosen) - 2, **medians, "share": medians["batch"] / medians["step"]}


def measure(what: str, data: str, shape: str, options: argparse.Namespace, threads: int = 2) -> dict[str, Any]:
    """Return what a process of its own has measured."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "RAYON_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
            "JAXFT_CACHE": cache,
            "JAXFT_CLOCK": options.clock,
        }
        flags = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("rows", "task-rows", "steps")]
        flags.append(f"--threads={threads}")
        command = [sys.executable, __file__, *flags, "--worker", what, data, shape]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def pipeline_row(data: str, shape: str, options: argparse.Namespace) -> tuple[str, str]:
    one, two = (measure("pipeline", data, shape, options, threads) for threads in (1, 2))
    seconds, tokens = two["seconds"], two["tokens"]
    rates = [f"{two['rows']:,}", f"{tokens / 1e6:.2f} M", f"{tokens / one['seconds']['tokenising'] / 1e3:,.0f} k"]
    rates += [f"{tokens / seconds['tokenising'] / 1e3:,.0f} k"]
    for name in ("without cache", "into the cache", "from the cache"):
        rates.append(f"{seconds[name]:.2f} s, {two['rows'] / seconds[name]:,.0f}")
    made = [f"{two['buckets']['tokens'] / seconds['batches buckets'] / 1e3:,.0f} k"]
    made += [f"{1e3 * seconds[f'batches {name}'] / two[name]['timed']:.2f}" for name in ("buckets", "packing")]
    made += [f"{1e3 * seconds[f'plan {name}']:.0f}" for name in ("buckets", "packing")]
    made += [f"{two[name]['padding']:.1%}, {two[name]['steps']:,}" for name in ("buckets", "packing")]
    return f"| {data} | {shape} | {' | '.join(rates)} |", f"| {data} | {shape} | {' | '.join(made)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of DialogSum at most")
    parser.add_argument("--task-rows", type=int, default=300, help="rows of each task of the mixture at most")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", choices=("pipeline", "step"))
    parser.add_argument("--data", choices=DATA, action="append", help="only this data (may be given twice)")
    parser.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=3, metavar=("WHAT", "DATA", "SHAPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        what, data, shape = options.worker
        print(json.dumps({"pipeline": pipeline, "step": step}[what](data, shape, options.rows, options)))
        return
    cases = list(itertools.product(options.data or DATA, SHAPES))
    if options.only != "step":
        rows = [pipeline_row(data, shape, options) for data, shape in cases]
        print(
            "| data | shape | rows | tokens | tokenising, 1 thread, tokens/s | 2 threads | encode: s, rows/s ", end=""
        )
        print("| with the cache written | read from the cache |")
        print(f"|{'---|' * 9}", *(row for row, _ in rows), sep="\n")
        print("\n| data | shape | batches, tokens/s | ms/batch | packed | plan, ms | packed ", end="")
        print("| padding, steps/epoch | packed |")
        print(f"|{'---|' * 9}", *(row for _, row in rows), sep="\n", flush=True)
    if options.only != "pipeline":
        print("\n| data | shape | padded shape | step, ms | its batch, ms | share |")
        print(f"|{'---|' * 6}")
        for data, shape in cases:
            found = measure("step", data, shape, options)
            padded = " + ".join(map(str, found["shape"]))
            print(f"| {data} | {shape} | {BATCH} x {padded} | {1e3 * found['step']:,.0f} ", end="")
            print(f"| {1e3 * found['batch']:.2f} | {found['share']:.3%} |", flush=True)


if __name__ == "__main__":
    main()
