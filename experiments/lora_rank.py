"""Which rank does LoRA need?

Question    Ranks 1 to 64 on data-to-text generation, on query and value as published, alpha 32 for all ranks.
Claim       Small ranks suffice: loss is flat past 16, and 4 to 32 are as good as 64.
Data        E2E NLG (Novikova et al. 2017): 42,061 pairs and 330 inputs to test with all their references (small:
            2,000 and 100); at small in jaxft's six phrasings.
Model       small: our T5 (jaxft:t5-tiny), which has read the texts of E2E, and nearly all of its development part as
            triples of DART, but no test input and never the task in this form. paper: FLAN-T5-base with the schedule of
            Hu et al. 2021 (arXiv:2106.09685).
Expected    GPT-2 medium on E2E (their table 18): BLEU 68.7, 69.2, 70.4, 69.6, 69.6, 69.3, 69.2 at ranks 1, 2, 4, 8,
            16, 32, 64; validation loss 1.23 to 1.16, flat past 16; ROUGE-L 0.705 to 0.720.
Settings    All ranks and seeds train as one program (jaxft.sweep). NIST is nltk's; METEOR only where nltk has
            WordNet; CIDEr is left out: no light library has it.
Command     python experiments/lora_rank.py --size=small
"""

from __future__ import annotations

import contextlib

import settings
from lab import Arm, Experiment, main
from verdicts import within

RANKS = {"smoke": (1, 4), "small": (1, 2, 4, 8, 16, 32, 64), "paper": (1, 2, 4, 8, 16, 32, 64)}
PUBLISHED = {"learning_rate": 2e-4, "schedule": "linear", "warmup": 500, "weight_decay": 0.01}


def base(size: str) -> dict:
    values = settings.base(size, "e2e", metrics=["bleu", "rougeL"])
    if size == "paper":
        values["optimizer"] = PUBLISHED
        values["train"] |= {"batch_size": 8, "epochs": 5, "label_smoothing": 0.1}
        values["generate"] |= {"num_beams": 10, "length_penalty": 0.8, "no_repeat_ngram": 4}
    elif size == "small":
        values["data"] |= {"max_prompt": 80, "limit": {"train": 2000, "validation": 100, "test": 100}}
        values["train"] |= {"steps": 120, "batch_size": 8, "eval_examples": 100}
    return values


def arms(size: str) -> dict[str, Arm]:
    method = {"name": "lora", "alpha": 32, "targets": [r"attention/q$", r"attention/v$"]}
    method |= {"dropout": 0.1} if size == "paper" else {}
    return {f"r = {rank}": Arm({"method": {**method, "rank": rank}}) for rank in RANKS[size]}


def extra(texts, references) -> dict[str, float]:
    """Return NIST, and METEOR where WordNet is there."""
    from nltk.translate.meteor_score import meteor_score
    from nltk.translate.nist_score import corpus_nist

    said, meant = [text.split() for text in texts], [[one.split() for one in each] for each in references]
    found = {}
    try:
        found["nist"] = float(corpus_nist(meant, said))
    except ZeroDivisionError:  # no text has five words
        found["nist"] = 0.0
    with contextlib.suppress(LookupError):
        found["meteor"] = sum(map(meteor_score, meant, said)) / len(said)
    return found


def checks(results):
    top = "r = 64" if "r = 64" in results.arms else "r = 4"
    middle = [arm for arm in ("r = 4", "r = 8", "r = 16", "r = 32") if arm in results.arms]
    flat = results.difference("r = 16", top, "validation_loss")
    loss = [within(results, "r = 16", top, 0.01, "minus_loss")] if flat else []
    return [*loss, *(within(results, arm, top, 1.0) for arm in middle)]


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric="bleu", shown=("rougeL", "nist", "validation_loss", "trained"),
    extra=extra, derive=lambda numbers: {"minus_loss": -numbers["validation_loss"]},
    curve=lambda arm: ("LoRA on q and v", float(arm.removeprefix("r = "))), along="rank", beside=("validation_loss",),
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT)
