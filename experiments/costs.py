"""What does each method cost in memory, and how large is the file it leaves?

Question    Every method on one model: numbers trained, memory of a step, size of the adapter's file.
Claim       LoRA's file is at most a fiftieth of the model's, a soft prompt's a thousandth, and what LoRA holds beside
            the activations is at most a third of full tuning's.
Data        None: shapes, and the compiler's count of a step of 8 rows of 512 and 128 tokens.
Model       small: our T5 (jaxft:t5-tiny), its adapters really written. paper: FLAN-T5-base, -large and -XL, from
            shapes.
Expected    LoRA of rank 4 on query and value of GPT-3 175B: 350 GB to train against 1.2 TB, a file of 35 MB against 350
            GB (Hu et al. 2021, arXiv:2106.09685, section 4.2); a soft prompt is less than 0.01 % of a model of more
            than a billion weights (Lester et al. 2021, arXiv:2104.08691, section 4). At 4M weights shares are larger.
Command     python experiments/costs.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import at_least

ROWS, PROMPT, COMPLETION = 8, 512, 128
METHODS = {**settings.METHODS, "lora": {"name": "lora", "rank": 8, "targets": [r"attention/q$", r"attention/v$"]}}


def base(size: str) -> dict:
    return settings.base(size, "made" if size == "small" else "dialogsum")


def cost(recipes, folder, extra):
    """Yield what training by a recipe's method holds, and the bytes of the file it leaves."""
    import fitting

    from jaxft.recipe import optimizer_config
    from jaxft.runs.needs import abstract_batch, need

    for i, recipe in enumerate(recipes):
        model = fitting.shapes(recipe)
        batch = abstract_batch(model.config, ROWS, COMPLETION, PROMPT)
        found = need(model, dict(recipe.method), optimizer_config(recipe.optimizer, 1), batch)
        whole = found.sizes.total
        file = written(recipe, folder) if recipe.model.source not in settings.KNOWN else found.sizes.trainable_bytes
        yield (
            i,
            {
                "trained": float(found.sizes.trainable),
                "share": found.sizes.trainable / whole,
                "file_mb": file / 1e6,
                "held_mb": found.sizes.bytes / 1e6,
                "step_mb": found.bytes / 1e6,
            },
        )


def written(recipe, folder) -> int:
    """Return the bytes of the adapter's files, or of the model's, as they are written."""
    import jax
    import trials

    import jaxft
    from jaxft.methods import from_config

    model, method = trials.loaded(recipe), from_config(dict(recipe.method))
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    jaxft.save_adapter(folder, method, trainable, frozen, model)
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def arms(size: str) -> dict[str, Arm]:
    chosen = ("full", "lora", "prompt") if size == "smoke" else METHODS
    if size != "paper":
        return {name: Arm({"method": METHODS[name]}, do=cost) for name in chosen}
    return {
        f"{source.rpartition('-')[2]}, {name}": Arm({"model.source": source, "method": METHODS[name]}, do=cost)
        for source in settings.family(size)
        for name in chosen
    }


def checks(results):
    found = []
    for name in dict.fromkeys(arm.rpartition("full")[0] for arm in results.arms if arm.endswith("full")):
        full, lora, prompt = (f"{name}{method}" for method in ("full", "lora", "prompt"))
        files = {arm: results.mean(arm, "file_mb") for arm in (full, lora, prompt)}
        held = results.mean(full, "held_mb") / results.mean(lora, "held_mb")
        found += [
            at_least(files[full] / files[lora], 50, f"{name}model / LoRA's file"),
            at_least(files[full] / files[prompt], 1000, f"{name}model / prompt's file"),
            at_least(held, 3, f"{name}memory held by full / by LoRA"),
        ]
    return found


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric="file_mb", shown=("trained", "share", "held_mb", "step_mb"),
    seeds=dict.fromkeys(settings.SIZES, 1),
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT)
