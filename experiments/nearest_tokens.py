"""What have the tokens of a learned prompt become?

Question    The five nearest words of each learned token: do they belong together, and are class labels still there?
Claim       Nearest neighbours of learned tokens form tight clusters, and a prompt that starts from class labels keeps
            them among its neighbours.
Data        AG News (Zhang et al. 2015), six phrasings of ours.
Model       small: our T5 (jaxft:t5-tiny). paper: FLAN-T5-base; Lester et al. looked at T5-XXL.
Expected    Clusters of words of one meaning, labels kept (Lester et al. 2021, arXiv:2104.08691, section 7).
            SmolLM2-135M after 125 steps: cosines of at most 0.23, hardly any cluster (dialogsum_lora.py).
Settings    `cluster` is the mean cosine among the five neighbours of a soft token, less that of five random tokens;
            `labels_kept` the share of label tokens that are one of the five nearest of some soft token.
Command     python experiments/nearest_tokens.py --size=small
"""

from __future__ import annotations

import settings
from lab import Arm, Experiment, main
from verdicts import at_least

LABELS = ["World", "Sports", "Business", "Science or Technology"]


def base(size: str) -> dict:
    train = {"small": {"steps": 150}, "paper": {"steps": 30_000}}.get(size, {})
    return settings.base(size, "news", train=train)


def neighbours(model, embedding, seed: int) -> dict[str, float]:
    """Return the numbers about the nearest tokens of a prompt `[P, D]`."""
    import numpy as np

    from jaxft.methods.inspection import nearest_tokens

    near = nearest_tokens(model, embedding, 5, "cosine")
    table = np.asarray(model.params["embedding"], np.float32)[: len(model.tokenizer)]
    table = table / (np.linalg.norm(table, axis=1, keepdims=True) + 1e-9)

    def tight(ids):
        rows = table[ids]  # [P, 5, D]
        return float((np.einsum("pid,pjd->pij", rows, rows).sum((1, 2)) - 5).mean() / 20)

    drawn = np.random.default_rng(seed).integers(0, len(table), near.ids.shape)
    labels = {token for label in LABELS for token in model.tokenizer(label, add_special_tokens=False)["input_ids"]}
    kept = labels & set(near.ids.ravel().tolist())
    return {"cluster": tight(near.ids) - tight(drawn), "nearest_cosine": float(near.values[:, 0].mean()),
            "labels_kept": len(kept) / len(labels)}  # fmt: skip


def look(recipes, folder, extra):
    """Tune prompts and yield their scores and what their tokens are near to."""
    import trials

    for model, trained in trials.trained_together(recipes):
        for i, (method, trainable, frozen), numbers in trained:
            soft = trainable.get("encoder", trainable)  # an encoder-decoder says on which side it stands
            near = neighbours(model, soft["embedding"], recipes[i].train.seed)
            yield i, {**numbers, **trials.scores(recipes[i], model, method.bind(trainable, frozen)), **near}


def arms(size: str) -> dict[str, Arm]:
    length = 5 if size == "smoke" else 20
    starts = {"from vocabulary": "vocabulary", "from labels": {"labels": LABELS}, "random": "random"}
    chosen = dict(list(starts.items())[: 2 if size == "smoke" else None])
    return {
        name: Arm(settings.tuned(size, "prompt", length=length, initialise=how), do=look)
        for name, how in chosen.items()
    }


def checks(results):
    means = {name: results.mean(name) for name in results.arms}
    return [
        at_least(min(means.values(), default=float("nan")), 0.1, "cosine among neighbours above chance"),
        at_least(results.mean("from labels", "labels_kept"), 0.5, "label tokens kept"),
    ]


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    base,
    arms,
    checks,
    metric="cluster",
    shown=("labels_kept", "nearest_cosine", "accuracy", "loss"),
)

if __name__ == "__main__":
    main(EXPERIMENT)
