"""The own models' tokenizer: byte-level BPE, so that every text, newlines included, comes back as it was.

Ids as T5 has them: <pad> 0, </s> 1, <unk> 2 (never needed), the sentinels last, <extra_id_0> the very last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SIZE, SENTINELS = 4096, 100


def train_tokenizer(texts: Iterable[str], size: int = SIZE) -> Any:
    """Return a transformers tokenizer of `size` tokens, the sentinels among them; numbers are cut into digits."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - SENTINELS,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    marks = [f"<extra_id_{n}>" for n in reversed(range(SENTINELS))]
    backend.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=marks[::-1],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
