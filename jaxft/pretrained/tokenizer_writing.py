"""A tokenizer as GGUF metadata: the way back of `tokenizer.from_gguf`.

    to_gguf(model.tokenizer, model.config)["tokenizer.ggml.pre"]         # "smollm"

GGUF names the rule that cuts a text into words instead of holding it, and knows few ways to normalise: a tokenizer
that does something else is refused, since llama.cpp would cut other tokens.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jaxft.errors import UsageError
from jaxft.pretrained.tokenizer import CONTROL, CUTS, ROWLESS, UNUSED, USER_DEFINED, WHOLE_WORDS, check_rows

NORMAL, UNKNOWN, BYTE = 1, 2, 6
# The first name of every cut, with and without the whole words: names of llama.cpp's for the same rule.
NAMES = {(cut, name in WHOLE_WORDS): name for name, cut in reversed(CUTS.items())}
REMEDY = "write --format hf, and convert that directory with llama.cpp's convert_hf_to_gguf.py"
SPACE = "\u2581"  # SentencePiece's


def to_gguf(tokenizer: Any, config: Any) -> dict[str, Any]:
    """Return the metadata of a tokenizer of a model with `config`, a token for every row of the embedding.

    Raises `UsageError` for a tokenizer that GGUF cannot describe, `Error` for one with more tokens than rows.
    """
    check_rows(tokenizer, config.vocab_size, "GGUF")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UsageError(f"GGUF cannot hold a {type(tokenizer).__name__}, which has no tokenizer.json; {REMEDY}")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = state["model"].get("type")
    if kind == "Unigram":
        made = _unigram(state)
    elif kind == "BPE":
        made = _sentencepiece_bpe(state) if state["model"]["byte_fallback"] else _byte_level(state)
    else:
        raise UsageError(f"GGUF has no tokenizer of the kind {kind}; {REMEDY}")
    tokens, types = _tokens(state, config.vocab_size)
    made |= {"tokens": tokens, "token_type": types} | _special(tokenizer, config)
    if "scores" in made:
        made["scores"] = [made["scores"].get(token, -10000.0) for token in tokens]
    metadata = {f"tokenizer.ggml.{name}": value for name, value in made.items()}
    template = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    return metadata | ({"tokenizer.chat_template": template} if template else {})


def _tokens(state: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    model, added = state["model"], {token["content"]: token for token in state["added_tokens"]}
    unigram, bytes_too = model["type"] == "Unigram", bool(model.get("byte_fallback"))
    vocabulary = {row[0]: index for index, row in enumerate(model["vocab"])} if unigram else model["vocab"]
    vocabulary = vocabulary | {token: entry["id"] for token, entry in added.items()}
    # transformers takes [PAD...] for T5's sentinels.
    padding = "<unused{}>" if unigram else "[PAD{}]"
    tokens, types = [padding.format(row) for row in range(rows)], [UNUSED] * rows
    for token, index in vocabulary.items():
        if token in ROWLESS and index >= rows:
            continue
        tokens[index], types[index] = token, NORMAL
        if token in added:
            types[index] = CONTROL if added[token]["special"] else USER_DEFINED
        elif bytes_too and len(token) == 6 and token.startswith("<0x"):
            types[index] = BYTE
        elif token == model.get("unk_token") or (unigram and index == model["unk_id"]):
            types[index] = UNKNOWN
        if types[index] == USER_DEFINED and not unigram and bytes_too:
            tokens[index] = token.replace(SPACE, " ")  # compared with the text as it is written
    return tokens, types


def _special(tokenizer: Any, config: Any) -> dict[str, Any]:
    begin, end = _around(tokenizer)
    ends = list(config.eos_token_ids)
    own = tokenizer.eos_token_id
    eos = own if own is not None and (own in ends or not ends) else next(iter(ends), None)
    others = [token for token in ends if token != eos]
    begins = getattr(config, "bos_token_id", None) if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    made = {
        "bos_token_id": begins,
        "eos_token_id": eos,
        "eot_token_id": others[0] if others else None,
        "eom_token_id": others[1] if len(others) > 1 else None,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
        "add_bos_token": begin,
        "add_eos_token": end,
    }
    return {name: value for name, value in made.items() if value is not None}


def _around(tokenizer: Any) -> tuple[bool, bool]:
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for begin in (False, True):
        for end in (False, True):
            if [bos] * begin + bare + [eos] * end == whole:
                return begin, end
    raise UsageError(f"GGUF cannot say what this tokenizer puts around a text ({whole} for {bare}); {REMEDY}")


def _byte_level(state: Mapping[str, Any]) -> dict[str, Any]:
    for step in _steps(state["normalizer"], "normalizers"):
        if step["type"] != "NFC":  # which llama.cpp leaves out
            raise UsageError(f"GGUF has no tokenizer that normalises by {step['type']}; {REMEDY}")
    cut = _cut(list(_steps(state["pre_tokenizer"], "pretokenizers")))
    name = NAMES.get((cut, bool(state["model"].get("ignore_merges"))))
    if name is None:
        raise UsageError(f"GGUF has no name for the rule by which this tokenizer cuts a text ({cut}); {REMEDY}")
    return {"model": "gpt2", "pre": name, "merges": _merges(state)}


def _cut(steps: list[Mapping[str, Any]]) -> str | None:
    last = steps[-1] if steps else {}
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        first, words = steps[:-1], last.get("use_regex", True)
        if words and not first:
            return None
        if words and [step["type"] for step in first] == ["Digits"] and first[0]["individual_digits"]:
            return "digits"
        if not words and len(first) == 1 and first[0].get("behavior") == "Isolated" and not first[0]["invert"]:
            return first[0]["pattern"].get("Regex", first[0]["pattern"].get("String"))
    return ", ".join(step["type"] for step in steps) or "none"


def _sentencepiece_bpe(state: Mapping[str, Any]) -> dict[str, Any]:
    prefix = False
    for step in _steps(state["normalizer"], "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == SPACE:
            prefix = True
        elif step["type"] != "Replace" or (step["pattern"], step["content"]) != ({"String": " "}, SPACE):
            raise UsageError(f"GGUF has no tokenizer that normalises by {step['type']}; {REMEDY}")
    for step in _steps(state["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace" and step["replacement"] == SPACE:
            prefix = prefix or step["prepend_scheme"] != "never"
        elif step["type"] != "Split" or step["pattern"] != {"String": " "}:  # where every space is SPACE already
            raise UsageError(f"GGUF has no such tokenizer that cuts by {step['type']}; {REMEDY}")
    # llama.cpp merges by the scores of what comes out, and looks at no list.
    scores = {token: 0.0 for token in state["model"]["vocab"] if len(token) == 1}
    for rank, merge in enumerate(_merges(state)):
        scores.setdefault(merge.replace(" ", "", 1), -float(rank))
    return {"model": "llama", "pre": "default", "add_space_prefix": prefix, "scores": scores}


def _unigram(state: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": "t5",
        "pre": "default",
        "scores": {row[0]: row[1] for row in state["model"]["vocab"]},
    }
    for step in _steps(state["normalizer"], "normalizers"):
        if step["type"] == "Precompiled":
            made["precompiled_charsmap"] = base64.b64decode(step["precompiled_charsmap"])
        elif step["type"] not in ("Replace", "Strip"):
            raise UsageError(f"GGUF has no tokenizer that normalises by {step['type']}; {REMEDY}")
    steps = {step["type"]: step for step in _steps(state["pre_tokenizer"], "pretokenizers")}
    if "Metaspace" not in steps or set(steps) - {"Metaspace", "WhitespaceSplit"}:
        raise UsageError(f"GGUF has no such tokenizer that cuts by {', '.join(steps) or 'nothing'}; {REMEDY}")
    return made | {
        "add_space_prefix": steps["Metaspace"]["prepend_scheme"] != "never",
        "remove_extra_whitespaces": True,
    }


def _merges(state: Mapping[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]


def _steps(step: Mapping[str, Any] | None, members: str) -> Iterator[Mapping[str, Any]]:
    if step is not None and step["type"] == "Sequence":
        for inner in step[members]:
            yield from _steps(inner, members)
    elif step is not None:
        yield step
