"""Is a small model better tuned, or shown examples in its prompt?

Question    News topics: the untuned model with 0 to 4 worked examples before the question, against tuning on 2,000.
Claim       A small model that is tuned, even by a soft prompt, beats itself with worked examples in its prompt.
Data        AG News (Zhang et al. 2015), six phrasings of ours, 100 of its dev items to test (paper: 500).
Model       small: our T5 (jaxft:t5-tiny), which never saw AG News. paper: FLAN-T5-base, whose mixture held it: there
            the claim is about the margin.
Expected    Tuned above the best number of shots; SuperGLUE of T5-XXL tuned by prompts 90.5 (dev, table 3) against 71.8
            (test) of few-shot GPT-3, which is 16 times as large (Lester et al. 2021, arXiv:2104.08691).
Settings    Worked examples that do not fit into 500 tokens at small are left out: about a third of those of 4 shots.
Command     python experiments/in_context.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above

SHOTS = (0, 1, 2, 4)


def base(size: str) -> dict:
    return settings.base(size, "news", train={"steps": 100} if size == "small" else {})


def arms(size: str) -> dict[str, Arm]:
    long = {"smoke": 96, "small": 500, "paper": 1024}[size]
    shots = {f"{n} shots": Arm({"data.shots": n, "data.max_prompt": long}, do="untuned") for n in SHOTS}
    tuned = {name: Arm(settings.tuned(size, name)) for name in ("prompt", "lora")}
    return {**(dict(list(shots.items())[:2]) if size == "smoke" else shots), **tuned}


def checks(results):
    best = max((name for name in results.arms if "shots" in name), key=results.mean, default="0 shots")
    return [above(results, "lora", best), above(results, "prompt", best)]


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="accuracy", shown=("loss", "trained"))

if __name__ == "__main__":
    main(EXPERIMENT)
