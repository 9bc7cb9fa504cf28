"""Can one batch serve several adapters at once, and is it as right as one adapter after another?

Question    Four LoRAs and prompts that ask in turn: one mixed batch against a swap and a batch for each.
Claim       A mixed batch writes what each adapter alone would write, and takes no longer than one adapter after
            another.
Data        Questions of the made-up support conversations, 8 for each adapter.
Model       small: our T5 (jaxft:t5-tiny); adapters drawn at random, large enough to change every answer. paper:
            FLAN-T5-base.
Expected    The same texts (to rounding of near ties), and less time: S-LoRA (Sheng et al. 2023, arXiv:2311.03285) and
            Punica serve mixed batches at up to 4 and 12 times the throughput on GPUs.
Command     python experiments/swapping.py --size=small
"""

from __future__ import annotations

import time

import settings
from lab import Arm, Experiment, main
from verdicts import at_least, below

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


def serve(mixed: bool):
    def measured(recipes, folder, extra):
        from jaxft.methods.bank import stack

        for i, recipe in enumerate(recipes):
            model, bound, *rest = prepared(recipe)
            write, variables = (mixed_batch, stack(bound)) if mixed else (one_by_one, bound)
            texts, expected = write(model, variables, *rest), one_by_one(model, bound, *rest)  # and compiles
            took = []
            for _ in range(3):
                began = time.perf_counter()
                write(model, variables, *rest)
                took.append(time.perf_counter() - began)
            same = sum(a == b for a, b in zip(texts, expected, strict=True)) / len(texts)
            yield i, {"seconds": sorted(took)[1], "same_texts": same, "different": len(set(texts)) / len(texts)}

    measured.__name__ = f"serve_{'mixed' if mixed else 'one_by_one'}"
    return measured


def arms(size: str) -> dict[str, Arm]:
    lora = {"method": {"name": "lora", "rank": 8, "targets": "attention"}}
    return {"one after another": Arm(lora, do=serve(False)), "one mixed batch": Arm(lora, do=serve(True))}


def checks(results):
    same = results.mean("one mixed batch", "same_texts")
    return [at_least(same, 0.95, "texts that are the same"), below(results, "one mixed batch", "one after another")]


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="seconds", shown=("same_texts", "different"))

if __name__ == "__main__":
    main(EXPERIMENT)
