"""Does LoRA nearly equal full tuning, and how do the other methods stand beside the two?

Question    An instruction-tuned T5 on dialogue summaries: full, LoRA, adapters, norms, prefix, IA3, prompt tuning.
Claim       Full tuning > LoRA >> the untuned model, LoRA within 1.4 points of ROUGE-1 of full tuning.
Data        small: 2,000 made-up dialogues (jaxft.data.dialogues) and 100 others to test. paper: DialogSum (Chen et
            al. 2021, arXiv:2105.06762), 12,460 dialogues and 200 to test with three references, the best one counted.
Model       small: our T5 (jaxft:t5-tiny), which has not seen these summaries. paper: FLAN-T5-base.
Expected    FLAN-T5-base on DialogSum: ROUGE-1 23.3 untuned, 40.8 LoRA of rank 32, 42.2 full (one reference each,
            stemmer on; DeepLearning.AI and AWS, Generative AI with Large Language Models, lab 2). SmolLM2-135M:
            dialogsum_lora.py.
Command     python experiments/full_lora.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above, within

OTHERS = ("adapter", "selective", "prefix", "ia3", "prompt")


def base(size: str) -> dict:
    data = "dialogsum" if size == "paper" else "made"
    return settings.base(size, data, train={"batch_size": 8} if size == "small" else {})


def arms(size: str) -> dict[str, Arm]:
    lora = {"rank": 32, "alpha": 32} if size == "paper" else {}
    others = OTHERS if size != "smoke" else ("prompt",)
    return {
        "untuned": Arm(do="untuned"),
        "full": Arm(settings.tuned(size, "full")),
        "lora": Arm(settings.tuned(size, "lora", **lora)),
        **{name: Arm(settings.tuned(size, name)) for name in others},
    }


def checks(results):
    return [
        above(results, "lora", "untuned", by=0.05),
        above(results, "full", "lora"),
        within(results, "lora", "full", 0.014),
    ]


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    base,
    arms,
    checks,
    metric="rouge1",
    shown=("rouge2", "rougeL", "loss", "trained", "train_seconds"),
)

if __name__ == "__main__":
    main(EXPERIMENT)
