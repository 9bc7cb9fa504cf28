"""Generation that ends at stop strings, in pieces whose shapes are compiled once.

A token whose text holds a stop string ends a row like an end token. A stop string may also come of several tokens: so
text is written in pieces, and rows go on from their own text until they are done. An encoder-decoder, which cannot go
on from half an answer, writes in one piece.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxft.errors import UsageError, nearest
from jaxft.generation import generate
from jaxft.models import T5

PIECE = 64  # tokens
ROUND = 16  # batches whose rows go on together

# lm-eval's settings -> `generate`'s.
SETTINGS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "num_beams": "num_beams",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
}


def generation_settings(settings: Mapping[str, Any], backend: str) -> tuple[list[str], dict[str, Any]]:
    """Return the stop strings, and what `generate` is called with; `settings` are lm-eval's, normalised.

    Raises `UsageError` for a setting that `generate` does not have.
    """
    options = dict(settings)
    stops = [stop for stop in options.pop("until") if stop]
    drawn, known = options.pop("do_sample"), {}
    known["max_new_tokens"] = options.pop("max_gen_toks")
    for name, value in options.items():
        if name not in SETTINGS:
            raise UsageError(f"generation_kwargs: {name!r} is not supported{nearest(name, SETTINGS)}")
        known[SETTINGS[name]] = value
    if not drawn:
        for name in ("temperature", "top_k", "top_p"):
            known.pop(name, None)
    return stops, known


class Until:
    """`generate` with stop strings for one model."""

    def __init__(self, model: Any, variables: Any, max_length: int, batch_size: int):
        self.model, self.variables = model, variables
        self.max_length, self.batch_size = max_length, batch_size
        self._texts: list[str] | None = None

    def texts(
        self, contexts: Sequence[Sequence[int]], settings: Mapping[str, Any], key: jax.Array
    ) -> Iterator[tuple[list[int], list[str]]]:
        """Yield which `contexts` are done and their texts, the longest first; `settings` are lm-eval's, normalised.

        Contexts that leave no room for the new tokens lose their beginning. Raises `UsageError` for settings that are
        not supported and for more new tokens than the model's context.
        """
        stops, options = generation_settings(settings, "")
        limit = options.pop("max_new_tokens")
        room = self.max_length - (0 if isinstance(self.model.architecture, T5) else limit)
        if room < 1:
            raise UsageError(f"max_gen_toks: {limit} leaves no room in the model's context of {self.max_length}")
        whole = isinstance(self.model.architecture, T5) or options.get("num_beams", 1) > 1
        model = self._ending_at(stops)
        order = sorted(range(len(contexts)), key=lambda i: -len(contexts[i]))
        for start in range(0, len(order), ROUND * self.batch_size):
            which = order[start : start + ROUND * self.batch_size]
            prompts = [list(contexts[i][-room:]) for i in which]
            key, own = jax.random.split(key)
            yield which, self._written(model, prompts, stops, options, limit, limit if whole else PIECE, own)

    def _written(self, model, prompts, stops, options, limit, piece, key):
        written: list[list[int]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        while going:
            new = min(piece, limit - len(written[going[0]]))
            key, own = jax.random.split(key)
            rows = self._filled([prompts[i] + written[i] for i in going])
            options = {**options, "key": own, "batch_size": self.batch_size, "return_tokens": True}
            found = generate(model, self.variables, rows, max_new_tokens=new, **options)
            for i, ids in zip(going, found, strict=False):
                written[i] += ids
            going = [
                i for i, ids in zip(going, found, strict=False) if self._goes_on(model, written[i], ids, limit, stops)
            ]
        return [self._cut(ids, stops) for ids in written]

    def _filled(self, rows):
        devices = max(1, jax.sharding.get_abstract_mesh().size)  # rows are spread over them
        return rows + [rows[-1]] * (-len(rows) % devices)

    def _goes_on(self, model, written, last, limit, stops):
        if len(written) >= limit or last[-1] in model.config.eos_token_ids:
            return False
        text = self._decoded(written, special=False)
        return not any(stop in text for stop in stops)

    def _cut(self, ids, stops):
        text = self._decoded(ids, special=True)
        for stop in stops:
            text = text.split(stop)[0]
        return text

    def _decoded(self, ids, special):
        return self.model.tokenizer.decode(ids, skip_special_tokens=special)

    def _ending_at(self, stops):
        """Return the model with every token that holds a stop string among its end tokens."""
        tokenizer, config = self.model.tokenizer, self.model.config
        if self._texts is None:
            self._texts = tokenizer.batch_decode([[i] for i in range(min(len(tokenizer), config.vocab_size))])
        ends = {i for i, text in enumerate(self._texts) if any(stop in text for stop in stops)}
        ends = tuple(sorted({*ends, tokenizer.eos_token_id, *config.eos_token_ids} - {None}))
        architecture = self.model.architecture
        changed = dataclasses.replace(architecture, config=dataclasses.replace(config, eos_token_ids=ends))
        return dataclasses.replace(self.model, architecture=changed)
