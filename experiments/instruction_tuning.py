"""Does instruction tuning on many tasks help with tasks that were never trained on?

Question    One task, sixteen, all 58 of Super-NaturalInstructions' sample, and these with chain-of-thought data;
            scored on nine test tasks of other kinds.
Claim       Tuning on many instructed tasks is better on unseen tasks than no tuning and than tuning on one task;
            chain-of-thought data in the mixture do not harm it.
Data        Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705), FLAN's chain-of-thought data with
            rationales in half of the examples; 90 test examples (paper: 900).
Model       small: our T5 (jaxft:t5-tiny), whose pretraining held the freely licensed part of the training tasks, and
            none of the test tasks (but DART, which is near two of them). paper: T5 1.1 LM-adapted, large.
Expected    Tk-Instruct of 11B 62.0 ROUGE-L, T5 LM-adapted of 11B 30.2 (Wang et al. 2022, table 3); FLAN (Wei et al.
            2021, arXiv:2109.01652, figure 7) saw models of 8B and below get worse on unseen tasks, FLAN-T5-small (80M)
            still gains two points of MMLU (Chung et al. 2022, arXiv:2210.11416, table 5).
Command     python experiments/instruction_tuning.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import above, within

SCORED = "held_out_rougeL"


def base(size: str) -> dict:
    only_after = {"evaluate": {"metrics": ["rougeL", "exact_match"], "before": False}, "probes": {"enabled": False}}
    values = settings.base(size, "e2e", **only_after)
    if size != "smoke":
        few = size == "small"
        limit = {"train": 200 if few else 400, "test": 10 if few else 100}
        values["data"] |= {"limit": limit, "max_prompt": 256 if few else 1024, "max_completion": 48 if few else 128}
        values["train"] |= {"steps": 120 if few else 3000, "batch_size": 8 if few else 64, "eval_every": 0}
        values["model"]["source"] = settings.model(size) if few else "google/t5-large-lm-adapt"
    return values


def arms(size: str) -> dict[str, Arm]:
    def on(count, **more):
        tasks = settings.instructions(size, count)
        rows = dict.fromkeys(("data.source", "data.prompt", "data.completion"))
        return {**settings.tuned(size, "full"), **rows, "data.tasks": tasks, **more}

    cot = on(None)
    if size != "smoke":
        cot = {**cot, "data.tasks": [*cot["data.tasks"], "flan_cot/*"], "data.rationale": 0.5}
    many = {"16 tasks": Arm(on(16), do="carry_out")} if size != "smoke" else {}
    return {
        "untuned": Arm(on(1), do="untuned"),
        "1 task": Arm(on(1), do="carry_out"),
        **many,
        "all tasks": Arm(on(None), do="carry_out"),
        "all tasks and reasoning": Arm(cot, do="carry_out"),
    }


def derive(numbers) -> dict[str, float]:
    """Return the mean over the test tasks, whatever else was scored beside them."""
    names = {f"superni/{name}/rougeL" for name in settings.UNSEEN}
    scores = [value for name, value in numbers.items() if name in names]
    return {SCORED: sum(scores) / len(scores) if scores else numbers["rougeL"]}


def checks(results):
    many, reasoning = "all tasks", "all tasks and reasoning"
    return [above(results, many, "untuned"), above(results, many, "1 task"), within(results, reasoning, many, 0.01)]


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric=SCORED, shown=("trained", "train_seconds"), derive=derive
)

if __name__ == "__main__":
    main(EXPERIMENT)
