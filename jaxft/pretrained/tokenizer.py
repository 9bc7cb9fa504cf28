"""Tokenizers as Hugging Face has them, from a model directory or from GGUF metadata (without torch).

A GGUF file holds the vocabulary, the merges, the special tokens and the chat template, and names the rest: the model
("gpt2" is byte-level BPE, "llama" SentencePiece's BPE, "t5" its unigram) and the rule that cuts a text into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import Error, UsageError, nearest

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json")
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
# Tokens that need no row of the embedding: Gemma 3's text models share a tokenizer with those that see.
ROWLESS = ("<image_soft_token>",)

# How texts are cut before BPE. None: GPT-2's own rule; "digits": each digit apart, then GPT-2's rule.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# Words by case: all but the last letters are large or have no case, the last ones are small or have none.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = tuple(rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}{a}{_LOWER}{b}" for a, b in (("*", "+"), ("+", "*")))
_TEKKEN = "|".join(_WORDS) + r"|\p{N}" + _REST
_GPT4O = "|".join(word + r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?" for word in _WORDS) + r"|\p{N}{1,3}" + _REST
CUTS = {
    **dict.fromkeys(("gpt-2", "default", "mpt", "olmo", "jais", "phi-2"), None),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "digits"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "smaug-bpe", "dbrx"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "tekken": _TEKKEN,
}
# With these llama.cpp takes a whole word that is in the vocabulary as it is, and begins with BOS.
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken")


def from_folder(folder: Path) -> Any | None:
    """Return the tokenizer that lies in a model directory, None where there is none; no code in it is run."""
    if not any((folder / name).is_file() for name in FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as problem:  # transformers and tokenizers raise many kinds
        reason = str(problem).strip().splitlines()
        raise Error(f"{folder}: the tokenizer cannot be read ({reason[0] if reason else problem!r})") from problem


def rows_needed(tokenizer: Any) -> int:
    """Return how many rows of an embedding the ids of `tokenizer` reach."""
    return 1 + max(index for token, index in tokenizer.get_vocab().items() if token not in ROWLESS)


def check_rows(tokenizer: Any, rows: int, where: str) -> None:
    """Raise `Error` if `tokenizer` has tokens beyond an embedding of `rows` rows."""
    needed = rows_needed(tokenizer) if hasattr(tokenizer, "get_vocab") else 0
    if needed > rows:
        raise Error(
            f"{where}: the tokenizer has {needed:,} tokens and the embedding {rows:,} rows; take the tokenizer that "
            "the weights were saved with (jaxft.add_tokens adds tokens and their rows)"
        )


def from_gguf(metadata: Mapping[str, Any], where: str) -> Any:
    """Return the tokenizer that GGUF metadata describes, with its chat template and special tokens.

    Raises `UsageError` for a kind of tokenizer that is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    kind = metadata.get("tokenizer.ggml.model")
    if kind not in BUILDERS:
        raise UsageError(f"{where}: tokenizer {kind!r} is not supported{nearest(str(kind), BUILDERS)}")
    try:
        backend = BUILDERS[kind](metadata, where)
        tokens = metadata["tokenizer.ggml.tokens"]
        _add_special(backend, tokens, metadata.get("tokenizer.ggml.token_type") or ())
        special = {
            f"{role}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
            for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
            if f"tokenizer.ggml.{key}_token_id" in metadata
        }
        _add_ends(backend, metadata, special)
    except Error:
        raise
    except Exception as problem:  # what the tokenizers library raises is no narrower
        raise Error(f"{where}: the tokenizer's metadata does not hold together ({problem!r})") from problem
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def _byte_level(metadata: Mapping[str, Any], where: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    cut_name = metadata.get("tokenizer.ggml.pre", "default")
    if cut_name not in CUTS:
        raise UsageError(f"{where}: pre-tokenizer {cut_name!r} is not supported{nearest(cut_name, CUTS)}")
    cut = CUTS[cut_name]
    kinds = metadata.get("tokenizer.ggml.token_type") or ()
    vocabulary = _byte_spelling(_used(metadata["tokenizer.ggml.tokens"], kinds), kinds)
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut_name in WHOLE_WORDS))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in (None, "digits"))
    first: list = []
    if cut == "digits":
        first = [pre_tokenizers.Digits(individual_digits=True)]
    elif cut is not None:
        first = [pre_tokenizers.Split(Regex(cut), behavior="isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    if cut is _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _used(tokens: list[str], kinds: Any) -> list[str]:
    # The list has an entry for every row of the embedding: those that only pad it, at the end, are no tokens.
    count = len(tokens)
    while count and len(kinds) == len(tokens) and kinds[count - 1] == UNUSED:
        count -= 1
    return tokens[:count]


def _byte_spelling(tokens: list[str], kinds: Any) -> dict[str, int]:
    # Vocabularies spell bytes in GPT-2's printable alphabet; a few hold the plain text of tokens instead. Control
    # and added tokens are matched in the text before any cut, and stay as they are.
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelling = bytes_to_unicode()
    alphabet = set(spelling.values())
    vocabulary = {}
    for index, token in enumerate(tokens):
        added = index < len(kinds) and kinds[index] in (CONTROL, USER_DEFINED)
        plain = not added and not alphabet.issuperset(token)
        vocabulary["".join(spelling[byte] for byte in token.encode()) if plain else token] = index
    return vocabulary


def _sentencepiece_bpe(metadata: Mapping[str, Any], where: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    kinds = metadata.get("tokenizer.ggml.token_type") or ()
    vocabulary = {token: index for index, token in enumerate(_used(metadata["tokenizer.ggml.tokens"], kinds))}
    if "tokenizer.ggml.merges" in metadata:
        merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    else:
        merges = _merges(vocabulary, metadata["tokenizer.ggml.scores"])
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True))
    # As SentencePiece does: the prefix comes before a text that begins with a space too.
    lead = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*lead, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(content=" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(vocabulary: Mapping[str, int], scores: list[float]) -> list[tuple[str, str]]:
    # SentencePiece merges the pair whose union scores best; as a list, that is every split of every token, best first.
    ranked = []
    for token, index in vocabulary.items():
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(left, right) for left, right in splits if left in vocabulary and right in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        ranked += [(scores[index], len(left), len(right), left, right) for left, right in known]
    ranked.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in ranked]


def _unigram(metadata: Mapping[str, Any], where: str) -> Any:
    from tokenizers import AddedToken
    from transformers import T5Tokenizer

    tokens, scores = list(metadata["tokenizer.ggml.tokens"]), metadata["tokenizer.ggml.scores"]
    sentinels = []
    if not any(token.startswith("<extra_id_") for token in tokens):
        # llama.cpp's converter pads the vocabulary with [PAD32000]... where T5 has them, the last one first.
        unnamed = [index for index, token in enumerate(tokens) if token.startswith("[PAD")][:100]
        sentinels = [f"<extra_id_{99 - count}>" for count in range(len(unnamed))]
        for index, sentinel in zip(unnamed, sentinels, strict=True):
            tokens[index] = sentinel
    used = len(_used(tokens, metadata.get("tokenizer.ggml.token_type") or ()))
    used = max(used, *(tokens.index(sentinel) + 1 for sentinel in sentinels[-1:]), 0)
    charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap")
    charsmap = None if charsmap is None else bytes(charsmap)
    pieces = list(zip(tokens, scores, strict=True))[:used]
    built = T5Tokenizer(pieces, _spm_precompiled_charsmap=charsmap, extra_ids=0, additional_special_tokens=[])
    backend = built.backend_tokenizer
    backend.add_special_tokens([AddedToken(sentinel, normalized=False, special=True) for sentinel in sentinels])
    return backend


BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece_bpe, "t5": _unigram}


def _add_special(tokenizer: Any, tokens: list[str], kinds: Any) -> None:
    from tokenizers import AddedToken

    def of(kind):
        marked = [token for token, k in zip(tokens, kinds, strict=False) if k == kind]
        return [AddedToken(token, normalized=False, special=kind == CONTROL) for token in marked]

    tokenizer.add_special_tokens(of(CONTROL))
    tokenizer.add_tokens(of(USER_DEFINED))


def _add_ends(tokenizer: Any, metadata: Mapping[str, Any], special: Mapping[str, str]) -> None:
    from tokenizers import processors

    kind = metadata["tokenizer.ggml.model"]
    begins = kind == "llama" or metadata.get("tokenizer.ggml.pre") in WHOLE_WORDS
    bos = special.get("bos_token") if metadata.get("tokenizer.ggml.add_bos_token", begins) else None
    eos = special.get("eos_token") if metadata.get("tokenizer.ggml.add_eos_token", kind == "t5") else None
    first, last = ([bos] if bos else []), ([eos] if eos else [])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{token}:1" for token in first), "$B:1", *(f"{token}:1" for token in last)],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {*first, *last}],
    )
