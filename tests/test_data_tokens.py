"""Prompts and completions are tokenised apart, with the special tokens each kind of model expects."""

import os
from pathlib import Path

import pytest
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.templates import Format, Rendered
from jaxft.data.tokens import encode_prompts, encode_texts
from jaxft.errors import UsageError

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
PLAIN, CHAT = Format("x", "y"), Format("x", "y", chat=True)


def pair(tokenizer, format=PLAIN, completion="cd", **options):
    tokens = encode_texts([Rendered("ab", (completion, "other"), None)], tokenizer, format.chat, **options)[0]
    return tuple(map(tokenizer.convert_ids_to_tokens, (tokens.prompt, tokens.completion)))


@pytest.mark.parametrize(
    ("around", "encoder_decoder", "prompt"),
    [("", False, "a b"), ("bos", False, "<s> a b"), ("eos", False, "a b"), ("both", False, "<s> a b"),
     ("eos", True, "a b </s>"), ("", True, "a b"), ("both", True, "<s> a b </s>")],
)  # fmt: skip
def test_the_prompt_keeps_the_tokenizers_own_special_tokens_but_never_an_end_before_a_completion(
    around, encoder_decoder, prompt
):
    tokens = pair(tiny_tokenizer(around), encoder_decoder=encoder_decoder)
    assert tokens == (prompt.split(), ["c", "d", "</s>"])


def test_a_start_token_that_is_also_the_end_token_stays():
    tokenizer = tiny_tokenizer("bos", eos="<s>")
    assert pair(tokenizer) == (["<s>", "a", "b"], ["c", "d", "<s>"])


def test_the_end_token_is_written_once():
    assert pair(tiny_tokenizer(), completion="cd</s>")[1] == ["c", "d", "</s>"]
    end = tiny_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert pair(tiny_tokenizer(), completion="cd<|im_end|>", eos_token_ids=[end])[1] == ["c", "d", "<|im_end|>"]


def test_an_empty_completion_gets_no_end_token():
    assert pair(tiny_tokenizer(), completion="")[1] == []


def test_chat_adds_no_special_tokens_but_the_templates():
    tokenizer = tiny_tokenizer("both", eos="<|im_end|>", chat_template=CHATML)
    prompt, completion = pair(tokenizer, CHAT)
    assert prompt[0] == "<|im_start|>" and "<s>" not in prompt and prompt.count("<|im_end|>") == 1
    assert completion == ["c", "d", "<|im_end|>"]


def test_generation_sees_the_prompts_of_training():
    rows = [{"x": "ab", "y": "cd"}, {"x": "ä 9", "y": "z"}]
    for tokenizer, format, other in (
        (tiny_tokenizer("both"), PLAIN, False),
        (tiny_tokenizer("eos"), PLAIN, True),
        (tiny_tokenizer("bos", chat_template=CHATML), CHAT, False),
    ):
        rendered = [Rendered(row["x"], (row["y"],), None) for row in rows]
        trained = [tokens.prompt for tokens in encode_texts(rendered, tokenizer, format.chat, other)]
        prompts = encode_prompts([{"x": row["x"]} for row in rows], format, tokenizer, encoder_decoder=other)
        assert [ids.tolist() for ids in prompts] == trained


def test_what_cannot_be_tokenised_is_refused():
    with pytest.raises(UsageError, match="chat templates are for decoder-only models"):
        pair(tiny_tokenizer(chat_template=CHATML), CHAT, encoder_decoder=True)
    with pytest.raises(UsageError, match="names no end-of-sequence token"):
        pair(tiny_tokenizer(eos=None))


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_real_tokenizers(name):
    if not (DATA / "tokenizers" / name).is_dir():
        pytest.skip(f"no {name} tokenizer in {DATA}: set JAXFT_DATA")
    from transformers import GPT2Tokenizer, T5Tokenizer

    tokenizer = (GPT2Tokenizer if name == "gpt2" else T5Tokenizer).from_pretrained(DATA / "tokenizers" / name)
    text = "translate English to German: The house is wonderful."
    rendered = [Rendered(text, (" Das Haus ist wunderbar.",), None)]
    prompt, completion, *_ = encode_texts(rendered, tokenizer, encoder_decoder=name == "t5")[0]
    if name == "t5":
        assert prompt == [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1] and completion[-1] == 1
        assert tokenizer.decode(completion) == "Das Haus ist wunderbar.</s>"
    else:
        assert tokenizer.decode(prompt + completion) == text + " Das Haus ist wunderbar.<|endoftext|>"
