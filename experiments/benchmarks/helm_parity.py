"""Are jaxft's HELM metrics crfm-helm's, on the same 100 outputs?

Question    Perturbed texts, accuracy, calibration, worst cases, bias and toxicity: equal to crfm-helm's own?
Data        100 generated dialogues and summaries (jaxft.data.dialogues), each with sentences of words that the lists
            know; 100 "outputs" made of the summaries with errors; confidences, scores of toxicity and accuracies drawn.
            HELM's word lists are read from the installed crfm-helm and given to jaxft as a file; two that HELM would
            download (dialect, names) are jaxft's, given to HELM as its files.
Method      The two run in processes of their own and exchange JSON: crfm-helm may be in another environment. Needs
            NLTK's punkt_tab beside crfm-helm, which downloads it.
Command     python experiments/benchmarks/helm_parity.py --helm-python HELM_ENVIRONMENT/bin/python
Results     experiments/README.md; the exit code is 1 if anything differs by more than its tolerance
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PERTURBED = ("typos", "lowercase", "space", "extra_space", "contraction", "expansion", "misspellings", "mild_mix",
             "dialect", "gender_pronouns", "gender_terms", "person_name")  # fmt: skip
ACCURACY = ("exact_match", "quasi_exact_match", "f1_score", "rouge_1", "rouge_2", "rouge_l")
# HELM's solver of Platt's regression stops at a gradient of 1e-4.
TOLERANCE = {"platt": 2e-3}


def make_cases(seed: int = 0) -> dict[str, Any]:
    """Return the 100 examples, outputs and draws that both sides get, and our lists of dialects and names."""
    from jaxft.data.dialogues import dialogues
    from jaxft.evaluation.helm.words import own_words

    words, draw = own_words(), random.Random(seed)
    names = [name for group in words.names.values() for some in group.values() for name in some]
    surnames = [name for some in words.groups["race"].values() for name in some]
    genders = [word for some in words.groups["gender"].values() for word in some]

    def sentence() -> str:
        job, feature = (draw.choice(words.targets[kind]) for kind in ("profession", "adjective"))
        first, last = draw.choice(names).capitalize(), draw.choice(surnames).capitalize()
        who, whose = draw.choice(genders), draw.choice(("he", "she", "his", "Her", "himself"))
        end = draw.choice((".", "!", "?", "...", ", he said.", " (so to speak).", " and/or not.", "'s own."))
        return f"Mr. {first} {last} isn't {feature}, but the {job} would have told {whose} that the {who} is there{end}"

    rows = dialogues(seed, 100)
    examples, outputs = [], []
    for i, row in enumerate(rows):
        text = " ".join([row["dialogue"], *(sentence() for _ in range(2))])
        examples.append({"id": f"id{i}", "input": text, "references": [row["summary"], sentence()]})
        kept = [word for word in row["summary"].split() if draw.random() < 0.9]
        output = row["summary"] if i % 5 == 0 else row["summary"].upper() + "!" if i % 5 == 1 else " ".join(kept)
        outputs.append("" if i == 7 else f"{output} {sentence()} {sentence()}" if i % 3 else output)
    confidence = [draw.uniform(0.25, 1) for _ in rows]
    return {
        "examples": examples,
        "outputs": outputs,
        "confidence": confidence,
        "right": [int(draw.random() < one**2) for one in confidence],
        "toxicity": [draw.random() for _ in rows],
        "original": [draw.random() for _ in rows],
        # null: an example that the perturbation does not change
        "accuracies": {name: [draw.choice((None, draw.random())) for _ in rows] for name in PERTURBED},
        "dialect": words.dialect,
        "names": words.names,
    }


def theirs(cases: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return crfm-helm's side: its lists, and its numbers."""
    from helm.benchmark.metrics.basic_metrics import compute_calibration_metrics

    lists = _lists()
    found: dict[str, Any] = {"lists": lists, "perturbed": _perturbed(cases, folder)}
    found["accuracy"] = _accuracy(cases)
    stats = {i: [_stat("max_prob", p), _stat("exact_match", y), _stat("logprob", -p)]
             for i, (p, y) in enumerate(zip(cases["confidence"], cases["right"], strict=True))}  # fmt: skip
    found["calibration"] = {one.name.name: float(one.mean) for one in compute_calibration_metrics(stats)}
    found["bias"], found["worst"], found["toxicity"] = _bias(cases), _worst(cases), _toxicity(cases)
    return found


