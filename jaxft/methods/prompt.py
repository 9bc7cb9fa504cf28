"""Prompt tuning: learned embeddings before the input, and nothing else (Lester et al. 2021, arXiv:2104.08691).

With `hidden` units the embeddings come out of a small network while training, as in P-tuning (Liu et al. 2021,
arXiv:2103.10385); `finalize` throws it away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest
from jaxft.methods.method import Method, bound, fresh, whole_number
from jaxft.methods.reparameterise import generated, network

PLACES = {"encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}


def prompt(
    length: int = 20,
    initialise: str | Sequence[int | Sequence[int]] | Mapping[str, Any] = "vocabulary",
    place: str = "encoder",
    hidden: int = 0,
) -> Method:
    """Train `length` embeddings that stand before the input.

    Args:
        length: The number P of soft tokens; 20 to 100 suffice in the paper.
        initialise: "vocabulary" draws rows of the embedding table among its first 5,000 tokens, the most common ones;
            "random" is uniform in ±0.5. A list of token ids starts from a text: repeated or cut to `length`. A list of
            lists starts from class labels: a label of several tokens is their mean, and what is left of `length` is
            drawn as "vocabulary" is. In a recipe {"text": "..."} or {"labels": [...]}: `tokenised` makes lists of them.
        place: In an encoder-decoder, the side it is for: "encoder", "decoder" or "both".
        hidden: Width of the network that the embeddings are the output of while training; 0 for none.

    Raises `UsageError` for a length below 1, an unknown initialisation or a token id outside the vocabulary.
    """
    whole_number(length, "length")
    if isinstance(initialise, str) and initialise not in ("vocabulary", "random"):
        raise UsageError(f"method.initialise: {initialise!r}{nearest(initialise, ('vocabulary', 'random'))}")
    if isinstance(initialise, Mapping) and (len(initialise) != 1 or set(initialise) - {"text", "labels"}):
        raise UsageError(f"method.initialise: {dict(initialise)!r} is neither {{text: ...}} nor {{labels: [...]}}")
    if not isinstance(initialise, str) and not len(initialise):
        raise UsageError("method.initialise: the list of token ids is empty")
    if place not in PLACES:
        raise UsageError(f"method.place: unknown place {place!r}{nearest(str(place), PLACES)}")
    if hidden:
        whole_number(hidden, "hidden")

    def init(key, variables):
        table = variables["params"]["embedding"]

        def one(key):
            keys = jax.random.split(key)
            embedding = _initial(keys[0], table, length, initialise)
            return network(keys[1], embedding, hidden, table.shape[1]) if hidden else {"embedding": embedding}

        if "encoder" not in variables["params"]:
            return one(key), dict(variables)
        sides = PLACES[place]
        return dict(zip(sides, map(one, jax.random.split(key, len(sides))), strict=True)), dict(variables)

    def bind(trainable, frozen):
        if hidden:
            alone = "embedding" in trainable
            sides = {"": trainable} if alone else trainable
            made = {side: {"embedding": generated(tree)} for side, tree in sides.items()}
            trainable = made[""] if alone else made
        return bound(frozen, prompt=trainable)

    saved = {"name": "prompt", "length": length, "initialise": _plain(initialise), "place": place, "hidden": hidden}
    return Method(init, bind, saved)


def tokenised(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return a method's config in which the text or labels that a prompt starts from are token ids.

    A union's members are done alike; other configs come back as they are. Raises `UsageError` for text without tokens.
    """
    if "methods" in config:
        return {**config, "methods": [tokenised(member, tokenizer) for member in config["methods"]]}
    start = config.get("initialise")
    if not isinstance(start, Mapping):
        return dict(config)

    def ids(text):
        found = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if not found:
            raise UsageError(f"method.initialise: {text!r} has no tokens")
        return found

    rows = ids(start["text"]) if "text" in start else [ids(label) for label in start["labels"]]
    return {**config, "initialise": rows}


def _plain(initialise):
    if isinstance(initialise, str):
        return initialise
    if isinstance(initialise, Mapping):
        return dict(initialise)
    return [int(entry) if isinstance(entry, int) else [int(token) for token in entry] for entry in initialise]


def _initial(key, table, length, initialise):
    vocabulary, width = table.shape
    if isinstance(initialise, Mapping):
        raise UsageError("method.initialise: text needs the tokenizer; give token ids (jaxft.methods.prompt.tokenised)")
    if initialise == "random":
        return jax.random.uniform(key, (length, width), minval=-0.5, maxval=0.5)
    common = min(5000, vocabulary)
    drawn = fresh(table[jax.random.choice(key, common, (length,), replace=length > common)])
    if initialise == "vocabulary":
        return drawn
    rows = [[entry] if isinstance(entry, int) else list(entry) for entry in initialise]
    outside = [token for row in rows for token in row if not 0 <= token < vocabulary]
    if outside:
        raise UsageError(f"method.initialise: token {outside[0]} is outside the vocabulary of {vocabulary}")
    if not all(rows):
        raise UsageError("method.initialise: a class label has no tokens")
    means = jnp.stack([jnp.mean(fresh(table[jnp.asarray(row)]), axis=0) for row in rows])
    if all(isinstance(entry, int) for entry in initialise):
        return means[jnp.arange(length) % len(rows)]
    return jnp.concatenate([means, drawn])[:length]
