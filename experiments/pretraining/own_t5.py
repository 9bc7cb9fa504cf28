"""Small encoder-decoders of our own: T5 v1.1 pretrained by span corruption and instructions at once.

Question    What can a T5 of 4, 8 and 18 million weights learn within an hour of two CPU cores, and is tuning from it
            better than tuning from nothing?
Data        experiments/pretraining/texts.py: licences that permit it; about 9 million tokens of text and 100,000
            instruction examples; tokenizer of 4,096 tokens trained on the same texts (vocabulary.py).
Model       T5 v1.1 (Shazeer 2020, arXiv:2002.05202): gated GELU, untied head, relative bias; widths 192, 256 and 384.
Objective   Half span corruption (15 % of tokens, spans of 3; Raffel et al. 2020, arXiv:1910.10683), half instructions,
            by a mixture of examples, packed in rows of 256 encoder tokens.
Settings    Adam whose steps are scaled by the root mean square of each weight, as Adafactor's are; warm-up, constant
            rate, linear to 0 over the last fifth: more --tokens continue from the constant part.
Command     JAXFT_DATA=../shared/data python experiments/pretraining/own_t5.py --size tiny   (Ctrl-C and again: goes on)
Results     experiments/pretraining/README.md
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from texts import tasks, texts
from vocabulary import train_tokenizer

import jaxft
from jaxft.data import Batches, Encoded, evaluation_batches
from jaxft.data.mixture import Mixture
from jaxft.data.span_corruption import cut, span_corruption
from jaxft.data.tasks import encode_task
from jaxft.data.tokens import cached_tokens
from jaxft.models import T5, Model, T5Config
from jaxft.models.stack import Numerics
from jaxft.training.journal import append_to, read_lines, write_json
from jaxft.training.journal import cut as cut_journal
from jaxft.training.progress import Progress
from jaxft.training.step import loss_step

RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "own"
SEED, LENGTH, COMPLETION = 0, 256, 96


class Size(NamedTuple):
    """A member of the family; `tokens` (both sides, without padding) is what it sees by default."""

    width: int
    layers: int
    num_heads: int
    head_dim: int
    mlp_width: int
    tokens: float
    rate: float = 0.01


SIZES = {
    "tiny": Size(192, 3, 6, 32, 384, 20e6),
    "mini": Size(256, 4, 8, 32, 512, 20e6),
    "small": Size(384, 4, 6, 64, 896, 20e6),
}

# Shares of examples: span corruption by kind of text, then instructions by group. E2E is read as plain text; as
# a task it is only measured, so that it can be tuned on.
SHARES = {
    "span/superni": 0.06, "span/flan_cot": 0.10, "span/e2e": 0.03, "span/dart": 0.01, "span/p3": 0.12,
    "span/instruct": 0.005, "span/boolq": 0.025, "span/dialogues": 0.12, "span/conversations": 0.03,
    "superni": 0.16, "flan_cot": 0.12, "e2e": 0.0, "dart": 0.05, "boolq": 0.02, "p3": 0.10, "instruct": 0.005,
    "support": 0.045,
}  # fmt: skip


def architecture(size: Size, vocabulary: int) -> T5:
    config = T5Config("t5", vocab_size=vocabulary, num_layers=size.layers, num_decoder_layers=size.layers,
                      width=size.width, num_heads=size.num_heads, head_dim=size.head_dim, mlp_width=size.mlp_width,
                      gated=True, activation="gelu_new")  # fmt: skip
    return T5(config, Numerics(remat="none", unroll=True))


def tokenizer(folder: Path = RUNS / "tokenizer") -> Any:
    """Return the family's tokenizer, trained at first use."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        groups = tasks()
        prompts = (template.prompt for members in groups.values() for task in members for template in task.templates)
        made = train_tokenizer([*prompts, *(text for _, some in texts(groups, "train") for text in some)])
        made.save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def examples(split: str, tokens: Any, limit: int, folder: Path = RUNS / "data") -> dict[str, list[Encoded]]:
    """Return the examples of a split by the names of SHARES, at most about `limit` of each.

    They are kept in `folder`: remove it where texts.py has changed.
    """
    names = list(SHARES)
    path = folder / f"{split}-{limit}.npz"
    if not path.is_file():
        made = _made(split, tokens, limit)
        flat = [(names.index(name), one.prompt, one.completion) for name in names for one in made[name]]
        group, prompts, completions = zip(*flat, strict=True)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"prompt": prompts, "completion": completions}
        arrays = {f"{key}_tokens": np.concatenate(some).astype(np.uint16) for key, some in parts.items()}
        ends = {f"{key}_ends": np.cumsum([len(ids) for ids in some]) for key, some in parts.items()}
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, group=np.array(group), **arrays, **ends)
        path.with_suffix(".part").replace(path)
    held = np.load(path)
    prompts, completions = (
        np.split(held[f"{key}_tokens"].astype(np.int32), held[f"{key}_ends"][:-1]) for key in ("prompt", "completion")
    )
    found: dict[str, list[Encoded]] = {name: [] for name in names}
    for i, (group, prompt, completion) in enumerate(zip(held["group"], prompts, completions, strict=True)):
        found[names[group]].append(Encoded(f"{names[group]}:{i}", prompt, completion, task=names[group]))
    return found


