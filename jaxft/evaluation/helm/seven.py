"""HELM's seven of a model on examples: accuracy, calibration, robustness, fairness, bias, toxicity, efficiency.

    versions = perturbed_examples(rows, examples, encode, prompt, DEFAULT)
    report = seven(model, variables, examples, versions=versions, scorer=load_scorer("my_scorer:score"))
    report.to_dict()["robustness"]["worst"]      # {"value": 0.31, "low": 0.24, "high": 0.38, "n": 200 ...}

The same outputs serve all seven. Examples with choices are ranked by log-probability a token, to the others a text is
generated. What crfm-helm 0.5.16 defines is computed as there (each module says how), and what is not is labelled in the
result; experiments/benchmarks/helm_parity.py compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxft.data import Encoded
from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.choices import is_ranked
from jaxft.evaluation.helm.accuracy import check_helm_metrics, helm_name, per_example
from jaxft.evaluation.helm.bias import associations, representation
from jaxft.evaluation.helm.calibration import calibration
from jaxft.evaluation.helm.efficiency import efficiency, latencies
from jaxft.evaluation.helm.perturbations import PERTURBATIONS, check_perturbations
from jaxft.evaluation.helm.report import Report, Section
from jaxft.evaluation.helm.toxicity import Scorer, toxicity
from jaxft.evaluation.helm.words import Words, own_words
from jaxft.evaluation.helm.worst import worst_case
from jaxft.evaluation.metrics import measure
from jaxft.evaluation.resampling import RESAMPLES
from jaxft.evaluation.tasks import Given, answer

HELM = "crfm-helm 0.5.16"
CHOSEN = "nothing is generated: the answer is one of the given choices"
NO_SCORER = "no scorer: give --toxicity module:function or a classifier's directory"
Versions = Mapping[str, Sequence[Encoded | None]]


def seven(
    model: Any,
    variables: Any,
    examples: Sequence[Encoded],
    *,
    versions: Versions | None = None,
    metrics: Sequence[str] | None = None,
    settings: Mapping[str, Any] = {},
    scorer: Scorer | None = None,
    words: Words | None = None,
    requests: int = 16,
    answers: Answers | None = None,
    key: Any = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Report:
    """Return HELM's seven of a model's answers to examples.

    versions: perturbed examples by perturbation, None where one changes nothing (`jaxft.evaluation.helm.versions`).
    metrics: HELM's names or ours that it has; the first is the accuracy of robustness and fairness (default: the
    examples' own that HELM has, else rouge_l; of choices exact_match). settings: `generate`'s. scorer: of toxicity.
    requests: how many are timed one by one; 0: efficiency is not measured. answers: keeps what the model answers.

    Raises UsageError for no examples, ones with choices beside ones without, empty references, and unknown metrics and
    perturbations, before the model is asked; Error for a scorer that does not do as it should.
    """
    versions = versions or {}
    names = _checked(examples, versions, metrics)
    words = own_words() if words is None else words
    answers = Answers(None, {}) if answers is None else answers

    def ask(some: Sequence[Encoded]) -> list[Given]:
        return answer(model, variables, some, settings, answers=answers, key=key, by="token")

    given = ask(examples)
    sampling: Any = {"resamples": resamples, "seed": seed}
    rows = {name: _accuracies(name, examples, given) for name in names}
    about = {name: _accuracy_definition(name, examples) for name in names}
    original = rows[names[0]]
    # Perturbation by perturbation: all of them at once would hold every text in memory.
    perturbed = {name: _perturbed(names[0], some, ask) for name, some in versions.items()}
    texts = [one.text for one in given]
    ranked = is_ranked(examples[0])
    sections: dict[str, Section] = {
        "accuracy": {name: measure(row, about[name], **sampling) for name, row in rows.items()},
        "calibration": _calibration(given, rows, sampling),
        "robustness": _worst("robustness", original, perturbed, words, about[names[0]], sampling),
        "fairness": _worst("fairness", original, perturbed, words, about[names[0]], sampling),
        "bias": {"all": CHOSEN} if ranked else _bias(texts, words, sampling),
        "toxicity": _toxicity(texts, ranked, scorer, sampling),
        "efficiency": {"all": "not asked for"},
    }
    if requests:
        timed = latencies(model, variables, examples[:requests], settings, key)
        sections["efficiency"] = efficiency(*timed, generated=not ranked, **sampling)
    return Report(len(examples), names[0], sections, seed)


def _checked(examples: Sequence[Encoded], versions: Versions, metrics: Sequence[str] | None) -> tuple[str, ...]:
    if not examples:
        raise UsageError("there are no examples to measure")
    kinds = {is_ranked(example) for example in examples}
    if len(kinds) > 1:
        raise UsageError("some examples have choices and some have none: measure the two apart")
    check_perturbations(list(versions))
    for name, some in versions.items():
        if len(some) != len(examples):
            raise UsageError(f"versions: {name} has {len(some)} examples for {len(examples)}: give None for one alike")
    empty = [i for i, example in enumerate(examples) if not example.references or not all(example.references)]
    if empty:
        raise UsageError(f"example {examples[empty[0]].id} has an empty reference or none")
    if kinds == {True}:
        return ("exact_match",)
    if metrics is None:
        own = [name for name in map(helm_name, examples[0].metrics) if name]
        return tuple(dict.fromkeys(own)) or ("rouge_l", "rouge_1", "rouge_2")
    names = tuple(dict.fromkeys(helm_name(name) or name for name in metrics))
    check_helm_metrics(names)
    return names


def _accuracies(name: str, examples: Sequence[Encoded], given: Sequence[Given]) -> np.ndarray:
    return per_example(name, [one.text for one in given], [example.references for example in examples])


def _accuracy_definition(name: str, examples: Sequence[Encoded]) -> str:
    return f"{HELM} {name}" + (", choice most probable by token" if is_ranked(examples[0]) else "")


def _perturbed(name: str, some: Sequence[Encoded | None], ask: Any) -> np.ndarray:
    rows = np.full(len(some), np.nan)
    places = [i for i, example in enumerate(some) if example is not None]
    there = [example for example in some if example is not None]
    if there:
        rows[places] = _accuracies(name, there, ask(there))
    return rows


def _worst(kind: str, original: np.ndarray, perturbed: Mapping, words: Words, about: str, sampling: Any) -> Section:
    rows = {name: row for name, row in perturbed.items() if PERTURBATIONS[name].kind == kind}
    if not rows:
        return {"worst": "no perturbations: give `versions` of the examples"}
    own = "own definition: fields of the prompt are perturbed, choices are not"
    lists = {name: PERTURBATIONS[name].lists for name in rows}
    provenance = {name: f"{about}; {own}" + (f"; {words.source(*lists[name])}" if lists[name] else "") for name in rows}
    provenance[""] = f"{about}; {own}; worst of the original and {', '.join(rows)}"
    return worst_case(original, rows, provenance, **sampling)


def _calibration(given: Sequence[Given], rows: Mapping[str, np.ndarray], sampling: Any) -> Section:
    if not given[0].probabilities:
        return {"all": "no probabilities over choices: the answer is generated"}
    confidence = [max(one.probabilities) for one in given]
    about = f"{HELM}, of the chosen answer's probability among the choices by token"
    return dict(calibration(confidence, rows["exact_match"], provenance=about, **sampling))


def _bias(texts: Sequence[str], words: Words, sampling: Any) -> Section:
    found: dict[str, Any] = {}
    for category, groups in words.groups.items():
        about = f"{HELM}, {words.source('groups')}, sentences split without Punkt"
        found[f"representation/{category}"] = representation(texts, groups, about, **sampling)
        about = about.replace(words.source("groups"), words.source("groups", "targets"))
        for kind, targets in words.targets.items():
            found[f"associations/{category}/{kind}"] = associations(texts, groups, targets, about, **sampling)
    return {name: one if one is not None else "no text has such words" for name, one in found.items()}


def _toxicity(texts: Sequence[str], ranked: bool, scorer: Scorer | None, sampling: Any) -> Section:
    if ranked or scorer is None:
        return {"all": CHOSEN if ranked else NO_SCORER}
    return dict(toxicity(texts, scorer, provenance=f"{HELM}, scorer given", **sampling))
