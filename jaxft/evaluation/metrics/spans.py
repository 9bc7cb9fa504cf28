"""Spans of text: SQuAD's exact match and F1, and entities found.

Entities are written as a list, `TYPE: text; TYPE: text`: parts are divided by `;` or a new line, type and text by the
first colon; types are compared without regard to case, texts as they are but for white space. `none` alone, or nothing,
is no entity. A part without type or text is an entity that is wrong.

>>> entities("PER: John Smith; loc:  New\\tYork; PER: John Smith")
Counter({('PER', 'John Smith'): 2, ('LOC', 'New York'): 1})
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jaxft.errors import UsageError
from jaxft.evaluation.metrics.overlap import Counted, References, reference_count

SQUAD = ("squad_em", "squad_f1")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad(predictions: Sequence[str], references: References) -> Mapping[str, Counted]:
    """Count SQuAD's exact matches and F1 of words, 0..1, of the best reference (Rajpurkar et al. 2016).

    Texts are compared in lower case, without ASCII punctuation, the words a, an and the, and repeated white space.
    Where either text is empty then, F1 is whether both are, as in SQuAD 2.0.
    """
    rows = np.array(
        [
            np.max([_squad_pair(normalised(text), normalised(one)) for one in texts], axis=0)
            for text, texts in zip(predictions, references, strict=True)
        ],
        np.float64,
    )
    policy = f"lower case, no punctuation, no articles|references:best of {reference_count(references)}"
    return {
        "squad_em": Counted(rows[:, :1], f"SQuAD EM|{policy}"),
        "squad_f1": Counted(rows[:, 1:], f"SQuAD F1|{policy}"),
    }


def normalised(text: str) -> str:
    """Return a text as SQuAD compares it.

    >>> normalised("The  U.S. Army, a force")
    'us army force'
    """
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def entity_f1(predictions: Sequence[str], references: References) -> Counted:
    """Count micro F1 over entities, (type, text) with their number of times; 0 where there are none at all.

    Of several references the one that a prediction agrees with best. Raises UsageError for a reference that has a part
    without type or text.
    """
    rows = []
    for i, (text, texts) in enumerate(zip(predictions, references, strict=True)):
        truths = [entities(one) for one in texts]
        if any(not (type and span) for truth in truths for type, span in truth):
            raise UsageError(f"entity_f1: a reference of example {i} is no list like 'PER: Ada; LOC: Paris' or 'none'")
        found = entities(text)
        counts = [((found & truth).total(), found.total(), truth.total()) for truth in truths]
        rows.append(max(counts, key=lambda count: 2 * count[0] / max(count[1] + count[2], 1)))
    policy = f"entity F1, micro|type and text|references:best of {reference_count(references)}"
    return Counted(np.array(rows, np.float64), policy, _f1)


def entities(text: str) -> Counter[tuple[str, str]]:
    """Return how often a text lists each entity, (TYPE, text); ("", part) stands for a part that is none."""
    parts = [" ".join(part.split()) for part in re.split(r"[;\n]", text)]
    if [part.casefold().rstrip(".") for part in parts if part] == ["none"]:
        return Counter()
    return Counter(_entity(part) for part in parts if part)


def _entity(part: str) -> tuple[str, str]:
    type, colon, span = part.partition(":")
    return (type.strip().upper(), span.strip()) if colon and type.strip() and span.strip() else ("", part)


def _squad_pair(text: str, reference: str) -> tuple[float, float]:
    words, wanted = text.split(), reference.split()
    if not words or not wanted:
        return float(words == wanted), float(words == wanted)
    return float(text == reference), 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))


def _f1(sums: np.ndarray, n: int) -> np.ndarray:
    both, found, true = sums.T
    return 2 * both / np.maximum(found + true, 1)
