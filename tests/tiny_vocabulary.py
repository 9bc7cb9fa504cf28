"""Tokenizers of few tokens, for models of few rows, of each of the kinds that files hold."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|end|>"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEHST0123456789.,:!?'-<>|_"
PAIRS = ["t h", "th e", "i n", "a n", "an d", "e r", "o n"]
CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
TEXTS = [
    "",
    "the inner band, and on!",
    "  two  spaces 123 4 ",
    "<|user|>Hello there<|end|>",
    "a\nb the\n\nd",
    "Tha's <pad> x",
]


def byte_level(pad="<pad>", bos=False):
    """Byte-level BPE of 70 tokens, of which one is added and not special; `bos`: a text begins with it."""
    letters = [*LETTERS, "\u0120", "\u010a"]
    merges = [*PAIRS, "\u0120 the", "\u0120 a"]
    tokens = [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in merges)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.add_tokens([AddedToken("<|note|>", normalized=False)])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token=pad, chat_template=CHAT
    )


def sentencepiece_like(prefix=True):
    """BPE as Llama 2, Mistral and Phi 3 have it (`prefix`: a space before the text), or Gemma (none)."""
    space = "\u2581"
    merges = [f"{space} {space}", *PAIRS, f"{space} the", f"{space} a"]
    pieces = [merge.replace(" ", "") for merge in merges]
    tokens = [*SPECIAL[:4], "<0x0A>", *SPECIAL[4:], *LETTERS, space, *pieces]
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in merges],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    steps = [normalizers.Prepend(space)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", space)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    steps = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def unigram():
    """A unigram as T5 has it, with two sentinels."""
    words = [("\u2581", -2.0), ("\u2581the", -3.0), ("the", -4.0), ("in", -4.5), ("and", -4.0), ("\u2581a", -4.2)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, *((letter, -6.0) for letter in LETTERS)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.add_special_tokens([AddedToken(f"<extra_id_{i}>", normalized=False) for i in (1, 0)])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", extra_special_tokens=[]
    )
