"""Ids from the cache are the tokenizer's own, whatever lies in the folder."""

import logging
import os

import numpy as np
import pytest
from tiny_tokenizer import tiny_tokenizer

from jaxft.data import caching
from jaxft.data.caching import cached_tokens, entry_key, prune, tokenise
from jaxft.data.encoding import encode
from jaxft.data.templates import Format

TEXTS = ["one", "", "two words", "drei 東京", "x" * 50]


@pytest.fixture
def calls(monkeypatch):
    """How many texts each call of the tokenizer gets."""
    seen = []

    def counted(tokenizer, texts, special):
        seen.append(len(texts))
        return tokenise(tokenizer, texts, special)

    monkeypatch.setattr(caching, "tokenise", counted)
    monkeypatch.setattr(caching, "SAMPLE", 2)
    return seen


def get(folder, texts=TEXTS, special=True, tokenizer=None, least=1):
    return cached_tokens(tokenizer or tiny_tokenizer("both"), texts, special, folder=folder, least=least)


def test_the_second_time_only_a_sample_is_tokenised(tmp_path, calls):
    plain = tokenise(tiny_tokenizer("both"), TEXTS, True)
    assert get(tmp_path) == plain and calls == [5]
    assert get(tmp_path) == plain and calls == [5, 3]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"], "no temporary file is left"
    with np.load(next(tmp_path.iterdir()), allow_pickle=False) as entry:
        assert set(entry) == {"ids", "ends", "key"}


def test_few_texts_are_not_kept(tmp_path, calls):
    assert get(tmp_path, least=100) == tokenise(tiny_tokenizer("both"), TEXTS, True)
    assert not list(tmp_path.iterdir()) and calls == [5]
    assert get(tmp_path, [], least=0) == []


def test_all_that_the_ids_depend_on_is_in_the_name():
    tokenizer = tiny_tokenizer("both")
    grown = tiny_tokenizer.__wrapped__("both")
    grown.add_tokens(["two"])
    names = [
        entry_key(tokenizer, TEXTS, True),
        entry_key(tokenizer, TEXTS, False),
        entry_key(tokenizer, [*TEXTS, ""], True),
        entry_key(tokenizer, TEXTS[::-1], True),
        entry_key(tokenizer, ["on", "e", *TEXTS[2:]], True),
        entry_key(tiny_tokenizer("bos"), TEXTS, True),
        entry_key(grown, TEXTS, True),
    ]
    assert len(set(names)) == len(names)
    assert entry_key(tiny_tokenizer.__wrapped__("both"), list(TEXTS), True) == names[0]


def rewrite(path, **changed):
    with np.load(path) as entry:
        arrays = dict(entry) | changed
    np.savez(path, **arrays)


def damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a flipped bit":
        at = content.index(np.array([1], np.int32).tobytes(), 100)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickled":
        np.savez(path, ids=np.array([[1], [2, 3]], object), ends=np.arange(5), key=np.array(path.stem))
    elif how == "ends beyond the ids":
        rewrite(path, ends=np.array([1, 2, 3, 4, 10_000], np.int64))
    elif how == "falling ends":
        rewrite(path, ends=np.array([9, 2, 3, 4, 5], np.int64))
    elif how == "too few texts":
        rewrite(path, ends=np.array([1], np.int64), ids=np.array([1], np.int32))
    elif how == "another type":
        rewrite(path, ids=np.array([0.5] * 5), ends=np.arange(1, 6))
    elif how == "another entry's content":
        rewrite(path, key=np.array("0" * 40))
    elif how == "other ids":
        with np.load(path) as entry:
            ids = entry["ids"]
        rewrite(path, ids=ids + np.int32(1))


HOW = ("truncated", "a flipped bit", "empty", "pickled", "ends beyond the ids", "falling ends", "too few texts",
       "another type", "another entry's content", "other ids")  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_a_broken_entry_is_made_again_and_told(tmp_path, caplog, how):
    plain = get(tmp_path)
    path = next(tmp_path.iterdir())
    before = path.read_bytes()
    damage(path, how)
    assert path.read_bytes() != before
    with caplog.at_level(logging.WARNING):
        assert get(tmp_path) == plain
    assert path.name in caplog.text and "tokenised again" in caplog.text
    caplog.clear()
    assert get(tmp_path) == plain and not caplog.text, "it was mended"


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert get(blocked / "tokens") == tokenise(tiny_tokenizer("both"), TEXTS, True)
    assert "could not be kept" in caplog.text or "not readable" in caplog.text


def test_what_was_unused_for_longest_goes_first(tmp_path):
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    for name, age in ((".abandoned.part", 1e9), (".being-written.part", None)):
        (tmp_path / name).write_bytes(b"x" * 1000)
        if age:
            os.utime(tmp_path / name, (age, age))
    prune(tmp_path, bound=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".being-written.part", "middle.npz", "new.npz"]
    get(tmp_path)
    used = next(path for path in tmp_path.glob("*.npz") if path.name not in ("middle.npz", "new.npz"))
    os.utime(used, (1, 1))
    get(tmp_path)
    assert used.stat().st_mtime > 1e9, "an entry that is used becomes young"


def test_encode_uses_it_by_default_for_many_rows(tmp_path, monkeypatch, calls):
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path))
    monkeypatch.setattr(caching, "LEAST", 12)
    rows = [{"q": f"How much is {i}?", "a": str(i)} for i in range(12)]
    first, _ = encode(rows, Format("q", "a"), tiny_tokenizer("bos"), max_length=100)
    assert len(list((tmp_path / "tokens").glob("*.npz"))) == 2
    again, _ = encode(rows, Format("q", "a"), tiny_tokenizer("bos"), max_length=100)
    assert calls.count(12) == 2, "prompts and completions, once each"
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.prompt, other.prompt)
        np.testing.assert_array_equal(one.completion, other.completion)


def test_a_slow_tokenizer_is_known_by_its_vocabulary():
    class Slow:
        special_tokens_map = {"eos_token": "</s>"}  # noqa: RUF012

        def __init__(self, vocabulary):
            self.vocabulary = vocabulary

        def get_vocab(self):
            return self.vocabulary

    keys = {entry_key(Slow(vocabulary), TEXTS, True) for vocabulary in ({"a": 0}, {"a": 1}, {"b": 0})}
    assert len(keys) == 3
