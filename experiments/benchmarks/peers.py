"""How fast and how large next to torch + transformers + peft, in the same minutes on the same machine?

Question    Step time, tokens/s, first-step time and peak memory of full and LoRA (r 16, attention) training, and
            tokens/s of greedy generation.
Shapes      FLAN-T5-small (batch 8, source 256, target 64) and SmolLM2-135M (batch 4 x 256), random weights, every
            token a target; generation: batch 8 and 1, prompts of 256 tokens, 64 new tokens.
Method      Each side is a process of its own. The two take turns, one step at a time, so that the machine's drift meets
            both; the median of the turns is reported, and the ratio of medians, above 1 where jaxft is faster.
Command     python experiments/benchmarks/peers.py [--rounds 7] [--dtype bfloat16] [CASE ...]     cases: see CASES
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

TASKS = ("lora", "lora-remat", "full", "generate8", "generate1")  # remat: jaxft keeps only the input of each layer
CASES = [f"{model}-{task}" for model in ("smollm2", "t5") for task in TASKS]
NEW_TOKENS = 64
# LoRA's targets as each library calls them.
PROJECTIONS = {"smollm2": ["q_proj", "k_proj", "v_proj", "o_proj"], "t5": ["q", "k", "v", "o"]}


def batch(model: str, rows: int = 0) -> dict[str, np.ndarray]:
    """The same tokens for both sides; all of them count."""
    draw = np.random.default_rng(0)

    def block(rows, length, vocabulary):
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
        tokens = draw.integers(10, vocabulary, (rows, length)).astype(np.int32)
        return {"tokens": tokens, "positions": positions, "segments": np.ones_like(tokens)}

    if model == "smollm2":
        made = block(rows or 4, 256, 49152)
    else:
        made = block(rows or 8, 64, 32100)
        made |= {f"encoder_{name}": value for name, value in block(rows or 8, 256, 32100).items()}
    return made | {"targets": made["tokens"], "weights": np.ones(made["tokens"].shape, np.float32)}


def tokens_in(case: str) -> int:
    made = batch(case.split("-")[0])
    return sum(value.size for name, value in made.items() if name.endswith("tokens"))


def jaxft_side(case: str, dtype: str) -> Callable[[], None]:
    import jax
    import optax

    import jaxft
    from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config
    from jaxft.models.stack import Numerics

    name, task, *remat = case.split("-")
    numerics = Numerics(dtype=jax.numpy.dtype(dtype), remat="full" if remat else "dots")
    if name == "smollm2":
        config = DecoderConfig("llama", 49152, 30, 576, 9, 3, 64, 1536, rope_theta=1e5, eos_token_ids=())
        architecture = Decoder(config, numerics)
    else:
        config = T5Config("t5", 32128, 8, 8, 512, 6, 64, 1024, True, "gelu_new", eos_token_ids=())
        architecture = T5(config, numerics)
    params = jax.jit(architecture.init, static_argnums=1)(jax.random.key(0), jax.numpy.dtype(dtype))
    if task.startswith("generate"):
        rows = batch(name, int(task.removeprefix("generate")))
        prompts = rows["encoder_tokens" if name == "t5" else "tokens"].tolist()
        model = Model(architecture, params, None)

        def generate():
            texts = jaxft.generate(
                model,
                {"params": params},
                prompts,
                max_new_tokens=NEW_TOKENS,
                batch_size=len(prompts),
                return_tokens=True,
            )
            assert all(len(text) == NEW_TOKENS for text in texts)

        return generate
    method = jaxft.full() if task == "full" else jaxft.lora(16, 32, "attention")
    optimizer = optax.adamw(1e-4)
    trainable, frozen = method.init(jax.random.key(1), {"params": params})
    if task == "full":
        params = None  # nothing compares with the base here, and torch keeps no second copy either
    state = jaxft.init_state(trainable, optimizer)
    step, data, key = (
        jaxft.train_step(Model(architecture, None, None), method, optimizer),
        batch(name),
        jax.random.key(2),
    )
    del trainable

    def train():
        nonlocal state
        state, metrics = step(state, frozen, data, key)
        assert np.isfinite(metrics["loss"])

    return train


def torch_side(case: str, dtype: str) -> Callable[[], None]:
    import peft
    import torch
    import transformers

    name, task, *_ = case.split("-")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    if name == "smollm2":
        config = transformers.LlamaConfig(
            vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
            intermediate_size=1536, rope_theta=1e5, tie_word_embeddings=True, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.T5Config(
            vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", eos_token_id=None, decoder_start_token_id=0,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config)
        # transformers 5 ties every T5's head; FLAN-T5 has its own.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.05)
    model.to(device, getattr(torch, dtype))

    def tensor(value):
        return torch.tensor(value, device=device).long()

    if task.startswith("generate"):
        rows = batch(name, int(task.removeprefix("generate")))
        prompts = tensor(rows["encoder_tokens" if name == "t5" else "tokens"])
        model.eval()
        model.generation_config.eos_token_id = None

        def generate():
            with torch.inference_mode():
                out = model.generate(
                    input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
                    max_new_tokens=NEW_TOKENS, pad_token_id=0, eos_token_id=None,
                )  # fmt: skip
            assert out.shape[1] == NEW_TOKENS + (1 if name == "t5" else prompts.shape[1])

        return generate
    if task == "lora":
        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS[name]))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
    data = {key: tensor(value) for key, value in batch(name).items() if key.endswith("tokens")}
    inputs = {"input_ids": data["encoder_tokens"]} if name == "t5" else {"input_ids": data["tokens"]}

    def train():
        optimizer.zero_grad()
        loss = model(**inputs, labels=data["tokens"]).loss
        loss.backward()
        optimizer.step()
        assert np.isfinite(loss.item())

    return train


def worker(side: str, case: str, dtype: str) -> None:
    """Take one step for each line read, and say how long it took."""
    take = {"jaxft": jaxft_side, "torch": torch_side}[side](case, dtype)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        take()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)


def compare(case: str, rounds: int, dtype: str) -> dict:
    """Return both sides' figures, measured in turns."""
    command = [sys.executable, __file__, "--dtype", dtype]
    sides = {
        side: subprocess.Popen(
            [*command, "--worker", side, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for side in ("jaxft", "torch")
    }
    for process in sides.values():
        assert process.stdout.readline().strip() == "ready"
    turns: dict[str, list] = {side: [] for side in sides}
    for _ in range(rounds + 2):
        for side, process in sides.items():
            process.stdin.write("\n")
            process.stdin.flush()
            turns[side].append(json.loads(process.stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    work = tokens_in(case)
    if "generate" in case:
        work = NEW_TOKENS * int(case.split("generate")[1])
    row: dict = {"case": case, "rounds": rounds}
    for side, taken in turns.items():
        seconds = statistics.median(turn["seconds"] for turn in taken[2:])  # the first compiles, the second warms up
        row[side] = {"first": taken[0]["seconds"], "seconds": seconds, "tokens_per_second": work / seconds,
                     "peak_gb": taken[-1]["peak"] / 1e9}  # fmt: skip
    row["speed_ratio"] = row["torch"]["seconds"] / row["jaxft"]["seconds"]
    row["memory_ratio"] = row["jaxft"]["peak_gb"] / row["torch"]["peak_gb"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.cases[0], arguments.dtype)
        return
    print("| case | jaxft tokens/s | torch tokens/s | speed ratio | first step s | peak GB | peak ratio |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        row = compare(case, arguments.rounds, arguments.dtype)
        ours, theirs = row["jaxft"], row["torch"]
        print(
            f"| {case} | {ours['tokens_per_second']:.0f} | {theirs['tokens_per_second']:.0f} "
            f"| {row['speed_ratio']:.2f} "
            f"| {ours['first']:.1f} / {theirs['first']:.1f} | {ours['peak_gb']:.2f} / {theirs['peak_gb']:.2f} "
            f"| {row['memory_ratio']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
