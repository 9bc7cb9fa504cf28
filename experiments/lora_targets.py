"""Which matrices should LoRA adapt, for the same number of trained weights?

Question    Query alone, value alone, query and value, all of attention, the MLP, everything; about the same budget
            each.
Claim       For one budget, several kinds of matrices at a small rank beat one kind at a large rank.
Data        small: made-up dialogues and their summaries. paper: DialogSum.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base.
Expected    GPT-3 at 18M weights (Hu et al. 2021, arXiv:2106.09685, table 5), WikiSQL (+-0.5): q 70.4, v 73.0, o 73.2, q
            and v 73.7, all of attention 73.7. QLoRA (Dettmers et al. 2023, arXiv:2305.14314, section 4): LoRA on all
            linear layers is needed to equal full tuning, query and value alone do not.
Settings    Ranks are chosen so that trained weights agree within a third; `trained` has their number.
Command     python experiments/lora_targets.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above

PARTS = {
    "q": ([r"attention/q$"], 32),
    "v": ([r"attention/v$"], 32),
    "q, v": ([r"attention/q$", r"attention/v$"], 16),
    "attention": ("attention", 8),
    "mlp": ("mlp", 11),
    "all": ("all", 5),
}


def base(size: str) -> dict:
    return settings.base(
        size, "dialogsum" if size == "paper" else "made", train={"batch_size": 8} if size == "small" else {}
    )


def arms(size: str) -> dict[str, Arm]:
    chosen = list(PARTS)[::3] if size == "smoke" else PARTS
    return {
        name: Arm(settings.tuned(size, "lora", rank=PARTS[name][1], alpha=2 * PARTS[name][1], targets=PARTS[name][0]))
        for name in chosen
    }


def checks(results):
    many = "all" if "all" in results.arms else "attention"
    return [above(results, many, "q"), *([above(results, "q, v", "q")] if "q, v" in results.arms else [])]


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="rougeL", shown=("rouge1", "loss", "trained"))

if __name__ == "__main__":
    main(EXPERIMENT)
