"""Can a small T5 be tuned to translate?

Question    English to German captions: untuned, soft prompt, LoRA, full tuning.
Claim       Full tuning > LoRA >> a soft prompt and the untuned model, in BLEU.
Data        Multi30k (Elliott et al. 2016), 29,000 pairs (small: 2,000), 100 captions of test 2016 (paper: 500).
Model       small: our T5 (jaxft:t5-tiny), pretrained on English alone. paper: FLAN-T5-base.
Expected    A Transformer of 4 + 4 layers of width 128 trained on these pairs alone reaches 41.0 BLEU on test 2016
            (lower-cased tokens; Wu et al. 2021, arXiv:2105.14462, repository LividWo/Revisit-MMT); a model that sees
            2,000 pairs for a few minutes should stay far below.
Command     python experiments/translation.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above


def base(size: str) -> dict:
    values = settings.base(
        size, "multi30k/en-de", metrics=["bleu", "chrf"], train={"steps": 200} if size == "small" else {}
    )
    return values


def arms(size: str) -> dict[str, Arm]:
    names = ("prompt", "lora", "full")[1 if size == "smoke" else 0 :]
    return {"untuned": Arm(do="untuned"), **{name: Arm(settings.tuned(size, name)) for name in names}}


def checks(results):
    found = [above(results, "full", "lora"), above(results, "lora", "untuned", by=1.0)]
    return [*found, *([above(results, "lora", "prompt")] if "prompt" in results.arms else [])]


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="bleu", shown=("chrf", "loss", "trained"))

if __name__ == "__main__":
    main(EXPERIMENT)