def _stat(name: str, value: float, perturbation: Any = None) -> Any:
    from helm.benchmark.metrics.metric_name import MetricName
    from helm.benchmark.metrics.statistic import Stat

    return Stat(MetricName(name, perturbation=perturbation)).add(value)


def _lists() -> dict[str, Any]:
    import inspect

    from helm.benchmark.augmentations import misspelling_perturbation as misspelling
    from helm.benchmark.augmentations import typos_perturbation as typos
    from helm.benchmark.augmentations.contraction_expansion_perturbation import CONTRACTION_MAP
    from helm.benchmark.augmentations.gender_perturbation import GENDER_PRONOUN_MAPPINGS, GENDER_TERM_MAPPINGS
    from helm.benchmark.metrics.bias_metrics import BiasMetric

    keyboard = {}
    for node in ast.walk(ast.parse(inspect.getsource(typos))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            keyboard[ast.literal_eval(node.targets[0].slice)] = ast.literal_eval(node.value)
    return {
        "keyboard": keyboard,
        "contractions": CONTRACTION_MAP,
        "misspellings": misspelling.MisspellingPerturbation(prob=1).correct_to_misspelling,
        "gender_pronouns": GENDER_PRONOUN_MAPPINGS,
        "gender_terms": GENDER_TERM_MAPPINGS,
        "groups": BiasMetric.DEMOGRAPHIC_CATEGORY_TO_WORD_DICT,
        "targets": BiasMetric.TARGET_CATEGORY_TO_WORD_LIST,
    }


def _made(cases: dict[str, Any], folder: Path) -> dict[str, Any]:
    from helm.benchmark.augmentations import contraction_expansion_perturbation as contraction
    from helm.benchmark.augmentations.dialect_perturbation import DialectPerturbation
    from helm.benchmark.augmentations.extra_space_perturbation import ExtraSpacePerturbation
    from helm.benchmark.augmentations.gender_perturbation import GenderPerturbation
    from helm.benchmark.augmentations.lowercase_perturbation import LowerCasePerturbation
    from helm.benchmark.augmentations.mild_mix_perturbation import MildMixPerturbation
    from helm.benchmark.augmentations.misspelling_perturbation import MisspellingPerturbation
    from helm.benchmark.augmentations.person_name_perturbation import PersonNamePerturbation
    from helm.benchmark.augmentations.space_perturbation import SpacePerturbation
    from helm.benchmark.augmentations.typos_perturbation import TyposPerturbation

    dialect, names = folder / "dialect.json", folder / "names.txt"
    dialect.write_text(json.dumps(cases["dialect"]))
    lines = [f"{name},first_name,race,{race},gender,{gender}" for race, genders in cases["names"].items()
             for gender, some in genders.items() for name in some]  # fmt: skip
    names.write_text("\n".join(lines) + "\n")
    pronouns, terms = (GenderPerturbation(mode, 1.0, "male", "female") for mode in ("pronouns", "terms"))
    white, black = {"race": "white_american"}, {"race": "black_american"}
    return {
        "typos": TyposPerturbation(0.1),
        "lowercase": LowerCasePerturbation(),
        "space": SpacePerturbation(3),
        "extra_space": ExtraSpacePerturbation(2),
        "contraction": contraction.ContractionPerturbation(),
        "expansion": contraction.ExpansionPerturbation(),
        "misspellings": MisspellingPerturbation(0.2),
        "mild_mix": MildMixPerturbation(),
        "dialect": DialectPerturbation(1.0, "SAE", "AAVE", str(dialect)),
        "gender_pronouns": pronouns,
        "gender_terms": terms,
        "person_name": PersonNamePerturbation(1.0, white, black, str(names), "first_name", True),
    }


def _perturbed(cases: dict[str, Any], folder: Path) -> dict[str, list[list[str]]]:
    from helm.benchmark.scenarios.scenario import CORRECT_TAG, Input, Instance, Output, Reference

    found: dict[str, list[list[str]]] = {}
    for name, perturbation in _made(cases, folder).items():
        for one in cases["examples"]:
            references = [Reference(Output(text), [CORRECT_TAG]) for text in one["references"]]
            made = perturbation.apply(Instance(Input(one["input"]), references, id=one["id"]))
            texts = [*(reference.output.text for reference in made.references), made.input.text]
            found.setdefault(name, []).append(texts)
    return found


def _accuracy(cases: dict[str, Any]) -> dict[str, list[float]]:
    from helm.benchmark.metrics import evaluate_reference_metrics as metrics

    functions = {name: getattr(metrics, name) for name in ACCURACY[:3]}
    functions |= {name: metrics.get_rouge_function(name.replace("_", "").replace("l", "L")) for name in ACCURACY[3:]}
    pairs = list(zip(cases["outputs"], cases["examples"], strict=True))
    return {
        name: [float(max(function(gold, text.strip()) for gold in one["references"])) for text, one in pairs]
        for name, function in functions.items()
    }


def _bias(cases: dict[str, Any]) -> dict[str, float | None]:
    from helm.benchmark.metrics.bias_metrics import BiasMetric

    texts, found = [text for text in cases["outputs"] if text], {}
    for category in ("gender", "race"):
        one = BiasMetric("representation", category)
        found[f"representation/{category}"] = one.evaluate_demographic_representation(texts)
        for target in ("profession", "adjective"):
            one = BiasMetric("associations", category, target)
            found[f"associations/{category}/{target}"] = one.evaluate_stereotypical_associations(texts)
    return {name: None if value is None else float(value) for name, value in found.items()}


def _worst(cases: dict[str, Any]) -> dict[str, float]:
    from helm.benchmark.augmentations.perturbation_description import PerturbationDescription
    from helm.benchmark.metrics.metric import compute_worst_case_metrics
    from helm.benchmark.scenarios.scenario import Input, Instance

    stats: dict[Any, list[Any]] = {}
    found: dict[str, float] = {}
    for place, name in enumerate(("", *PERTURBED)):
        fair = place > PERTURBED.index("mild_mix") + 1
        about = PerturbationDescription(name, robustness=not fair, fairness=fair) if name else None
        values = cases["accuracies"][name] if name else cases["original"]
        for i, value in enumerate(values):
            if value is not None:
                instance = Instance(Input(""), [], id=str(i), perturbation=about)
                stats[instance] = [_stat("accuracy", value, about)]
        if name:
            there = [value for value in values if value is not None]
            found[f"{name}/perturbed"] = sum(there) / len(there)
    for one in compute_worst_case_metrics(stats):
        about = one.name.perturbation
        part = {"original": "before", "worst": "worst"}[about.computed_on]
        found[f"{about.name}/{part}"] = one.mean
    return found


def _toxicity(cases: dict[str, Any]) -> dict[str, float]:
    from types import SimpleNamespace

    from helm.benchmark.metrics.toxicity_metrics import ToxicityMetric
    from helm.common.perspective_api_request import PerspectiveAPIRequestResult, ToxicityAttributes

    sums: dict[str, float] = {}
    for text, score in zip(cases["outputs"], cases["toxicity"], strict=True):
        scored = {text: ToxicityAttributes(toxicity_score=score)} if text else {}
        service = SimpleNamespace(
            get_toxicity_scores=lambda request, scored=scored: PerspectiveAPIRequestResult(True, False, scored)
        )
        state = SimpleNamespace(result=SimpleNamespace(completions=[SimpleNamespace(text=text)]))
        for one in ToxicityMetric().evaluate_generation(None, state, service, ""):  # type: ignore[arg-type]
            sums[one.name.name] = sums.get(one.name.name, 0.0) + one.mean
    return {name: total / len(cases["outputs"]) for name, total in sums.items()}


def ours(cases: dict[str, Any], lists: Path) -> dict[str, Any]:
    """Return jaxft's side, with the lists of a file."""
    import numpy as np

    from jaxft.evaluation.helm.accuracy import per_example
    from jaxft.evaluation.helm.bias import associations, representation
    from jaxft.evaluation.helm.calibration import calibration
    from jaxft.evaluation.helm.perturbations import PERTURBATIONS, perturb
    from jaxft.evaluation.helm.toxicity import toxicity
    from jaxft.evaluation.helm.words import load_words
    from jaxft.evaluation.helm.worst import worst_case

    words, outputs = load_words(lists), cases["outputs"]
    found: dict[str, Any] = {"perturbed": {}, "bias": {}, "worst": {}}
    for name in PERTURBED:
        for one in cases["examples"]:
            references = one["references"]
            changed = references if PERTURBATIONS[name].references else []
            texts = perturb(name, [*changed, one["input"]], 0, one["id"], words)
            found["perturbed"].setdefault(name, []).append([*references[len(changed) :], *texts])
    references = [one["references"] for one in cases["examples"]]
    found["accuracy"] = {name: per_example(name, outputs, references).tolist() for name in ACCURACY}
    scores = calibration(cases["confidence"], cases["right"], resamples=0)
    found["calibration"] = {name: one.value for name, one in scores.items()}
    for category, groups in words.groups.items():
        found["bias"][f"representation/{category}"] = representation(outputs, groups, "", resamples=0)
        for kind, targets in words.targets.items():
            one = associations(outputs, groups, targets, "", resamples=0)
            found["bias"][f"associations/{category}/{kind}"] = one
    found["bias"] = {name: None if one is None else one.value for name, one in found["bias"].items()}
    for kind in ("robustness", "fairness"):
        names = [name for name in PERTURBED if PERTURBATIONS[name].kind == kind]
        rows = {name: np.array(cases["accuracies"][name], float) for name in names}
        made = worst_case(np.array(cases["original"]), rows, dict.fromkeys(["", *names], ""), resamples=0)
        found["worst"] |= {key if key != "worst" else f"{kind}/worst": one.value for key, one in made.items()}
    score_of = dict(zip(outputs, cases["toxicity"], strict=True))
    scores = toxicity(outputs, lambda texts: [score_of[text] for text in texts], resamples=0)
    found["toxicity"] = {name: one.value for name, one in scores.items()}
    return found


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, str, float, bool]]:
    """Return section, name, largest difference (of texts the share that differ), whether it is within tolerance."""
    found = []
    for section in ("perturbed", "accuracy", "calibration", "worst", "bias", "toxicity"):
        one, other = ours[section], theirs[section]
        for name in dict.fromkeys([*other, *one]):
            a, b = one.get(name), other.get(name)
            if a is None or b is None:
                gap = 0.0 if a is b else float("inf")
            elif section == "perturbed":
                gap = sum(x != y for x, y in zip(a, b, strict=True)) / len(b)
            else:
                pairs = zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]
                gap = max(abs(x - y) for x, y in pairs)
            found.append((section, name, gap, gap <= TOLERANCE.get(name.partition("_")[0], 1e-9)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--helm-python", default=sys.executable, help="Python of the environment with crfm-helm")
    parser.add_argument("--side", nargs=2, metavar=("CASES", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        cases, result = map(Path, arguments.side)
        result.write_text(json.dumps(theirs(json.loads(cases.read_text()), cases.parent)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cases = make_cases()
        (folder / "cases.json").write_text(json.dumps(cases))
        command = [arguments.helm_python, Path(__file__).resolve(), "--side", "cases.json", "theirs.json"]
        subprocess.run([str(part) for part in command], cwd=folder, check=True)
        other = json.loads((folder / "theirs.json").read_text())
        (folder / "lists.json").write_text(json.dumps(other["lists"]))
        rows = compare(ours(cases, folder / "lists.json"), other)
    for section, name, gap, equal in rows:
        print(f"{section:12} {name:32} {gap:9.2e}  {'equal' if equal else 'DIFFERS'}")
    return int(not all(equal for *_, equal in rows))


if __name__ == "__main__":
    sys.exit(main())
