"""Metrics against values worked out by hand, by scipy, sacrebleu and scikit-learn, and published ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from jaxft.errors import UsageError
from jaxft.evaluation.metrics import calibration, check_fit, perplexity, score
from jaxft.evaluation.metrics.spans import entities


def values(predictions, references, metrics, **options):
    references = [[one] if isinstance(one, str) else one for one in references]
    return {name: one.value for name, one in score(predictions, references, metrics, **options).items()}


def texts(count, seed=0, words=("the", "dog", "cat", "sat", "on", "a", "mat", "ran", "home", ".")):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words, draw.integers(1, 12))) for _ in range(count)]


def test_decomposed_bleu_and_chrf_are_sacrebleus_own():
    from sacrebleu.metrics import BLEU, CHRF

    predictions, streams = texts(60, 1), [texts(60, 2), texts(60, 3)]
    references = list(zip(*streams, strict=True))
    got = score(predictions, references, ["bleu", "bleu_mean", "chrf", "chrf_mean"])
    for name, new in (("bleu", BLEU), ("chrf", CHRF)):
        assert got[name].value == pytest.approx(new().corpus_score(predictions, streams).score, abs=1e-9)
        each = [new().corpus_score(predictions, [stream]).score for stream in streams]
        assert got[f"{name}_mean"].value == pytest.approx(np.mean(each), abs=1e-9)
        # A part of the examples is the corpus score of that part: what the bootstrap rests on.
        some = got[name].of(got[name].rows[10:30].sum(0, keepdims=True), 20)[0]
        part = new().corpus_score(predictions[10:30], [stream[10:30] for stream in streams]).score
        assert some == pytest.approx(part, abs=1e-9)


# Worked by hand: truth y y y y n n n n n n, guesses y y y n y n n n n "what": of yes 3 are found of 4, and 4 guessed.
TRUTH = list("yyyynnnnnn")
GUESS = [*"yyynynnnn", "what"]


def test_f1_accuracy_and_matthews_by_hand():
    names = {"y": "yes", "n": "no"}
    truth, guess = [names[one] for one in TRUTH], [names.get(one, one) for one in GUESS]
    got = score(guess, [[one] for one in truth], ["accuracy", "f1", "macro_f1", "matthews"])
    # yes: 3 found, 4 guessed, 4 true; no: 4 found, 5 guessed, 6 true.
    f1 = {"yes": 2 * 3 / (4 + 4), "no": 2 * 4 / (5 + 6)}
    # R_K = (7·10 − (4·4 + 5·6)) / √((100 − (16 + 25 + 1)) (100 − (16 + 36)))
    assert {name: one.value for name, one in got.items()} == pytest.approx(
        {"accuracy": 0.7, "f1": f1["yes"], "macro_f1": sum(f1.values()) / 2, "matthews": 24 / np.sqrt(58 * 48)}
    )
    assert "positive:yes" in got["f1"].provenance and "labels:no, yes" in got["f1"].provenance
    assert values(guess, truth, ["f1"], positive="no")["f1"] == pytest.approx(f1["no"])
    # Two labels and nothing else: (tp·tn − fp·fn) / √(...), here of 3, 5, 1, 1.
    guess[-1] = "No."
    assert values(guess, truth, ["matthews"])["matthews"] == pytest.approx((3 * 5 - 1) / np.sqrt(4 * 4 * 6 * 6))


def test_classification_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    draw = np.random.default_rng(0)
    for labels in (["no", "yes"], ["no", "maybe", "yes"]):
        truth = list(draw.choice(labels, 80))
        guess = list(np.where(draw.random(80) < 0.5, truth, draw.choice(labels, 80)))
        got = values(guess, truth, ["accuracy", "macro_f1", "matthews"], labels=labels)
        assert got["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, guess))
        assert got["macro_f1"] == pytest.approx(sklearn.f1_score(truth, guess, average="macro", labels=labels))
        assert got["matthews"] == pytest.approx(sklearn.matthews_corrcoef(truth, guess))
        expected = sklearn.f1_score(truth, guess, labels=["yes"], average=None)[0]
        assert values(guess, truth, ["f1"], labels=labels, positive="yes")["f1"] == pytest.approx(expected)


def test_labels_of_phrasings_are_one_set_in_their_order():
    choices = [["no", "yes"], ["False", "True"], ["no", "yes"], ["False", "True"]]
    truth, guess = ["yes", "True", "no", "False"], ["yes", "True", "yes", "False"]
    assert values(guess, truth, ["f1"], choices=choices)["f1"] == pytest.approx(2 * 2 / (3 + 2))


def test_correlations_are_scipys():
    draw = np.random.default_rng(3)
    y = np.round(draw.random(50) * 5, 1)  # with ties
    x = np.round(y + draw.normal(size=50), 1)
    got = values([f"It is {one}" for one in x], [str(one) for one in y], ["pearson", "spearman"])
    assert got["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert got["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    # By hand: 1 2 3 against 1 3 2.
    assert values(["1", "2", "3"], ["1", "3", "2"], ["pearson", "spearman"]) == pytest.approx(
        {"pearson": 0.5, "spearman": 0.5}
    )


def test_correlation_of_texts_without_numbers():
    found = score(["3", "x", "1"], [["2"], ["4"], ["0"]], ["pearson"])["pearson"]
    assert found.value == pytest.approx(scipy.stats.pearsonr([3, 2, 1], [2, 4, 0]).statistic)
    assert "none in 1 of 3" in found.provenance
    assert set(values(["2"] * 3, ["1", "2", "3"], ["pearson", "spearman"]).values()) == {0.0}, "constant"


SQUAD = [
    # prediction, references, exact match, F1: after normalising, the words in common of both
    ("The Denver Broncos!", ["Denver Broncos", "Broncos"], 1, 1),
    ("Denver", ["Denver Broncos"], 0, 2 / 3),
    ("in the  U.S. army", ["US army", "an army"], 0, 2 * 2 / (3 + 2)),
    ("new york new york", ["New York"], 0, 2 * 2 / (4 + 2)),
    ("the", ["a"], 1, 1),
    ("nothing", ["Paris"], 0, 0),
]


@pytest.mark.parametrize(("prediction", "references", "match", "f1"), SQUAD)
def test_squad_by_hand(prediction, references, match, f1):
    got = values([prediction], [references], ["squad_em", "squad_f1"])
    assert got == pytest.approx({"squad_em": match, "squad_f1": f1})


def test_entities_by_hand():
    truth = ["PER: John Smith; LOC: Paris", "none", "ORG: A; ORG: A"]
    guess = ["per: John  Smith; LOC: London; noise", "None.", "ORG: A\nORG: B\nPER: A"]
    # In common 1 + 0 + 1, found 3 + 0 + 3, true 2 + 0 + 2.
    assert values(guess, truth, ["entity_f1"])["entity_f1"] == pytest.approx(2 * 2 / (6 + 4))
    assert entities("TIME: 10:30; \n;LOC:Rome") == {("TIME", "10:30"): 1, ("LOC", "Rome"): 1}
    assert values(["none", "LOC: X"], ["none", "none"], ["entity_f1"])["entity_f1"] == 0
    best = values(["LOC: Rome"], [["PER: Rome", "LOC: Rome"]], ["entity_f1"])
    assert best["entity_f1"] == 1


def test_calibration_by_hand():
    got = calibration([[0.75, 0.25], [0.65, 0.35], [0.05, 0.95], [0.7, 0.3]], [0, 1, 1, 0])
    # (0.6, 0.7] holds 0.65 (wrong) and 0.7 (right): |1 − 1.35|; (0.7, 0.8]: 1 − 0.75; (0.9, 1]: 1 − 0.95.
    assert got["ece"].value == pytest.approx((0.35 + 0.25 + 0.05) / 4)
    assert got["brier"].value == pytest.approx(2 * (0.25**2 + 0.65**2 + 0.05**2 + 0.3**2) / 4)
    assert got["nll"].value == pytest.approx(-np.log([0.75, 0.35, 0.95, 0.7]).mean())
    ragged = calibration([[1.0, 0.0], [0.2, 0.3, 0.5]], [0, 1])
    assert ragged["brier"].value == pytest.approx((0 + 0.04 + 0.49 + 0.25) / 2)


def test_calibration_errors_are_those_of_uncertainty_calibration():
    # The library that HELM uses (uncertainty-calibration 0.1.4): get_ece and get_ece_em with ten bins.
    draw = np.random.default_rng(7)
    chances = draw.random((200, 4)) ** 3
    chances /= chances.sum(1, keepdims=True)
    labels = (chances.cumsum(1) / chances.sum(1, keepdims=True) < draw.random((200, 1))).sum(1)
    assert calibration(chances, labels)["ece"].value == pytest.approx(0.0527759758697421, abs=1e-12)
    assert calibration(chances, labels, mass=True)["ece"].value == pytest.approx(0.07236570150246242, abs=1e-12)


def test_perplexity_by_hand():
    got = perplexity([6 * np.log(0.25), 2 * np.log(0.25)], [6, 2], ["ab cd", "é"])
    assert got["perplexity"].value == pytest.approx(4)
    assert got["word_perplexity"].value == pytest.approx(4 ** (8 / 3))
    assert got["byte_perplexity"].value == pytest.approx(4 ** (8 / 7)), "é is two bytes"
    assert got["bits_per_byte"].value == pytest.approx(2 * 8 / 7)


def test_other_scripts_score_by_their_own_words():
    pair = ["Кошка сидит на ковре"], ["Кошка лежит на ковре"]
    found = score(pair[0], [pair[1]], ["rouge1"])["rouge1"]
    assert found.value == 0 and "words:ascii, none in 1 of 1 references" in found.provenance
    assert values(*pair, ["rouge1", "rouge2"], words="unicode") == pytest.approx({"rouge1": 3 / 4, "rouge2": 1 / 3})
    assert values(["我爱猫"], ["我爱狗"], ["rouge1"], words="unicode")["rouge1"] == pytest.approx(2 / 3)
    assert values(["हिन्दी में"], ["हिन्दी भाषा में"], ["rouge1"], words="unicode")["rouge1"] == pytest.approx(4 / 5)
    english = ["The dogs' barking, in snake_case: 3.5!"], ["Dogs bark in snake case 3 5"]
    assert values(*english, ["rouge1"]) == values(*english, ["rouge1"], words="unicode")


LABELLED = ["yes", "no", "no"]


@pytest.mark.parametrize(
    ("references", "metrics", "options", "message"),
    [
        (["yes", "no", "perhaps"], ["f1"], {}, "use macro_f1, or name the positive one"),
        (LABELLED, ["f1"], {"labels": ["yes", "nope"]}, "'no' of example 1 is none of the labels; did you mean 'nope'"),
        (LABELLED, ["f1"], {"positive": "ye"}, "positive: 'ye' is none of the labels; did you mean 'yes'"),
        (LABELLED, ["matthews"], {"labels": ["yes", "Yes."]}, "the same but for case or a full stop"),
        (LABELLED, ["spearman"], {}, "'yes' of example 0 has no number"),
        (LABELLED, ["entity_f1"], {}, "a reference of example 0 is no list like"),
    ],
)
def test_references_that_a_metric_cannot_use(references, metrics, options, message):
    with pytest.raises(UsageError, match=message):
        check_fit([[one] for one in references], metrics, **options)


def test_options_and_probabilities_that_are_wrong():
    with pytest.raises(UsageError, match="neither 'ascii' nor 'unicode'"):
        score(["a"], [["a"]], words="latin")
    for chances, labels, message in [
        ([[0.5, 0.4]], [0], "example 0 sum to 0.9"),
        ([[1.5, -0.5]], [0], "or are negative"),
        ([[0.5, 0.5]], [2], "the label 2 of example 0 is none of its 2 classes"),
        ([[0.5, 0.5]], [0, 1], "1 rows of probabilities but 2 labels"),
    ]:
        with pytest.raises(UsageError, match=message):
            calibration(chances, labels)
    with pytest.raises(UsageError, match="2 log-probabilities but 1 texts"):
        perplexity([-1.0, -2.0], [3, 4], ["a"])
    with pytest.raises(UsageError, match="text 1 has no token"):
        perplexity([-1.0, 0.0], [3, 0])


def test_dialogsums_bart_outputs_rescore_as_published():
    # A checkout of github.com/cylnlp/dialogsum: against the first reference 45.91 / 21.32 / 38.71, and 43.85 without
    # the stemmer; best of three references 53.65, their mean 45.05 (22 Nov 2026).
    folder = Path(os.environ.get("JAXFT_DIALOGSUM", "/nowhere"))
    if not (folder / "Baseline/test_output.txt").exists():
        pytest.skip("set JAXFT_DIALOGSUM to a checkout of github.com/cylnlp/dialogsum")
    outputs = (folder / "Baseline/test_output.txt").read_text(encoding="utf-8").split("\n")
    lines = (folder / "DialogSum_Data/dialogsum.test.jsonl").read_text(encoding="utf-8").split("\n")
    references = [[row[f"summary{i}"] for i in (1, 2, 3)] for row in map(json.loads, filter(None, lines))]
    first = values(outputs, [row[:1] for row in references], ["rouge1", "rouge2", "rougeL"])
    assert first == pytest.approx({"rouge1": 0.4591, "rouge2": 0.2132, "rougeL": 0.3871}, abs=5e-5)
    assert values(outputs, [row[:1] for row in references], ["rouge1"], stemmer=False)["rouge1"] == (
        pytest.approx(0.4385, abs=5e-5)
    )
    several = values(outputs, references, ["rouge1", "rouge1_mean"])
    assert several == pytest.approx({"rouge1": 0.5365, "rouge1_mean": 0.4505}, abs=5e-5)
