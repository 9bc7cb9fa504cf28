"""Probes asked of a model, and what changed between two times that they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data import Encoded
from jaxft.data.grouping import by_task
from jaxft.errors import UsageError
from jaxft.evaluation.forgetting.divergence import Texts, kl_to_base, text_loss
from jaxft.evaluation.metrics import Score
from jaxft.evaluation.resampling import percentiles, resampled
from jaxft.evaluation.statistics import Comparison, compare, compare_all

PERCENT = ("bleu", "chrf")  # metrics that are in 0..100
LOSS = "loss"


@dataclasses.dataclass(frozen=True)
class Probes:
    """What a model is asked.

    `examples` are of tasks: those with choices are ranked, the others scored by the loss of their references, or with
    `generate` by the texts that are written. `passages` are plain text, `neutral` prompts with the base's answers; both
    are pairs of ids, of which the second count. `settings` are those of `generate`.
    """

    examples: Sequence[Encoded] = ()
    passages: Texts = ()
    neutral: Texts = ()
    generate: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"batch_size": 16})


class Probed(NamedTuple):
    """A score of each task and which metric it is of; the loss on text; KL to the base (None: it is the base)."""

    scores: dict[str, Score]
    metrics: dict[str, str]
    text: Score | None = None
    kl: Score | None = None

    def row(self) -> dict[str, Any]:
        """Return what a line of metrics.jsonl holds."""
        row: dict[str, Any] = {"probes": {name: one.value for name, one in self.scores.items()}}
        row |= {"probe_text_loss": self.text.value} if self.text else {}
        return row | ({"probe_kl_to_base": self.kl.value} if self.kl else {})


def evaluate_probes(probes: Probes, model: Any, variables: Any, base: Any = None) -> Probed:
    """Return what a model's answers to the probes are worth; `base` are the variables that KL is taken from."""
    from jaxft.evaluation.choices import is_ranked
    from jaxft.evaluation.tasks import evaluate_examples

    settings = dict(probes.settings)
    batch_size = settings["batch_size"]
    asked = [one for one in probes.examples if probes.generate or is_ranked(one)]
    read = [one for one in probes.examples if not (probes.generate or is_ranked(one))]
    scores, metrics = {}, {}
    if asked:
        found = evaluate_examples(model, variables, asked, settings=settings)
        for name, places in by_task(asked).items():
            ranked = is_ranked(asked[places[0]])
            metrics[name] = "accuracy" if ranked else next(iter(found.tasks[name]))
            scores[name] = found.tasks[name][metrics[name]]
    for name, places in by_task(read).items():
        texts = [(read[i].prompt.tolist(), read[i].completion.tolist()) for i in places]
        metrics[name], scores[name] = LOSS, text_loss(model, variables, texts, batch_size=batch_size)
    names = by_task(probes.examples)
    text = text_loss(model, variables, probes.passages, batch_size=batch_size) if probes.passages else None
    kl = None
    if base is not None and probes.neutral:
        kl = kl_to_base(model, base, variables, probes.neutral, batch_size=batch_size)
    return Probed({name: scores[name] for name in names}, {name: metrics[name] for name in names}, text, kl)


def mean_score(values: Mapping[str, float], metrics: Mapping[str, str]) -> float | None:
    """Return the mean of what is scored in 0..1 (or percent); None where nothing is."""
    found = [values[name] / _whole(metrics[name]) for name in values if metrics[name] != LOSS]
    return float(np.mean(found)) if found else None


def forgetting(before: Probed, during: Sequence[Mapping[str, float]], after: Probed) -> dict[str, Any]:
    """Return what a summary holds: each probe's change with n, interval and whether it stands (Holm over the probes),
    average forgetting and backward transfer, KL to the base, and the loss on text; `during` are values by probe.

    Raises `UsageError` where the two were asked other things.
    """
    if list(before.scores) != list(after.scores) or before.metrics != after.metrics:
        raise UsageError("before and after are of other probes: ask the same ones both times")
    changes = compare_all(after.scores, before.scores)
    probes = {
        name: {
            "metric": before.metrics[name],
            "n": after.scores[name].n,
            "before": before.scores[name].to_dict(),
            "after": after.scores[name].to_dict(),
            "change": _change(changes[name]),
        }
        for name in before.scores
    }
    found: dict[str, Any] = {"probes": probes, **_averages(before, during, after)}
    if after.kl is not None:
        found["kl_to_base"] = {**after.kl.to_dict(), "n": after.kl.n}
    if before.text is not None and after.text is not None:
        found["text_loss"] = {"before": before.text.to_dict(), "after": after.text.to_dict(),
                              "change": _change(compare(after.text, before.text)), "n": after.text.n}  # fmt: skip
    return found


def _averages(before: Probed, during: Sequence[Mapping[str, float]], after: Probed) -> dict[str, Any]:
    names = [name for name in before.scores if before.metrics[name] != LOSS]
    if not names:
        return {}
    falls = []
    for name in names:
        best = max([before.scores[name].value, *(values[name] for values in during if name in values)])
        falls.append((best - after.scores[name].value) / _whole(before.metrics[name]))
    drawn = []
    for seed, name in enumerate(names):  # tasks are resampled apart, before and after alike
        one, other = (
            resampled(score.rows, score.of, score.whole, seed=seed)  # type: ignore[arg-type]
            for score in (after.scores[name], before.scores[name])
        )
        drawn.append((one - other) / _whole(before.metrics[name]))
    changes = [(after.scores[name].value - before.scores[name].value) / _whole(before.metrics[name]) for name in names]
    return {
        "average_forgetting": float(np.mean(falls)),
        "backward_transfer": float(np.mean(changes)),
        "backward_transfer_interval": list(percentiles(np.mean(drawn, axis=0))),
    }


def _change(one: Comparison) -> dict[str, Any]:
    return {"value": one.difference, "low": one.low, "high": one.high, "p": one.p, "stands": one.stands}


def _whole(metric: str) -> float:
    return 100.0 if metric.startswith(PERCENT) else 1.0
