"""How long must a soft prompt be, and where should it start?

Question    1 to 100 soft tokens; 20 of them started at random, from the vocabulary, and from the class labels.
Claim       20 tokens bring most of what 100 do, and a start from vocabulary or labels is no worse than a random one.
Data        AG News (Zhang et al. 2015), six phrasings of ours, 100 of its dev items to test.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base; Lester et al. used T5.1.1 LM-adapted.
Expected    Lester et al. 2021 (arXiv:2104.08691), figures 3a and 3b: past 20 tokens gains are marginal; at small
            sizes labels > vocabulary > random, at XXL all are alike.
Settings    Adafactor, constant rate 0.3, no parameter scaling, as published; 30,000 steps of 32 there, at small 150
            of 16.
Command     python experiments/prompt_length.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import share, within

LENGTHS = {"smoke": (1, 5), "small": (1, 5, 20, 50, 100), "paper": (1, 5, 20, 50, 100)}
LABELS = ["World", "Sports", "Business", "Science or Technology"]


def base(size: str) -> dict:
    train = {"small": {"steps": 150}, "paper": {"steps": 30_000, "batch_size": 32}}.get(size, {})
    return settings.base(size, "news", train=train)


def arms(size: str) -> dict[str, Arm]:
    lengths = {str(n): Arm(settings.tuned(size, "prompt", length=n)) for n in LENGTHS[size]}
    starts = {"random": "random", "labels": {"labels": LABELS}}
    short = 5 if size == "smoke" else 20
    begun = {name: Arm(settings.tuned(size, "prompt", length=short, initialise=how)) for name, how in starts.items()}
    return {"untuned": Arm(do="untuned"), **lengths, **begun}


def checks(results):
    short, long = ("20", "100") if "20" in results.arms else ("1", "5")
    starts = [within(results, start, "random", 0.02) for start in (short, "labels")]
    return [share(results, short, long, "untuned", 0.9), *starts]


def curve(arm: str) -> tuple[str, float] | None:
    if arm in ("random", "labels"):
        return f"from {arm}", 20.0
    return ("from the vocabulary", float(arm)) if arm.isdecimal() else None


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    base,
    arms,
    checks,
    metric="accuracy",
    shown=("loss", "trained"),
    curve=curve,
    along="length of the prompt in tokens",
)

if __name__ == "__main__":
    main(EXPERIMENT)
