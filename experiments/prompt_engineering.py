"""Is a prompt better written by hand, or learned?

Question    Five hand-written instructions before the untuned model, against 20 learned soft tokens.
Claim       A learned prompt beats the best of several hand-written ones.
Data        small: made-up dialogues and their summaries, 100 to test. paper: DialogSum.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base.
Expected    Learned above the best hand-written; SmolLM2-135M on DialogSum: ROUGE-1 0.384 against 0.263
            (dialogsum_lora.py); SuperGLUE of few-shot GPT-3 71.8 (test) against 90.5 (dev, table 3) of prompt-tuned
            T5-XXL (Lester et al. 2021, arXiv:2104.08691).
Settings    The best hand-written prompt is chosen on the test examples themselves, in its own favour.
Command     python experiments/prompt_engineering.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above

WRITTEN = {
    "plain": "Summarise this dialogue.\n\n{{ dialogue }}",
    "question": "{{ dialogue }}\n\nIn one or two sentences, what happens in this conversation?",
    "marked": "Dialogue:\n{{ dialogue }}\n\nSummary:",
    "explained": "Read the conversation. Write a short summary in the third person that says who wants what, and what "
    "they decide.\n\n{{ dialogue }}",
    "absent": "Tell somebody who was not there what these people agreed on.\n\n{{ dialogue }}",
}


def base(size: str) -> dict:
    return settings.base(
        size, "dialogsum" if size == "paper" else "made", train={"batch_size": 8} if size == "small" else {}
    )


def arms(size: str) -> dict[str, Arm]:
    chosen = dict(list(WRITTEN.items())[: 2 if size == "smoke" else None])
    by_hand = {f"by hand: {name}": Arm({"data.prompt": text}, do="untuned") for name, text in chosen.items()}
    return {**by_hand, "learned": Arm({"data.prompt": WRITTEN["plain"], **settings.tuned(size, "prompt")})}


def checks(results):
    by_hand = [name for name in results.arms if name.startswith("by hand")]
    return [above(results, "learned", max(by_hand, key=results.mean))] if by_hand else []


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="rouge1", shown=("rouge2", "rougeL", "loss"))

if __name__ == "__main__":
    main(EXPERIMENT)
