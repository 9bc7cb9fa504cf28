"""What is dropped repeats what is kept, and nothing that repeats is kept."""

import subprocess
import sys

import numpy as np
import pytest
from tiny_tokenizer import tiny_tokenizer

from jaxft.data import Format, encode
from jaxft.data.cleaning import contents, deduplicate, repeated
from jaxft.data.ngrams import words
from jaxft.errors import UsageError


def random_text(draw, size=60, vocabulary=3000):
    return " ".join(f"word{i}" for i in draw.integers(0, vocabulary, size))


def jaccard(one, other):
    sets = [{tuple(w[i : i + 5]) for i in range(max(len(w) - 4, 1))} for w in (words(one), words(other))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def edited(draw, text, edits):
    parts = text.split()
    for i in draw.integers(0, len(parts), edits):
        parts[i] = f"new{draw.integers(10_000)}"
    return " ".join(parts)


def test_exact_duplicates_are_those_after_white_space_and_case():
    kept, report = deduplicate(["A  b\n", "c", "a B", "a, b", "", "C "])
    assert kept.tolist() == [0, 1, 3, 4]
    assert (report.exact, report.near, report.texts) == (2, 0, 6)
    assert [found[:2] for found in report.found] == [(2, 0), (5, 1)]
    assert "2 exact and 0 near duplicates in 6 texts (first: text 3 repeats text 1 (100%)" in str(report)
    assert "train.jsonl:3 repeats train.jsonl:1" in report.describe(lambda i: f"train.jsonl:{i + 1}", count=1)


def test_near_duplicates_are_exactly_the_pairs_above_the_threshold():
    """Against the comparison of all pairs: no false one at all, and none missed that is above the threshold."""
    draw = np.random.default_rng(0)
    texts = [random_text(draw) for _ in range(60)]
    texts += [edited(draw, texts[i % 60], 1 + i % 4) for i in range(90)]
    kept, report = deduplicate(texts, near=0.6)
    expected, found = [], {}
    for i, text in enumerate(texts):
        match = next((j for j in expected if jaccard(text, texts[j]) >= 0.6), None)
        if match is None:
            expected.append(i)
        else:
            found[i] = match
    assert 60 < len(expected) < 140, "the test has pairs on both sides of the threshold"
    assert kept.tolist() == expected
    assert {one.dropped: one.kept for one in report.found} == found
    for one in report.found:
        assert one.similarity == pytest.approx(jaccard(texts[one.dropped], texts[one.kept]))


def test_hardly_a_pair_at_the_threshold_is_missed():
    draw = np.random.default_rng(1)
    texts, pairs = [], 0
    while pairs < 200:
        text = random_text(draw, 100)
        other = edited(draw, text, 2)
        if 0.8 <= jaccard(text, other) < 0.86:
            texts += [text, other]
            pairs += 1
    # A chance of 0.2 % each at 0.8, less above.
    assert deduplicate(texts, near=0.8)[1].near >= pairs - 4


def test_the_first_is_kept_and_chains_are_not_swallowed():
    """B is like A and C like B, but C is not like A: C repeats nothing that is kept."""
    base = [f"w{i}" for i in range(50)]
    a, b, c = (" ".join(base[i : i + 40]) for i in (0, 5, 10))
    assert jaccard(a, b) > 0.7 > jaccard(a, c)
    assert deduplicate([a, b, c], near=0.7)[0].tolist() == [0, 2]


def test_repeated_compares_with_the_other_set_alone():
    draw = np.random.default_rng(2)
    train = [random_text(draw) for _ in range(20)]
    train.append(train[3])
    test = [random_text(draw), edited(draw, train[7], 1), train[3].upper()]
    test += [test[0], test[1]]
    report = repeated(test, train, near=0.7)
    assert [(one.dropped, one.kept) for one in report.found] == [(1, 7), (2, 3), (4, 7)]
    assert (report.texts, report.exact, report.near) == (5, 1, 2)
    assert [one.dropped for one in repeated(test, train).found] == [2]
    assert repeated(["a", "a"], []).found == repeated([], ["a"]).found == ()


def test_contents_are_the_texts_that_tell_rows_apart():
    rows = [
        {"id": "a1", "how": "Answer.", "q": "Who?", "choices": ["x", "y"], "label": 1, "more": {"note": "n"}},
        {"id": "a2", "how": "Answer.", "q": "Who?", "choices": ["x", "z"], "label": 0, "more": None},
    ]
    assert contents(rows) == ["x\ny\nn", "x\nz"]
    same = [{"id": str(i), "q": "Who?", "a": "Me."} for i in range(3)]
    assert contents(same) == ["Who?\nMe."] * 3, "where nothing differs, all is content"
    assert contents(same[:1]) == ["Who?\nMe."] and contents([]) == []
    assert deduplicate(contents(same))[1].exact == 2
    judged = [{"text": f"Sentence {i}.", "copy": f"Sentence {i}.", "label": ("good", "bad")[i % 2]} for i in range(40)]
    assert contents(judged) == [f"Sentence {i}." for i in range(40)], "a label says nothing, and nothing is said twice"


def test_short_empty_and_unspaced_texts():
    texts = [
        "",
        "Yes!",
        "yes",
        "no",
        "...",
        "?",
        "東京は日本の首都です。",
        "東京は日本の首都です!",
        "大阪は日本の都市です。",
    ]
    kept, report = deduplicate(texts, near=0.8)
    assert [(one.dropped, one.kept) for one in report.found] == [(2, 1), (7, 6)]
    assert kept.tolist() == [0, 1, 3, 4, 5, 6, 8], "texts without a word are not alike"
    assert deduplicate([], near=0.8)[0].tolist() == []
    assert deduplicate(["", "?"], near=0.8)[0].tolist() == [0, 1]


def test_a_broken_surrogate_is_text_like_any_other():
    assert deduplicate(["a \ud800 b", "A \ud800 b", "c"], near=0.5)[0].tolist() == [0, 2]


def test_another_process_finds_the_same():
    program = (
        "from jaxft.data.cleaning import deduplicate\n"
        "texts = [' '.join(str((i * j) % 97) for j in range(30)) for i in range(200)]\n"
        "print(deduplicate(texts, near=0.3)[1].found)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
        for env in ({"PYTHONHASHSEED": "1", "PYTHONPATH": "."}, {"PYTHONHASHSEED": "2", "PYTHONPATH": "."})
    ]
    assert runs[0].stdout == runs[1].stdout and "Duplicate" in runs[0].stdout


@pytest.mark.parametrize("near", [-0.1, 1.5])
def test_a_threshold_that_is_no_similarity_is_refused(near):
    with pytest.raises(UsageError, match="no Jaccard similarity"):
        deduplicate(["a"], near=near)


@pytest.mark.parametrize(("similarity", "left"), [(None, [0, 1, 2, 3]), (1.0, [0, 1, 3]), (0.5, [0, 3])])
def test_encoding_leaves_out_rows_that_repeat_others_and_counts_them(similarity, left):
    numbers = [str(i) for i in range(30)]
    nearly = " ".join([*numbers[:-1], "else"])
    rows = [{"q": " ".join(numbers), "a": "1"}, {"q": nearly, "a": "2"}, {"q": "  ".join(numbers), "a": "1"},
            {"q": "other", "a": "3"}]  # fmt: skip
    examples, report = encode(rows, Format("q", "a"), tiny_tokenizer("bos"), max_length=999, deduplicate=similarity)
    assert [example.id for example in examples] == [f"rows:{i}" for i in left]
    assert report.repeats == 4 - len(left) and ("that repeat others" in str(report)) == (len(left) < 4)
