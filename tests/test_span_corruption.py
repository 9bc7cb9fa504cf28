"""Span corruption: nothing is lost, as much is left out as is asked, and chance is a function of its arguments."""

import itertools

import numpy as np
import pytest

from jaxft.data.span_corruption import corrupt, cut, noise, noise_mask, sentinels, span_corruption
from jaxft.errors import UsageError

MARKS = np.arange(999, 899, -1, dtype=np.int32)  # <extra_id_0> is the last token, as in T5
END = 1


class Words:
    """As much of a tokenizer as is needed."""

    eos_token_id = END

    def get_vocab(self):
        return {f"<extra_id_{n}>": int(mark) for n, mark in enumerate(MARKS)} | {"word": 5, "<extra_id_x>": 7}


def restored(prompt, completion):
    """The text that a prompt and its completion say together."""
    assert prompt[-1] == completion[-1] == END
    at = np.flatnonzero(np.isin(completion, MARKS))
    spans = {completion[a]: completion[a + 1 : b] for a, b in itertools.pairwise(at)}
    assert completion[at].tolist() == MARKS[: len(at)].tolist() and at[-1] == len(completion) - 2
    parts = [spans.pop(token) if token in spans else [token] for token in prompt[:-1]]
    assert not spans
    return np.concatenate(parts)


@pytest.mark.parametrize("length", [2, 3, 7, 20, 64, 256])
def test_nothing_is_lost(length):
    tokens = np.arange(10, 10 + length)
    for example in range(20):
        prompt, completion = corrupt(tokens, noise_mask(length, seed=0, example=example), MARKS, END)
        assert restored(prompt, completion).tolist() == tokens.tolist()


def test_the_example_of_the_paper():
    # "Thank you for inviting me to your party last week", with "for inviting" and "last" left out.
    mask = np.zeros(10, bool)
    mask[[2, 3, 8]] = True
    prompt, completion = corrupt(np.arange(10, 20), mask, MARKS, END)
    assert prompt.tolist() == [10, 11, 999, 14, 15, 16, 17, 998, 19, END]
    assert completion.tolist() == [999, 12, 13, 998, 18, 997, END]


@pytest.mark.parametrize("density, mean_span", [(0.15, 3.0), (0.5, 8.0), (0.3, 1.0), (0.95, 2.0)])
def test_as_many_tokens_and_spans_as_asked(density, mean_span):
    tokens, spans = noise(200, density, mean_span)
    assert tokens == round(200 * density)
    for example in range(50):
        mask = noise_mask(200, seed=1, example=example, density=density, mean_span=mean_span)
        starts = int(mask[0]) + int((mask[1:] & ~mask[:-1]).sum())
        assert mask.sum() == tokens and starts == spans  # spans never touch: they would be one
    if density < 0.9:
        assert tokens / spans == pytest.approx(mean_span, rel=0.05)


def test_every_place_is_left_out_as_often():
    masks = np.stack([noise_mask(40, seed=2, example=example) for example in range(4000)])
    share = masks.mean(axis=0)
    assert masks[:, 0].any() and masks[:, -1].any()
    # 4,000 draws of probability 0.15: 5 standard deviations are 0.028.
    np.testing.assert_allclose(share[3:-3], share[3:-3].mean(), atol=0.028)
    assert share.mean() == pytest.approx(0.15)


def test_chance_is_a_function_of_seed_example_and_epoch():
    def draw(**changed):
        return noise_mask(100, **({"seed": 3, "example": 5, "epoch": 1} | changed)).tolist()

    assert draw() == draw()
    others = [draw(seed=4), draw(example=6), draw(epoch=2), draw(seed=5, example=3)]
    assert all(other != draw() for other in others)


def test_examples_have_the_same_lengths_in_every_epoch():
    pieces = cut(np.arange(10, 610), 256)
    assert [len(piece) for piece in pieces] == [200, 200, 200]
    examples = span_corruption(pieces, Words(), seed=0, epochs=range(2))
    assert len(examples) == 6 and len({example.id for example in examples}) == 6
    for first, second, piece in zip(examples[:3], examples[3:], pieces, strict=True):
        assert len(first.prompt) == len(second.prompt) and first.prompt.tolist() != second.prompt.tolist()
        assert restored(second.prompt, second.completion).tolist() == piece.tolist()


def test_short_texts_are_left_out_and_long_ones_cut():
    assert cut([1] * 7, 100) == []
    assert np.concatenate(cut(np.arange(10, 110), 33)).tolist() == list(range(10, 110))


def test_what_cannot_be_done_is_refused():
    class Plain(Words):
        def get_vocab(self):
            return {"word": 5}

    with pytest.raises(UsageError, match="no sentinels"):
        sentinels(Plain())
    with pytest.raises(UsageError, match="cut the text in pieces"):
        corrupt(np.arange(10, 410), np.arange(400) % 2 == 0, MARKS, END)
    for wrong in ({"length": 1}, {"length": 9, "density": 1.0}, {"length": 9, "mean_span": 0.5}):
        with pytest.raises(UsageError, match="span corruption"):
            noise(**wrong)
