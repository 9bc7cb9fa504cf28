"""Which learning rate does each method want, and are the rates that these experiments use near it?

Question    Rates half a decade apart around the one in `settings.RATES`, for each method, on dialogue summaries.
Claim       LoRA's best rate is about ten times full tuning's, and no rate that the experiments use costs its method
            more than three points of ROUGE-1.
Data        small: 2,000 made-up dialogues (jaxft.data.dialogues), 48 to choose the rate by loss, 100 others to test.
            paper: DialogSum (Chen et al. 2021, arXiv:2105.06762).
Model       small: our T5 (jaxft:t5-tiny), which has not seen these summaries. paper: FLAN-T5-base.
Expected    LoRA's best rate is ten times full tuning's, whatever the model (Schulman et al. 2025, "LoRA Without
            Regret"); prompt tuning's is 0.3 (Lester et al. 2021, arXiv:2104.08691, section 3).
Settings    Rates and seeds of a method train as one program (jaxft.sweep).
Command     python experiments/rates.py --size=small
"""

from __future__ import annotations

import full_lora
import settings
from lab import Arm, Experiment, main
from verdicts import at_least, within

FACTORS = {"smoke": (1, 3), "small": (0.3, 1, 3), "paper": (0.1, 0.3, 1, 3, 10)}
METHODS = {"smoke": ("full", "lora"), "small": ("full", "lora", "prompt"), "paper": ("full", "lora", "adapter")}


def arms(size: str) -> dict[str, Arm]:
    known = settings.RATES["paper" if size == "paper" else "small"]
    return {
        f"{method} x {factor:g}": Arm(
            settings.tuned(size, method) | {"optimizer.learning_rate": float(f"{known[method] * factor:.3g}")}
        )
        for method in METHODS[size]
        for factor in FACTORS[size]
    }


def split(arm: str) -> tuple[str, float]:
    method, _, factor = arm.partition(" x ")
    return method, float(factor)


def checks(results):
    best: dict[str, str] = {}
    for arm in results.arms:
        found, method = results.over(arm, "validation_loss"), split(arm)[0]
        if found and (method not in best or found.mean < results.over(best[method], "validation_loss").mean):
            best[method] = arm
    kept = [within(results, f"{method} x 1", arm, 0.03) for method, arm in best.items() if split(arm)[1] != 1]
    if not {"full", "lora"} <= best.keys():
        return kept
    mean = {method: results.over(best[method], "rate").mean for method in ("full", "lora")}
    ratio = mean["lora"] / mean["full"]
    return [
        at_least(ratio, 3, f"best rate of LoRA ({mean['lora']:g}) / of full tuning ({mean['full']:g})"),
        at_least(30 / ratio, 1, "and 30 times at most: 30 / that"),
        *kept,
    ]


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    full_lora.base,
    arms,
    checks,
    metric="rouge1",
    shown=("rate", "validation_loss", "loss"),
    curve=split,
    along="times the rate in settings.RATES",
)

if __name__ == "__main__":
    main(EXPERIMENT)
