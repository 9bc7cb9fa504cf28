"""What is said of a set of examples is what is in it."""

import numpy as np
import pytest

from jaxft.data.encoding import Encoded
from jaxft.data.statistics import characters, lengths, repeated_lines, statistics


def example(prompt, completion, **fields):
    return Encoded("x", np.zeros(prompt, np.int32), np.zeros(completion, np.int32), **fields)


def test_a_histogram_holds_everything_once_between_round_edges():
    draw = np.random.default_rng(0)
    for most in (0, 1, 7, 99, 100, 101, 12_345):
        values = draw.integers(0, most + 1, 500)
        values[0] = most
        found = lengths(values)
        assert sum(found.counts) == 500 and len(found.counts) == len(found.edges) - 1 <= 13
        for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
            assert count == ((values >= low) & (values < high)).sum()
        width = found.edges[1]
        assert str(width).rstrip("0") in ("1", "15", "2", "25", "3", "4", "5") and set(np.diff(found.edges)) == {width}
        assert found[:4] == (values.mean(), np.median(values), np.percentile(values, 95), most)
    assert lengths([]).counts == (0,)


def test_scripts_digits_and_lines():
    assert characters(["Ärger, naïve, ǅ, ﬁ: 12"])[1:] == (2 / 22, 0.0)
    assert characters(["Привет a", "你好", "مرحبا"]).outside_latin == pytest.approx(13 / 14)
    assert characters(["", "!? ", "٣"]) == (4, 0.25, 0.0)
    assert repeated_lines(["a\n a \nb\n\n\n", "a"]) == 0.25 and repeated_lines([""]) == 0


def test_tasks_are_apart_the_largest_first():
    yes_no, learnt = ("yes", "no"), np.array([1, 0, 0, 1], bool)
    examples = [
        example(3, 2, task="a", template="t1", choices=yes_no, references=("yes",)),
        example(9, 4, task="b", references=("one",)),
        example(5, 2, task="a", template="t2", choices=yes_no, references=("yes",)),
        example(7, 2, task="b", references=("two",), choices=("one", "two")),
        example(1, 4, task="a", template="t1", choices=yes_no, references=("no",), counted=learnt),
    ]
    found = statistics(examples, {"a": ["12"]})
    assert list(found) == ["a", "b"]
    assert found["a"].labels == {"yes": 2, "no": 1} and found["a"].templates == {"t1": 2, "t2": 1}
    assert found["a"].target_tokens == 6 and found["a"].prompt.mean == 3
    assert found["a"].distinct_completions == pytest.approx(2 / 3)
    assert found["b"].labels == {}, "choices that differ have no balance"
    assert found["a"].characters.digits == 1 and found["b"].characters is None and found["b"].repeated_lines is None
