"""Which learning rate does each method want, and how do methods compare at their best rates?

Question    Rates half a decade apart for full tuning, LoRA and prompt tuning on dialogue summaries.
Claim       LoRA's best rate is about ten times full tuning's, and each at its best, LoRA is within 1.4 points of
            ROUGE-1 of full tuning.
Data        small: 2,000 made-up dialogues (jaxft.data.dialogues), 48 to choose the rate by loss, 100 others to test.
            paper: DialogSum (Chen et al. 2021, arXiv:2105.06762).
Model       small: our T5 (jaxft:t5-tiny), which has not seen these summaries. paper: FLAN-T5-base.
Expected    LoRA's best rate is ten times full tuning's, whatever the model (Schulman et al. 2025, "LoRA Without
            Regret"); prompt tuning's is 0.3 (Lester et al. 2021, arXiv:2104.08691, section 3). The 1.4 points are
            full_lora.py's.
Settings    Rates and seeds of a method train as one program (jaxft.sweep). Arms are multiples of the rate that
            `settings.py` has for the method and model.
Command     python experiments/rates.py --size=small
"""

from __future__ import annotations

import full_lora
import settings
from lab import Arm, Experiment, main
from verdicts import at_least, within

RATES = {
    "smoke": {"full": (1e-3, 3e-3), "lora": (5e-3, 1.5e-2)},
    "small": {"full": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "lora": (1.5e-3, 5e-3, 1.5e-2, 5e-2), "prompt": (0.1, 0.3, 1.0)},
    "paper": {"full": (3e-5, 1e-4, 3e-4, 1e-3), "lora": (3e-4, 1e-3, 3e-3, 1e-2), "adapter": (3e-4, 1e-3, 3e-3)},
}


def arms(size: str) -> dict[str, Arm]:
    return {
        f"{method} x{rate / settings.rates(size)[method]:.2g}": Arm(
            settings.tuned(size, method) | {"optimizer.learning_rate": rate}
        )
        for method, rates in RATES[size].items()
        for rate in rates
    }


def curve(arm: str) -> tuple[str, str]:
    return arm.split()[0], "rate"


def best_of(results, method: str) -> str:
    """Return the arm of a method with the lowest mean validation loss."""
    found = {arm: results.over(arm, "validation_loss") for arm in results.arms if arm.split()[0] == method}
    finite = [arm for arm, over in found.items() if over and over.mean == over.mean]  # NaN: a member diverged
    return min(finite, key=lambda arm: found[arm].mean, default=method)


def checks(results):
    full, lora = best_of(results, "full"), best_of(results, "lora")
    if not (results.over(full) and results.over(lora)):
        return [within(results, lora, full, 0.014)]  # not run
    ratio = results.mean(lora, "rate") / results.mean(full, "rate")
    return [
        at_least(ratio, 3, f"rate of {lora} / of {full}"),
        at_least(30 / ratio, 1, "and at most 30: 30 / that"),
        within(results, lora, full, 0.014),
    ]


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    full_lora.base,
    arms,
    checks,
    metric="rouge1",
    shown=("rate", "validation_loss", "loss"),
    curve=curve,
    along="learning rate",
    beside=("validation_loss",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
