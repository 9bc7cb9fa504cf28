"""How do the number of training tasks and the size of the model act on tasks that were never trained on?

Question    1, 4 and 16 training tasks, the same number of steps, on each model of the family; nine test tasks.
Claim       The held-out score grows with the number of training tasks, and with the size of the model.
Data        Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705), 90 test examples (paper: 900).
Model       small: our T5s, as many as are here (experiments/pretraining makes the larger two), and SmolLM2-135M, one
            seed. paper: FLAN-T5 shapes, T5 1.1 LM-adapted base, large and XL.
Expected    FLAN (Wei et al. 2021, arXiv:2109.01652, figures 6 and 7): more clusters of tasks help a model of 137B,
            instruction tuning harms models of 8B and below on unseen tasks; Tk-Instruct (Wang et al. 2022, figure 5):
            ROUGE-L grows log-linearly with tasks and with size.
Command     python experiments/task_count.py --size=small
"""

from __future__ import annotations

from itertools import pairwise

import instruction_tuning
import settings
from lab import Arm, Experiment, main
from verdicts import Check, above

COUNTS = {"smoke": (1, 2), "small": (1, 4, 16), "paper": (1, 4, 16)}
ADAPTED = ("google/t5-base-lm-adapt", "google/t5-large-lm-adapt", "google/t5-xl-lm-adapt")


def base(size: str) -> dict:
    return instruction_tuning.base(size)


def arms(size: str) -> dict[str, Arm]:
    rows = dict.fromkeys(("data.source", "data.prompt", "data.completion"))
    made: dict[str, Arm] = {}
    others = [settings.SMOLLM2] if size == "small" else []
    for source in ADAPTED if size == "paper" else [*settings.family(size), *others]:
        name, seeds = settings.short(source), 1 if source in others else None
        own = {**settings.tuned(size, "full"), **rows, "model.source": source}
        made[f"{name}, 0"] = Arm({**own, "data.tasks": settings.instructions(size, 1)}, do="untuned", seeds=seeds)
        for count in COUNTS[size]:
            tasks = {"data.tasks": settings.instructions(size, count)}
            made[f"{name}, {count}"] = Arm({**own, **tasks}, do="carry_out", seeds=seeds)
    return made


def checks(results):
    models = list(dict.fromkeys(arm.rpartition(", ")[0] for arm in results.arms))
    counts = sorted({int(arm.rpartition(", ")[2]) for arm in results.arms} - {0})
    tasks = [above(results, f"{model}, {counts[-1]}", f"{model}, {counts[0]}") for model in models]
    if len(models) < 2:
        return [*tasks, Check("only one size of the family is here: size was not tested", None)]
    return [*tasks, *(above(results, f"{b}, {counts[-1]}", f"{a}, {counts[-1]}") for a, b in pairwise(models))]


def curve(arm: str) -> tuple[str, float] | None:
    model, _, count = arm.rpartition(", ")
    return (model, float(count)) if count != "0" else None


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric=instruction_tuning.SCORED, shown=("trained", "train_seconds"),
    derive=instruction_tuning.derive, curve=curve, along="training tasks",
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT)
