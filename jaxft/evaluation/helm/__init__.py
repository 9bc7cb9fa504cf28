"""HELM's seven metrics (Liang et al. 2022), computed natively on a model's own outputs; and a client for crfm-helm."""

from jaxft.evaluation.helm.perturbations import DEFAULT, PERTURBATIONS, perturb
from jaxft.evaluation.helm.report import SEVEN, Report, show_report
from jaxft.evaluation.helm.seven import seven
from jaxft.evaluation.helm.toxicity import load_scorer, toxicity
from jaxft.evaluation.helm.versions import perturbed_examples
from jaxft.evaluation.helm.words import Words, load_words

__all__ = ["DEFAULT", "PERTURBATIONS", "SEVEN", "Report", "Words", "load_scorer", "load_words", "perturb",
           "perturbed_examples", "seven", "show_report", "toxicity"]  # fmt: skip
