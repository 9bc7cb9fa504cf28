"""Do varied instructions generalise to wordings that were never trained on?

Question    A task learnt in one wording, in two, in six; scored in two other wordings.
Claim       Training on many phrasings of an instruction is better on unseen phrasings than training on one.
Data        AG News (Zhang et al. 2015); jaxft's six training phrasings and its two held-out ones; 200 dev items to
            test.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base.
Expected    T0 (Sanh et al. 2021, arXiv:2110.08207): more prompts a data set raise the median and lower the spread on
            held-out tasks; FLAN (Wei et al. 2021, arXiv:2109.01652, appendix B.1): more templates a data set make next
            to no difference.
Command     python experiments/phrasings.py --size=small
"""

from __future__ import annotations

from pathlib import Path

import settings
import yaml
from lab import Arm, Experiment, main
from verdicts import above

RECORD = Path(settings.__file__).parents[1] / "jaxft" / "data" / "tasks" / "library" / "superglue" / "agnews.yaml"


def base(size: str) -> dict:
    values = settings.base(size, "news", train={"steps": 120} if size == "small" else {})
    if size != "smoke":
        values["data"]["limit"] |= {"test": 200}
    values["data"]["held_out_templates"] = True
    return values


def worded(size: str, count: int) -> dict:
    """Return the task with its first `count` training phrasings, and with all that are held out."""
    record = settings.case_task() if size == "smoke" else yaml.safe_load(RECORD.read_text())
    held_out = {name: one for name, one in record["templates"].items() if isinstance(one, dict) and one.get("held_out")}
    trained = {name: one for name, one in record["templates"].items() if name not in held_out}
    return {**record, "templates": {**dict(list(trained.items())[:count]), **held_out}}


def arms(size: str) -> dict[str, Arm]:
    lora = settings.tuned(size, "lora")
    made = {
        f"{n} phrasings": Arm({**lora, "data.tasks": [worded(size, n)]})
        for n in ((1, 3) if size == "smoke" else (1, 2, 6))
    }
    return {"untuned": Arm({"data.tasks": [worded(size, 6)]}, do="untuned"), **made}


def checks(results):
    most = "6 phrasings" if "6 phrasings" in results.arms else "3 phrasings"
    return [above(results, most, "1 phrasings")]


EXPERIMENT = Experiment(__file__, __doc__, base, arms, checks, metric="accuracy", shown=("loss",))

if __name__ == "__main__":
    main(EXPERIMENT)
