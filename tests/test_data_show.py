"""What is shown as learnt is what the weights of the batch say."""

import numpy as np
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.batches import Batches, collate
from jaxft.data.encoding import Encoded, encode
from jaxft.data.show import show_example
from jaxft.data.templates import Format

ROW = {"q": "Why?", "a": "Because."}


def shown(format, tokenizer, **kind):
    examples, _ = encode([ROW], format, tokenizer, max_length=100, encoder_decoder=bool(kind))
    return show_example(Batches(examples, 2, pad_token_id=0, **kind).batch(0), tokenizer)


def test_a_decoder_example():
    text = shown(Format("{{ q }} ", "a"), tiny_tokenizer("bos"))
    assert text.plain == "<s>Why? ⟦Because.</s>⟧"
    assert [(text.plain[s.start : s.end], s.style) for s in text.spans] == [
        ("<s>Why? ", "dim"), ("⟦Because.</s>⟧", "green")]  # fmt: skip


def test_an_encoder_decoder_example():
    assert (
        shown(Format("q", "a"), tiny_tokenizer("eos"), decoder_start_token_id=0).plain == "Why?</s>\n→ ⟦Because.</s>⟧"
    )


def test_a_chat_example():
    tokenizer = tiny_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    text = shown(Format("q", "a", chat=True), tokenizer).plain
    assert text == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n⟦Because.<|im_end|>⟧"


def test_it_shows_the_mask_of_the_batch_whatever_was_meant():
    tokenizer = tiny_tokenizer()
    a, b = (np.array(tokenizer.encode(text), np.int32) for text in ("abc", "def"))
    batch = collate([Encoded("x", a, b)], 1, (8,))
    batch["weights"][0] = [1, 0, 0, 1, 0, 0, 0, 0]
    assert show_example(batch, tokenizer).plain == "a⟦b⟧cd⟦e⟧f"


def test_long_prompts_are_shortened_in_the_middle_and_markup_is_text():
    tokenizer = tiny_tokenizer()
    examples, _ = encode(
        [{"q": "[red]" + "x" * 500 + "end", "a": "y" * 50}], Format("q", "a"), tokenizer, max_length=600
    )
    text = show_example(Batches(examples, 1).batch(0), tokenizer, max_characters=20).plain
    assert text == "[red]xxxxx […] xxxxxxxend⟦" + "y" * 50 + "</s>⟧"