def _made(split: str, tokens: Any, limit: int) -> dict[str, list[Encoded]]:
    groups, found = tasks(), {}
    for name, some in texts(groups, split):
        ids = cached_tokens(tokens, _spread(some, limit), False)
        pieces = [piece for one in ids for piece in cut(one, LENGTH - 16)]
        found[f"span/{name}"] = span_corruption(
            pieces, tokens, seed=SEED, epochs=range(2 if split == "train" else 1), task=f"span/{name}"
        )
    for name, members in groups.items():
        parts = [_encoded(task, split, tokens, limit) for task in members]
        found[name] = _spread([example for part in parts for example in part], limit)
    return found


def _spread(items: list, limit: int) -> list:
    return items[:: -(-len(items) // limit)]  # of every task some


def _encoded(task, split, tokens, limit):
    most = limit if split == "train" else -(-limit // 4)
    return encode_task(task, split, tokens, max_length=LENGTH, max_completion=COMPLETION, encoder_decoder=True,
                       rationale=0.5, limit=most, on_long="truncate", on_bad="skip")[0]  # fmt: skip


def training_batches(found: Mapping[str, list[Encoded]], config: T5Config, batch_size: int) -> Batches:
    mixture = Mixture({name: len(some) for name, some in found.items()}, SHARES, size=16384, seed=SEED)
    return Batches([one for some in found.values() for one in some], batch_size, seed=SEED, mixture=mixture,
                   packing=True, row_length=LENGTH, pad_token_id=config.pad_token_id,
                   decoder_start_token_id=config.decoder_start_token_id)  # fmt: skip


def optimizer(rate: float, steps: int, warmup: int = 100, decay: float = 0.2) -> optax.GradientTransformation:
    """Adam, clipped, each weight's step in proportion to its root mean square; warm-up, constant, linear to 0."""

    def schedule(step):
        return rate * jnp.minimum(1.0, (step + 1) / warmup) * jnp.clip((steps - step) / (decay * steps), 0.0, 1.0)

    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.98, 1e-9),
                       optax.scale_by_param_block_rms(1e-3), optax.scale_by_learning_rate(schedule))  # fmt: skip


def held_out_losses(model: Model, method, found: Mapping[str, list[Encoded]]):
    """Return `losses(state) -> {name: loss per target token}`, and their sums over span corruption and instructions."""
    compute, config = loss_step(model, method), model.config
    batches = {name: evaluation_batches(some, 8, packing=True, shapes=[(LENGTH, 128)], pad_token_id=config.pad_token_id,
                                        decoder_start_token_id=config.decoder_start_token_id)
               for name, some in found.items()}  # fmt: skip

    def losses(trainable, frozen) -> dict[str, Any]:
        sums = {name: np.sum([np.array(compute(trainable, frozen, b.batch(n)), np.float64) for n in range(b.steps(1))],
                             axis=0) for name, b in batches.items()}  # fmt: skip
        spans = sum(value for name, value in sums.items() if name.startswith("span/"))
        rest = sum(value for name, value in sums.items() if not name.startswith("span/") and SHARES[name])
        kinds = {"span_corruption": spans, "instructions": rest, "validation_loss": spans + rest}
        return {name: float(total / count) for name, (total, count) in {**kinds, **sums}.items()}

    return losses


def pretrain(name: str, tokens: float, batch_size: int, out: Path, train: bool = True) -> None:
    """Train one size up to about `tokens` tokens, or go on where an earlier call stopped; write it under `out`.

    Without `train` the newest checkpoint is written as it is.
    """
    size, words = SIZES[name], tokenizer()
    t5 = architecture(size, len(words))
    model = Model(t5, t5.init(jax.random.key(SEED)), words, f"jaxft:t5-{name}")
    method = jaxft.full()
    trainable, frozen = method.init(jax.random.key(SEED), {"params": model.params})
    batches = training_batches(examples("train", words, limit=30000), t5.config, batch_size)
    steps = steps_for(batches, tokens)
    update = optimizer(size.rate, steps)
    state = jaxft.init_state(trainable, update)
    identity = {"size": list(size[:5]), "rate": size.rate, "data": batches.plan_hash()}
    checkpoints = jaxft.Checkpoints(out / "checkpoints", identity=identity)
    state = checkpoints.restore(state) if checkpoints.steps else state
    losses = held_out_losses(model, method, examples("validation", words, limit=60))
    journal = out / "metrics.jsonl"
    cut_journal(journal, int(state.step))
    plan = {"size": name, "tokens": tokens, "steps": steps, "batch_size": batch_size, "shape": batches.shapes[0]}
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    print(f"t5-{name}: {count:,} weights, {steps} steps of {batch_size} rows of {batches.shapes[0]}", flush=True)
    evaluated = max((row["step"] for row in read_lines(journal) if "validation_loss" in row), default=0)
    if train:
        state, report = jaxft.train(
            jaxft.train_step(model, method, update), state, frozen, batches, jax.random.key(SEED), steps=steps,
            evaluate=lambda state: losses(state.trainable, frozen), eval_every=500, evaluated=evaluated,
            checkpoints=checkpoints, checkpoint_seconds=240.0, write=append_to(journal),
            log_every=20, progress=Progress(quiet=False),
        )  # fmt: skip
        print(json.dumps({"tokens_per_second": report.tokens_per_second, "seconds": report.seconds}))
    params = jax.tree.map(np.asarray, method.bind(state.trainable, frozen)["params"])
    jaxft.save(out / "model", model, params, dtype="bfloat16")
    done = int(state.step)
    write_json(out / "seen.json", {**plan, "steps": done, "tokens": round(tokens * done / steps), "planned": steps})


def steps_for(batches: Batches, tokens: float) -> int:
    """Return the steps in which about `tokens` tokens are seen, by what the first epoch holds."""
    plan = batches.plan(0)
    held = sum(len(batches.examples[i].prompt) + len(batches.examples[i].completion) for i in plan[plan >= 0])
    return max(200, round(tokens / held * len(plan)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--tokens", type=float, help="tokens to see, both sides (default: as published)")
    parser.add_argument("--batch-size", type=int, default=6, help="packed rows a step")
    parser.add_argument("--write", action="store_true", help="write the newest checkpoint as a model, without training")
    parser.add_argument("--out", type=Path, help="default: $JAXFT_RUNS/own/t5-SIZE")
    given = parser.parse_args()
    out = given.out or RUNS / f"t5-{given.size}"
    pretrain(given.size, given.tokens or SIZES[given.size].tokens, given.batch_size, out, train=not given.write)


if __name__ == "__main__":
    main()
