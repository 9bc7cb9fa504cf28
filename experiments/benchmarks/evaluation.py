"""Does an evaluation of ten thousand examples cost what their tokens cost?

Question    The time of ranking choices and of generating texts, over (real tokens / peak tokens per second); the target
            is at most 1.2, with answers streamed to disk.
Data        Random token ids: prompts of log-normal length (median 90, 16 to 480 tokens), four choices of 1 to 3 tokens,
            or 16 new tokens.
Model       Random weights in the shape of a small Llama: 4 layers of width 256, vocabulary 8,192 (5 M parameters);
            float32.
Method      Peak: the same work without variety, all prompts of one length, which fills every batch to the last
            position, its programs compiled. A token of a long prompt costs more (attention), so there are two ideals:
            every token at the peak of all, that of 64 to 480 tokens; and every example at the peak of its own length,
            interpolated. Real tokens are those of prompts and choices, each once, and the new ones. The share of
            compiling is told apart, by doing the work a second time. --clock cpu counts seconds of a core's work: what
            to use where other programs run beside it.
Command     python experiments/benchmarks/evaluation.py [--examples 10000] [--only rank|generate] [--clock wall|cpu]
Results     experiments/README.md
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxft.data import Encoded
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.tasks import answer
from jaxft.models import Decoder, DecoderConfig, Model

CONFIG = DecoderConfig(
    "llama", vocab_size=8192, num_layers=4, width=256, num_heads=4, num_kv_heads=2, head_dim=64, mlp_width=704,
    max_length=1024, eos_token_ids=(2,),
)  # fmt: skip
SETTINGS = {"max_new_tokens": 16, "batch_size": 16}
UNIFORM, NEW = (64, 128, 256, 480), 16
CHOICES = ("A", "B", "C", "D")


class Tokenizer:
    """Stands where a tokenizer does: ids written out."""

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join(map(str, ids))


def examples(count: int, kind: str, uniform: int | None = None) -> list[Encoded]:
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(np.log(90), 0.6, count)), 16, 480).astype(int)
    made = []
    for i, length in enumerate(lengths):
        prompt = random.integers(3, CONFIG.vocab_size, uniform or length).astype(np.int32)
        one = Encoded(str(i), prompt, prompt[:1], ("A",))
        if kind == "rank":
            sizes = [1] * 4 if uniform else random.integers(1, 4, 4)
            tokens = tuple(tuple(random.integers(3, CONFIG.vocab_size, size).tolist()) for size in sizes)
            one = Encoded(str(i), prompt, prompt[:1], ("A",), choices=CHOICES, choice_tokens=tokens)
        made.append(one)
    return made


def real_tokens(some: list[Encoded]) -> int:
    """Positions that have to be computed: the last token of a choice is only a target, and so is the last new one."""
    inner = [sum(len(ids) - 1 for ids in one.choice_tokens) if one.choices else NEW - 1 for one in some]
    return sum(len(one.prompt) for one in some) + sum(inner)


def seconds(model: Model, some: list[Encoded], clock: Any, batch_size: int = 16) -> float:
    with tempfile.TemporaryDirectory() as folder, Answers(Path(folder) / "answers.jsonl", {}) as answers:
        began = clock()
        answer(model, {"params": model.params}, some, {**SETTINGS, "batch_size": batch_size}, answers=answers)
        return clock() - began


def measure(kind: str, count: int, clock: Any) -> dict[str, Any]:
    architecture = Decoder(CONFIG)
    model = Model(architecture, architecture.init(jax.random.key(0)), Tokenizer())
    peaks = []
    for length in UNIFORM:
        uniform = examples(128 * 256 // length, kind, length)
        rows = 16 if kind == "rank" else {64: 64, 128: 32}.get(length, 16)  # as many as a mixture decodes together
        seconds(model, uniform, clock, rows)  # compiles
        peaks.append(max(real_tokens(uniform) / seconds(model, uniform, clock, rows) for _ in range(2)))
    some = examples(count, kind)
    first, second = (seconds(model, some, clock) for _ in range(2))
    ideal = real_tokens(some) / max(peaks)
    own = np.interp([len(one.prompt) for one in some], UNIFORM, peaks)
    ideal_own = sum(real_tokens([one]) / rate for one, rate in zip(some, own, strict=True))
    return {
        "work": kind,
        "examples": count,
        "real tokens": real_tokens(some),
        "peak tokens/s": dict(zip(UNIFORM, map(round, peaks), strict=True)),
        "seconds": round(first, 1),
        "of them compiling": round(first - second, 1),
        "factor": round(first / ideal, 3),
        "factor without compiling": round(second / ideal, 3),
        "factor, own length": round(first / ideal_own, 3),
        "factor, own length, without compiling": round(second / ideal_own, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--only", choices=("rank", "generate"))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    for kind in [options.only] if options.only else ["rank", "generate"]:
        print(json.dumps(measure(kind, options.examples, clock)), flush=True)


if __name__ == "__main__":
    main()
