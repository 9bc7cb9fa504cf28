"""How many examples does tuning need?

Question    LoRA on 10 to 3,000 examples of news topics, the same number of steps for all.
Claim       500 to 1,000 examples go far: 1,000 bring at least 90 % of what 3,000 bring.
Data        AG News (Zhang et al. 2015): for each seed its own random subset of the training items; 200 dev items to
            test.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base.
Expected    At 1,000 at least 90 % of the gain at 3,000; a curve that flattens on a logarithmic scale.
Command     python experiments/data_size.py --size=small
"""

from __future__ import annotations

import json
from pathlib import Path

import settings
from lab import Arm, Experiment, main
from verdicts import above, share

COUNTS = {"smoke": (4, 16), "small": (10, 30, 100, 300, 1000, 3000), "paper": (10, 30, 100, 300, 1000, 3000)}
NEWS = {
    "prompt": "{{ text }}\n\nWhat is this news item about: World, Sports, Business, or Science or Technology?",
    "completion": "label",
}
CASES = {"prompt": "{{ dialogue }}\n\nWho speaks first?", "completion": "{{ dialogue.partition(':')[0] }}"}


def whole(size: str) -> dict[str, str]:
    if size == "smoke":
        return dict.fromkeys(("train", "validation", "test"), "generated:dialogues")
    dev = str(settings.DATA / "superglue" / "agnews" / "dev.jsonl.gz")
    return {"train": str(settings.DATA / "superglue" / "agnews" / "train.jsonl.gz"), "validation": dev, "test": dev}


def base(size: str) -> dict:
    texts = CASES if size == "smoke" else NEWS
    data = {"source": whole(size), **texts, "limit": {"validation": 48, "test": 200}, "max_prompt": 112,
            "max_completion": 8, "on_long": "truncate"}  # fmt: skip
    train = {"steps": {"smoke": 3, "small": 80, "paper": 500}[size], "batch_size": 16}
    values = settings.base(size, "news", metrics=["exact_match"], train=train)
    if size == "smoke":
        data |= {"limit": {"validation": 4, "test": 4}, "buckets": 1}
    return {**values, "data": data}


def subset(size: str, count: int, seed: int) -> Path:
    return settings.RUNS / "data_size" / "subsets" / f"{size}-{count}-{seed}.jsonl"


def arms(size: str) -> dict[str, Arm]:
    def drawn(count):
        return lambda seed: {"data.source": {**whole(size), "train": str(subset(size, count, seed))}}

    lora = settings.tuned(size, "lora")
    made = {str(count): Arm(lora, by_seed=drawn(count)) for count in COUNTS[size]}
    return {"0": Arm(lora, do="untuned"), **made}


def prepare(recipes) -> None:
    """Write each seed's subset of the training rows."""
    from jaxft.data import read
    from jaxft.data.shuffling import permutation

    for (count, seed), recipe in recipes.items():
        source = recipe.data.source
        path = Path(source["train"])
        if count == "0" or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.name.split("-")[0]
        rows = read(whole(size)["train"], "train" if size == "smoke" else None)
        chosen = permutation(seed, len(rows), stream=3)[: int(count)].tolist()
        path.write_text("".join(json.dumps(dict(rows[i])) + "\n" for i in chosen))


def checks(results):
    if "1000" not in results.arms:
        return [above(results, "16", "0")]
    return [
        above(results, "1000", "0"),
        share(results, "1000", "3000", "0", 0.9),
        share(results, "300", "3000", "0", 0.75),
    ]


EXPERIMENT = Experiment(
    __file__, __doc__, base, arms, checks, metric="exact_match", shown=("loss", "validation_loss"), prepare=prepare,
    curve=lambda arm: ("LoRA", float(arm)) if arm != "0" else None,
    along="training examples", beside=("loss",),
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT)
