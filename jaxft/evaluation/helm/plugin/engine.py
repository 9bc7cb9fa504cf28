"""A model that answers HELM's kinds of requests in batches; it knows nothing of crfm-helm itself.

A request asks for new text (greedy, or drawn), or with `echo` and no new tokens for the log-probability of each of its
prompt's tokens, by which HELM ranks choices. Greedy requests share batches; what is drawn depends on the request alone.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft.errors import UsageError
from jaxft.generation import prompts as shapes
from jaxft.generation.generate import generate
from jaxft.generation.likelihood import CHUNK, score
from jaxft.models import T5


class Ask(NamedTuple):
    """A request. `messages` (role and content each) stand for the prompt in a chat; `random` varies what is drawn."""

    prompt: str
    messages: tuple[Mapping[str, str], ...] = ()
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    echo: bool = False
    random: str | None = None


class Said(NamedTuple):
    """A text and its tokens, each with its log-probability; an end token is no part of either."""

    text: str
    tokens: tuple[tuple[str, float], ...]


class Engine:
    """A loaded model with its adapter, if there is one; `chat` sends prompts as a user's turn."""

    def __init__(self, source: str, adapter: str | None = None, chat: bool = False, batch_size: int = 16):
        from jaxft.methods.peft import adapted
        from jaxft.pretrained import load

        self.model = load(source)
        if self.model.tokenizer is None:
            raise UsageError(f"{source} has no tokenizer: add its files to the directory")
        method, trainable, frozen = adapted(self.model, adapter)
        self.variables = method.bind(trainable, frozen)
        self.chat, self.batch_size = chat, batch_size
        self._seq2seq = isinstance(self.model.architecture, T5)

    def __call__(self, asked: Sequence[Ask]) -> list[list[Said]]:
        """Return the texts of each request; raises UsageError for one that does not fit."""
        prompts = [self._ids(one) for one in asked]
        written: list[list[list[int]]] = [[[] for _ in range(one.samples)] for one in asked]
        greedy: dict[int, list[int]] = {}
        for i, one in enumerate(asked):
            if one.max_tokens and one.temperature > 0:
                written[i] = self._drawn(one, prompts[i])
            elif one.max_tokens:
                greedy.setdefault(one.max_tokens, []).append(i)
        for tokens, places in greedy.items():
            for i, ids in zip(places, self._generate([prompts[i] for i in places], tokens), strict=True):
                written[i] = [ids] * asked[i].samples
        rows = [(prompts[i], ids, asked[i].echo) for i, some in enumerate(written) for ids in some]
        said = iter(self._said(rows))
        return [[next(said) for _ in some] for some in written]

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return self.model.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _ids(self, one: Ask) -> list[int]:
        tokenizer = self.model.tokenizer
        if self.chat or one.messages:
            messages = [*map(dict, one.messages)] or [{"role": "user", "content": one.prompt}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return self.tokenize(text)
        if one.echo and self._seq2seq:
            raise UsageError("an encoder-decoder gives no log-probabilities of its prompt: use a generation adapter")
        return shapes.token_ids(self.model, [one.prompt], "prompt")[0]

    def _generate(self, prompts: Sequence[list[int]], tokens: int, **options: Any) -> list[list[int]]:
        settings: Any = {"max_new_tokens": tokens, "batch_size": self.batch_size, "return_tokens": True}
        ends = self.model.config.eos_token_ids
        found = generate(self.model, self.variables, prompts, **settings, **options)
        return [ids[:-1] if ids and ids[-1] in ends else ids for ids in found]

    def _drawn(self, one: Ask, prompt: list[int]) -> list[list[int]]:
        digest = hashlib.sha256(repr((one.prompt, one.messages, one.random)).encode()).digest()
        key = jax.random.key(int.from_bytes(digest[:4], "big"))
        options = {"temperature": one.temperature, "top_p": one.top_p, "key": key}
        return self._generate([prompt] * one.samples, one.max_tokens, **options)

    def _said(self, rows: Sequence[tuple[list[int], list[int], bool]]) -> list[Said]:
        tokenizer, found = self.model.tokenizer, []
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            chances = token_log_probs(self.model, self.variables, [row[0] for row in some], [row[1] for row in some])
            for (prompt, new, echo), (before, after) in zip(some, chances, strict=True):
                ids = [*prompt, *new] if echo else new
                values = [*before, *after] if echo else after
                texts = [tokenizer.decode([i]) for i in ids]
                text = tokenizer.decode(ids, skip_special_tokens=True)
                found.append(Said(text, tuple(zip(texts, map(float, values), strict=True))))
        return found


def token_log_probs(
    model: Any, variables: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[tuple[list[float], list[float]]]:
    """Return for each pair the log-probabilities of the prompt's tokens and of the completion's.

    The first token of a prompt, which nothing predicts, has 0, as have all prompt tokens of an encoder-decoder. A
    completion may be empty.
    """
    seq2seq = isinstance(model.architecture, T5)
    count = shapes.padded_rows(len(prompts), len(prompts))
    if seq2seq:
        begin = model.config.decoder_start_token_id
        rows = [[begin, *completion] for completion in completions]
        batch = shapes.pad(rows, count) | shapes.pad(prompts, count, "encoder_")
    else:
        rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        shapes.check_lengths(model, variables, [len(row) for row in rows], [0] * len(rows))
        batch = shapes.pad(rows, count)
    length = batch["tokens"].shape[1]
    places = [i * length + t for i, row in enumerate(rows) for t in range(len(row) - 1)]
    wanted = [token for row in rows for token in row[1:]]
    size = shapes.bucket(len(places), CHUNK)
    at, targets = np.zeros(size, np.int32), np.zeros((size, 1), np.int32)
    at[: len(places)], targets[: len(places), 0] = places, wanted
    batch |= {"at": at, "targets": targets, "used": np.array(len(places), np.int32)}
    values = iter(np.asarray(score(model.architecture, variables, batch)[0])[: len(places), 0].tolist())
    found = []
    for prompt, row in zip(prompts, rows, strict=True):
        own = [0.0, *(next(values) for _ in row[1:])]
        found.append(([0.0] * len(prompt), own[1:]) if seq2seq else (own[: len(prompt)], own[len(prompt) :]))
    return found


@functools.lru_cache(maxsize=4)
def _loaded(source: str, adapter: str | None, chat: bool, batch_size: int) -> Engine:
    return Engine(source, adapter, chat, batch_size)


_LOADING = threading.Lock()


def engine(source: str, adapter: str | None = None, chat: bool = False, batch_size: int = 16) -> Engine:
    """Return the engine of these settings; it is loaded once, whichever thread asks first."""
    with _LOADING:
        return _loaded(source, adapter, chat, batch_size)
