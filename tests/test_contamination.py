"""Overlap is as the definition says, in both directions, and the example shown is really in both texts."""

import numpy as np
import pytest

from jaxft.data import contamination as module
from jaxft.data.contamination import contamination
from jaxft.data.ngrams import words
from jaxft.errors import UsageError

WORDS = [f"w{i}" for i in range(100)]


def text(*spans):
    return " ".join(WORDS[i] for start, stop in spans for i in range(start, stop))


def found(training, *evaluation, **options):
    return contamination(training, {"task": evaluation}, **options)["task"]


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not():
    training = [text((60, 90)), text((20, 50))]
    assert found(training, text((0, 5), (25, 38), (5, 10))).contaminated == 1
    assert found(training, text((0, 5), (25, 37), (5, 10))).contaminated == 0
    assert found(training, text((0, 5), (25, 37), (5, 10)), n=12).contaminated == 1


def test_punctuation_case_and_lines_do_not_hide_it():
    said = "We the people of the United States, in order to form a more perfect Union, establish Justice!"
    other = 'He read: "we, the PEOPLE of the United\nStates in order -- to form a more perfect union" ...'
    result = found([other], said)
    assert result.contaminated == 1
    assert result.examples[0].words == "we the people of the united states in order to form a more perfect union"


@pytest.mark.parametrize("size", range(8, 13))
def test_a_short_text_overlaps_if_the_whole_of_it_stands_in_the_other(size):
    short, long = text((20, 20 + size)), text((10, 50))
    assert found([long], short).contaminated == 1
    assert found([short], long).contaminated == 1
    assert found([short], short).contaminated == 1
    assert found([text((20, 20 + size), (90, 95))], text((20, 20 + size), (80, 85))).contaminated == 0
    assert found([text((0, 20), (21, 40))], short).contaminated == 0


def test_seven_words_are_not_tested():
    result = found([text((0, 40))], text((0, 7)), text((0, 8)), "")
    assert (result.texts, result.tested, result.contaminated, result.positions) == (3, 1, 1, (1,))
    assert result.share == 1.0
    assert found([text((0, 40))], "a b").share == 0.0


def test_tasks_are_counted_apart_and_examples_name_both_places():
    training = [text((0, 30)), text((30, 60)), text((30, 60))]
    evaluation = {
        "one": [text((70, 90)), text((35, 55)), text((0, 20)), text((1, 21)), text((2, 22))],
        "two": [text((70, 90))],
    }
    result = contamination(training, evaluation)
    assert list(result) == ["one", "two"]
    assert result["one"].positions == (1, 2, 3, 4)
    assert [(shared.evaluation, shared.training) for shared in result["one"].examples] == [(1, 1), (2, 0), (3, 0)]
    assert result["one"].examples[0].words == text((35, 55)), "the whole of what both have in a row"
    assert (result["two"].contaminated, result["two"].examples) == (0, ())


def test_it_agrees_with_comparing_all_pairs(monkeypatch):
    """Random texts over few words, so that overlaps of every length occur; training read in many pieces."""
    draw = np.random.default_rng(0)
    pieces = [" ".join(f"v{i}" for i in draw.integers(0, 40, 9)) for _ in range(12)]
    texts = [" ".join(draw.choice(pieces, draw.integers(1, 4))) for _ in range(120)]
    texts = [" ".join(one.split()[draw.integers(3) :][: draw.integers(7, 30)]) for one in texts]
    training, evaluation = texts[:60], texts[60:]

    def overlap(one, other):
        left, right = words(one), words(other)
        size = min(len(left), len(right), 13)
        rows = [{tuple(w[i : i + size]) for i in range(len(w) - size + 1)} for w in (left, right)]
        return size >= 8 and bool(rows[0] & rows[1])

    expected = [i for i, one in enumerate(evaluation) if any(overlap(one, other) for other in training)]
    assert 10 < len(expected) < 55
    monkeypatch.setattr(module, "chunks", lambda texts: ((i, texts[i : i + 7]) for i in range(0, len(texts), 7)))
    result = contamination(training, {"": evaluation}, examples=100)[""]
    assert list(result.positions) == expected
    for shared in result.examples:
        for side in (evaluation[shared.evaluation], training[shared.training]):
            assert shared.words and f" {shared.words} " in f" {side} "


def test_nothing_at_all():
    assert contamination([], {"a": []})["a"].texts == 0
    assert contamination([text((0, 40))], {}) == {}
    assert contamination([], {"a": [text((0, 40))]})["a"].contaminated == 0


def test_too_few_words_are_refused():
    with pytest.raises(UsageError, match="say too little"):
        contamination([], {}, n=3)
