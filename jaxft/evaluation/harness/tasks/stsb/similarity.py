"""STS-B (Cer et al. 2017, arXiv:1708.00055): similarities from 0 to 5, compared by correlation."""

import re

import numpy as np
from scipy import special, stats


def ranked(doc, results):
    log_probabilities = np.array([total for total, _ in results])
    predicted = float(special.softmax(log_probabilities) @ np.arange(len(results)))
    return dict.fromkeys(("pearson", "spearman"), (predicted, doc["label"]))


def written(doc, results):
    found = re.search(r"\d+(\.\d+)?", results[0])
    predicted = min(float(found[0]), 5.0) if found else 2.5  # without a number, the middle
    return dict.fromkeys(("pearson", "spearman"), (predicted, doc["label"])) | {"number": float(bool(found))}


def pearson(items):
    return _correlation(stats.pearsonr, items)


def spearman(items):
    return _correlation(stats.spearmanr, items)


def _correlation(of, items):
    predicted, labels = np.array(items, float).T
    # A model that always says the same has no correlation: 0, as GLUE's scorers have it.
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(of(predicted, labels).statistic)
