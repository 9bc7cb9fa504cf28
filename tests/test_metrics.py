"""Metrics against hand-computed values, published values, and the laws of several references."""

import gzip
import json
import os
from pathlib import Path

import pytest
import yaml

import jaxft.data.tasks
from jaxft.errors import UsageError
from jaxft.evaluation.metrics import ROUGE, TEXTS, check_metrics, score

LIBRARY = Path(jaxft.data.tasks.__file__).parent / "library"

# sacrebleu's README: three hypotheses, two reference streams, BLEU = 48.53, chrF2 = 59.73.
HYPOTHESES = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]


def values(predictions, references, metrics=ROUGE, **options):
    return {name: result.value for name, result in score(predictions, references, metrics, **options).items()}


def test_rouge_clips_repeated_words():
    # "the" counts twice, as often as the reference has it: P = 2/7, R = 2/6, F = 4/13.
    got = values(["the the the the the the the"], [["the cat is on the mat"]])
    assert got["rouge1"] == pytest.approx(4 / 13)
    assert got["rouge2"] == 0


def test_rouge_sees_word_order_in_bigrams_and_subsequence_only():
    got = values(["the man bit the dog"], [["the dog bit the man"]])
    # bigrams in common: "the man", "bit the", "the dog" of 4; longest common subsequence "the bit the" of 5.
    assert got == pytest.approx({"rouge1": 1, "rouge2": 3 / 4, "rougeL": 3 / 5, "rougeLsum": 3 / 5})


def test_one_word_turns_the_meaning_and_costs_little():
    got = values(["the film was not good"], [["the film was very good"]])
    assert got["rouge1"] == pytest.approx(4 / 5)
    assert got["rougeL"] == pytest.approx(4 / 5)


def test_stemmer_is_a_choice_and_is_stated():
    assert values(["dogs barking"], [["dog barks"]])["rouge1"] == 1
    assert values(["dogs barking"], [["dog barks"]], stemmer=False)["rouge1"] == 0
    assert "stemmer:no" in score(["a"], [["a"]], stemmer=False)["rouge1"].provenance


def test_rougelsum_splits_lines_as_stated():
    prediction, reference = "It rains. We stay in.", "We stay in. It rains."
    assert values([prediction], [[reference]])["rougeLsum"] == pytest.approx(3 / 5)  # the text as one line
    assert values([prediction], [[reference]], sentences=True)["rougeLsum"] == 1
    lines = [text.replace(". ", ".\n") for text in (prediction, reference)]
    assert values([lines[0]], [[lines[1]]])["rougeLsum"] == 1


def test_bleu_and_chrf_equal_sacrebleus_published_example():
    got = score(HYPOTHESES, REFERENCES, ["bleu", "chrf"])
    assert got["bleu"].value == pytest.approx(48.53, abs=0.005)
    assert got["chrf"].value == pytest.approx(59.73, abs=0.005)
    assert got["bleu"].provenance.startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_clips_repeated_words():
    from sacrebleu.metrics import BLEU

    got = values(["the the the the the the the"], [["the cat is on the mat"]], ["bleu"])["bleu"]
    # The classic case: unigram precision 2/7, and each higher order smoothed to 1/2, 1/4, 1/8 of 1/count.
    expected = 100 * (2 / 7 * (1 / 2) / 6 * (1 / 4) / 5 * (1 / 8) / 4) ** (1 / 4)
    assert got == pytest.approx(expected)
    assert BLEU(max_ngram_order=1).corpus_score(["the the the the the the the"], [["the cat is on the mat"]]).score == (
        pytest.approx(100 * 2 / 7)
    )


def test_best_of_references_is_at_least_their_mean_and_order_is_free():
    best = values(HYPOTHESES, REFERENCES, TEXTS)
    turned = values(HYPOTHESES, [texts[::-1] for texts in REFERENCES], TEXTS)
    assert best == pytest.approx(turned)
    for name in (*ROUGE, "bleu", "chrf"):
        assert best[name] >= best[f"{name}_mean"]
    assert best["rouge1"] > best["rouge1_mean"] + 0.03
    single = [values(HYPOTHESES, [[texts[i]] for texts in REFERENCES], ["rouge2"])["rouge2"] for i in (0, 1)]
    assert best["rouge2_mean"] == pytest.approx(sum(single) / 2)


def test_one_reference_has_equal_best_and_mean():
    got = values(HYPOTHESES, [texts[:1] for texts in REFERENCES], TEXTS)
    for name in (*ROUGE, "bleu", "chrf"):
        assert got[name] == pytest.approx(got[f"{name}_mean"])


def test_unequal_numbers_of_references():
    got = score(HYPOTHESES, [REFERENCES[0], *[texts[:1] for texts in REFERENCES[1:]]], TEXTS)
    assert got["rouge1"].provenance.endswith("best of 1-2")
    assert got["bleu_mean"].provenance.endswith("mean of 1")


def test_an_empty_prediction_scores_zero():
    assert set(values([""], [["a b c d"]], TEXTS).values()) == {0.0}


@pytest.mark.parametrize(
    ("predictions", "references", "metrics", "message"),
    [
        (["a"], [["a"]], ["rogue1"], "did you mean 'rouge1'"),
        (["a", "b"], [["a"]], ROUGE, "2 predictions but 1 list"),
        (["a"], [[]], ROUGE, "example 0 has an empty reference"),
        (["a", "b"], [["a"], ["a", " "]], ROUGE, "example 1 has an empty reference"),
        (["a"], ["a"], ROUGE, "give a list of texts"),
        ([], [], ROUGE, "no predictions"),
    ],
)
def test_bad_input_is_one_line(predictions, references, metrics, message):
    with pytest.raises(UsageError, match=message) as caught:
        score(predictions, references, metrics)
    assert "\n" not in str(caught.value)


def test_dialogsums_annotators_differ_as_much_as_best_and_mean_do():
    data = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared/data")) / "dialogsum/test.jsonl.gz"
    if not data.exists():
        pytest.skip(f"DialogSum is not at {data}: set JAXFT_DATA")
    with gzip.open(data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["summary"] for line in file]
    got = values([row[0] for row in rows[:50]], [row[1:] for row in rows[:50]], ["rouge1", "rouge1_mean"])
    # One annotator against the two others: best and mean lie well apart, and far from 0 and from 1.
    assert 0.4 < got["rouge1_mean"] < got["rouge1"] < 0.75


def test_exact_match_takes_any_reference_and_ignores_white_space_around():
    found = score(["yes ", "No", "maybe"], [["yes"], ["no"], ["perhaps", " maybe"]], ["exact_match"])["exact_match"]
    assert found.value == pytest.approx(2 / 3) and found.provenance == "exact match|stripped|references:any of 1-2"


def test_the_shipped_tasks_have_metrics_that_fit_them():
    records = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in LIBRARY.rglob("*.yaml")]
    for record in records:
        laid = record["each"].values() if isinstance(record.get("each"), dict) else [{}]
        for one in ({**record, **(own or {})} for own in laid):
            check_metrics(one["metrics"])
            if {"f1", "matthews"} & set(one["metrics"]):
                assert len(one["choices"]) == 2, one["name"]
    metrics = {record["name"]: record["metrics"] for record in records}
    assert metrics["superglue/cb"] == ["accuracy", "macro_f1"] and metrics["glue/cola"][0] == "matthews"
