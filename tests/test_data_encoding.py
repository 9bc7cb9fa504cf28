"""Encoding keeps what fits, cuts what does not as stated, and counts every row."""

import pytest
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.encoding import encode
from jaxft.data.rows import Rows
from jaxft.data.templates import Format
from jaxft.errors import UsageError

FORMAT = Format("Q: {{ q }} A:", "a")
ROWS = Rows(
    [{"q": "x" * n, "a": "y" * m} for n, m in ((4, 3), (40, 3), (4, 40), (40, 40))], "train", places=list("abcd")
)


def lengths(examples):
    return [(len(e.prompt), len(e.completion)) for e in examples]


def test_what_fits_is_untouched_and_decodes_to_the_template():
    examples, report = encode(ROWS, FORMAT, tiny_tokenizer("bos"), max_length=100)
    texts = [tiny_tokenizer("bos").decode(list(e.prompt) + list(e.completion)) for e in examples]
    assert texts == [f"<s>Q: {row['q']} A:{row['a']}</s>" for row in ROWS]
    assert [e.id for e in examples] == ["train:0", "train:1", "train:2", "train:3"]
    assert all(e.prompt.dtype == e.completion.dtype == "int32" for e in examples)
    assert (report.rows, report.examples, report.max_prompt, report.max_completion) == (4, 4, 47, 41)
    assert report.mean_prompt == 29 and "cut" not in str(report) and "left out" not in str(report)


def test_truncation_keeps_the_start_the_instruction_and_the_words_before_the_answer():
    tokenizer = tiny_tokenizer("bos")
    examples, report = encode(ROWS, FORMAT, tokenizer, max_length=30, on_long="truncate")
    assert lengths(examples) == [(11, 4), (26, 4), (11, 19), (15, 15)]
    for example in examples:
        text = tokenizer.decode(example.prompt)
        assert text.startswith("<s>Q: x") and text.endswith("x A:")
    assert [bool(e.completion[-1] == tokenizer.eos_token_id) for e in examples] == [True, True, False, False]
    assert (report.truncated_prompts, report.truncated_completions, report.skipped) == (2, 2, 0)
    assert "cut 2 prompts and 2 completions (first: b, 47 prompt and 4 completion tokens)" in str(report)


def test_prompt_and_completion_have_bounds_of_their_own():
    options = {"max_length": 100, "max_prompt": 20, "max_completion": 10, "on_long": "truncate"}
    assert lengths(encode(ROWS, FORMAT, tiny_tokenizer(), **options)[0]) == [(10, 4), (20, 4), (10, 10), (20, 10)]


def test_an_encoder_decoder_bounds_each_side_and_keeps_the_end_of_the_prompt():
    tokenizer = tiny_tokenizer("eos")
    examples, _ = encode(ROWS, FORMAT, tokenizer, max_length=30, on_long="truncate", encoder_decoder=True)
    assert lengths(examples) == [(11, 4), (30, 4), (11, 30), (30, 30)]
    assert all(e.prompt[-1] == tokenizer.eos_token_id for e in examples)


@pytest.mark.parametrize("encoder_decoder", [False, True])
@pytest.mark.parametrize("max_length", range(2, 100, 7))
def test_nothing_is_longer_than_allowed_and_every_example_has_a_target(max_length, encoder_decoder):
    options = {"max_length": max_length, "on_long": "truncate", "encoder_decoder": encoder_decoder}
    for prompt, completion in lengths(encode(ROWS, FORMAT, tiny_tokenizer("bos"), **options)[0]):
        assert prompt >= 1 and completion >= 1
        assert (max(prompt, completion) if encoder_decoder else prompt + completion) <= max_length


def test_long_examples_are_refused_by_name_or_left_out_and_counted():
    with pytest.raises(UsageError, match=r"3 of 4 examples are too long for max_length 30 \(first: b, 46 prompt and 4"):
        encode(ROWS, FORMAT, tiny_tokenizer(), max_length=30)
    examples, report = encode(ROWS, FORMAT, tiny_tokenizer(), max_length=30, on_long="skip")
    assert [e.id for e in examples] == ["train:0"] and report.skipped == 3
    assert "left out 3 too long (first: b" in str(report)
    with pytest.raises(UsageError, match="no example is left of 4 rows: 0 bad, 4 too long"):
        encode(ROWS, FORMAT, tiny_tokenizer(), max_length=5, on_long="skip")


BAD = Rows([{"q": "x", "a": "y"}, {"q": "x", "a": None}, {"q": "x"}, {"q": "x", "a": " "}, {"q": "", "a": "z"}], "dev")


def test_bad_rows_are_refused_by_place_or_left_out_and_counted():
    with pytest.raises(UsageError, match=r"3 of 5 rows are bad \(first: dev row 2, the field 'a' is null\); mend them"):
        encode(BAD, FORMAT, tiny_tokenizer(), max_length=50)
    examples, report = encode(BAD, FORMAT, tiny_tokenizer(), max_length=50, on_bad="skip")
    assert [e.id for e in examples] == ["dev:0", "dev:4"]  # the template makes a prompt of an empty question
    assert (report.rows, report.examples, report.bad_rows, report.skipped) == (5, 2, 3, 0)
    assert "left out 3 bad rows (first: dev row 2, the field 'a' is null)" in str(report)


def test_a_field_that_no_row_has_is_the_templates_fault():
    with pytest.raises(UsageError, match="names no field of the data: 'question'"):
        encode(BAD, Format("{{ question }}", "a"), tiny_tokenizer(), max_length=50, on_bad="skip")
    with pytest.raises(UsageError, match=r"dev row 1: prompt template .* forbidden"):
        encode(BAD, Format("{{ q.__class__ }}", "a"), tiny_tokenizer(), max_length=50, on_bad="skip")


def test_all_references_are_kept_and_the_first_is_learnt():
    rows = [{"q": "x", "a": [" one", "two "]}]
    example = encode(rows, Format("q", " {{ a }}"), tiny_tokenizer(), max_length=50)[0][0]
    assert example.references == ("one", "two")
    assert tiny_tokenizer().decode(example.completion) == "  one</s>"


def test_chat_examples_are_the_rendered_conversation():
    tokenizer = tiny_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    example = encode([{"q": "Hi", "a": "Ho"}], Format("q", "a", chat=True), tokenizer, max_length=200)[0][0]
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
                                          tokenize=False)  # fmt: skip
    assert tokenizer.decode([*example.prompt, *example.completion]) == whole.rstrip("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"on_long": "cut"}, "on_long: unknown policy 'cut'"), ({"on_bad": "skipp"}, "did you mean 'skip'"),
     ({"max_length": 1}, "max_length: 1 leaves no room"), ({"max_completion": 0}, "max_completion: 0 leaves no room")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        encode(ROWS, FORMAT, tiny_tokenizer(), **{"max_length": 100} | options)
