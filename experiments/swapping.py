"""Can one batch serve several adapters at once, and is it as right as one adapter after another?

Question    Four LoRAs, or four soft prompts, asked in turn: one mixed batch against a swap and a batch for each.
Claim       A mixed batch writes what each adapter alone would write, and takes no longer than one adapter after
            another.
Data        Questions of the made-up support conversations, 8 for each adapter.
Model       small: our T5 (jaxft:t5-tiny); adapters drawn at random, large enough to change every answer. paper:
            FLAN-T5-base.
Expected    The same texts (to rounding of near ties), and less time: on GPUs S-LoRA (Sheng et al. 2023,
            arXiv:2311.03285) reports up to 4 times the throughput of PEFT and of vLLM with naive LoRA support, Punica
            (Chen et al. 2023, arXiv:2310.18547) 12 times that of earlier serving systems.
Command     python experiments/swapping.py --size=small
"""

from __future__ import annotations

import statistics
import time

import settings
from lab import Arm, Experiment, main
from verdicts import at_least

ADAPTERS, EACH = 4, 8


def base(size: str) -> dict:
    return settings.base(
        size, "made", generate={"max_new_tokens": 8 if size == "smoke" else 32, "batch_size": ADAPTERS * EACH}
    )


def prepared(recipe):
    """Return the model, its adapters bound, prompts, the adapter of each, and how texts are generated."""
    import jax
    import jax.numpy as jnp
    import trials

    from jaxft.data.dialogues.support import support
    from jaxft.methods import from_config

    model, method, bound = trials.loaded(recipe), from_config(dict(recipe.method)), []
    for number in range(ADAPTERS):
        key = jax.random.fold_in(jax.random.key(recipe.train.seed), number)
        trainable, frozen = method.init(key, {"params": model.params})
        bound.append(method.bind(jax.tree.map(lambda x: jnp.where(x == 0, 0.05, x), trainable), frozen))
    asked = [row["messages"][0]["content"] for row in support(recipe.train.seed, ADAPTERS * EACH)]
    prompts = [model.tokenizer(text)["input_ids"] for text in asked]
    return model, bound, prompts, [i % ADAPTERS for i in range(len(prompts))], recipe.generate


def one_by_one(model, bound, prompts, ids, generate):
    import jaxft

    texts = [""] * len(prompts)
    for number, variables in enumerate(bound):
        places = [i for i, own in enumerate(ids) if own == number]
        options = {"max_new_tokens": generate.max_new_tokens, "batch_size": EACH}
        made = jaxft.generate(model, variables, [prompts[i] for i in places], **options)
        for i, text in zip(places, made, strict=True):
            texts[i] = text
    return texts


def mixed_batch(model, bank, prompts, ids, generate):
    import jaxft

    options = {"max_new_tokens": generate.max_new_tokens, "batch_size": generate.batch_size}
    return jaxft.generate(model, bank, prompts, adapter_ids=ids, **options)


def serve(recipes, folder, extra):
    """Yield how many of the texts agree, and the seconds of both ways, measured in turn (medians of five rounds)."""
    from jaxft.methods.bank import stack

    for i, recipe in enumerate(recipes):
        model, bound, *rest = prepared(recipe)
        ways = {"mixed": (mixed_batch, stack(bound)), "one_by_one": (one_by_one, bound)}
        texts = {name: write(model, variables, *rest) for name, (write, variables) in ways.items()}  # and compiles
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(5):
            for name, (write, variables) in ways.items():
                began = time.perf_counter()
                write(model, variables, *rest)
                took[name].append(time.perf_counter() - began)
        mixed, one = (statistics.median(took[name]) for name in ways)
        same = sum(a == b for a, b in zip(*texts.values(), strict=True)) / len(texts["mixed"])
        yield i, {"speedup": one / mixed, "mixed_seconds": mixed, "one_by_one_seconds": one, "same_texts": same}


def arms(size: str) -> dict[str, Arm]:
    methods = {"lora": {"name": "lora", "rank": 8, "targets": "attention"}, "prompt": {"name": "prompt", "length": 20}}
    return {name: Arm({"method": method}, do=serve) for name, method in methods.items()}


def checks(results):
    found = []
    for arm in results.arms:
        over = results.over(arm)
        lower = over.interval[0] if over and over.interval else float("nan")
        found += [
            at_least(results.mean(arm, "same_texts"), 0.95, f"{arm}: texts that are the same"),
            at_least(lower, 1.0, f"{arm}: speed-up, lower end"),
        ]
    return found


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric="speedup", shown=("same_texts", "mixed_seconds", "one_by_one_seconds")
)

if __name__ == "__main__":
    main(EXPERIMENT)
