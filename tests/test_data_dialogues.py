"""The generated dialogues are deterministic, varied, well-formed, and not to be summarised by copying."""

import random
import re
import statistics
from itertools import pairwise

import pytest
from rouge_score import rouge_scorer

from jaxft.data.dialogues import SCENES, TURNS, WORDS, dialogues
from jaxft.data.dialogues.talk import Talk

TRAIN, TEST = dialogues(0, 1500), dialogues(1, 300)


def turns(example):
    return [line.split(": ", 1) for line in example["dialogue"].split("\n")]


def test_an_example_is_a_function_of_seed_and_number():
    assert dialogues(0, 10) == TRAIN[:10]
    assert TEST[0]["summary"] == (
        "Wanda is looking for her scarf, which is not at the post office or the hairdresser's. Freya finds it in her "
        "shopping bag, and Freya will bring it to Wanda on Monday at half past seven."
    )


def test_nothing_is_repeated_within_or_between_seeds():
    texts = [example["dialogue"] for example in TRAIN + TEST]
    assert len(set(texts)) == len(texts)
    assert not {example["summary"] for example in TRAIN} & {example["summary"] for example in TEST}
    assert len({example["id"] for example in TRAIN + TEST}) == len(texts)


def test_sizes():
    lengths = [len(example["dialogue"].split()) for example in TEST]
    assert all(length in WORDS for length in lengths) and 90 < statistics.mean(lengths) < 120
    assert all(len(turns(example)) in TURNS for example in TEST)
    summaries = [len(example["summary"].split()) for example in TEST]
    assert min(summaries) >= 15 and max(summaries) <= 50 and 25 < statistics.mean(summaries) < 38
    assert all(len(re.findall(r"[.!?](?: |$)", re.sub(r"\b(Mrs?|Ms|Dr)\.", "", e["summary"]))) <= 2 for e in TEST)


def test_speakers_take_turns_and_the_summary_names_them():
    for example in TRAIN:
        speakers = [who for who, _ in turns(example)]
        assert len(set(speakers)) == 2 and all(a != b for a, b in pairwise(speakers))
        assert all(who in example["summary"] for who in set(speakers) - {"Clerk", "Receptionist"})


def test_texts_are_clean():
    for example in TRAIN:
        for text in [said for _, said in turns(example)] + [example["summary"]]:
            assert text[0].isupper() and text[-1] in ".!?", text
            assert not re.search(r"[{}|\n]|  | [,.?!]|,,|\.\.|[.!?] [a-z]|\ba [aeiou]", text), text


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_every_scene_is_told_in_many_ways(scene):
    told = {scene(Talk(random.Random(i))) for i in range(40)}
    assert len(told) == 40


def test_all_scenes_occur():
    openings = {re.sub(r"\b[A-Z]\w+", "", example["summary"]) for example in TRAIN}
    assert len(SCENES) >= 20 and len(openings) > 1000


def test_copying_is_a_poor_summary():
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)

    def mean(copy):
        scores = [scorer.score(e["summary"], copy(e["dialogue"].split("\n")))["rouge1"].fmeasure for e in TEST]
        return statistics.mean(scores)

    assert mean(lambda lines: lines[0]) < 0.25
    assert mean(lambda lines: " ".join(lines[:3])) < 0.4
    assert mean(lambda lines: max(lines, key=len)) < 0.4
    assert mean(lambda lines: " ".join(lines)) < 0.4
    assert mean(lambda lines: " ".join(lines[-3:])) < 0.4


def test_what_was_first_said_is_often_not_what_is_agreed():
    days = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
    wrong = 0
    for example in TEST:
        first, told = (re.search(days, example[name]) for name in ("dialogue", "summary"))
        wrong += bool(first and told and first[0] != told[0])
    assert wrong > len(TEST) * 0.5
