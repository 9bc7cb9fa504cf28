"""One example as the model sees it: what is read is dim, what is learnt is green and stands between ⟦ and ⟧.

It is decoded from a batch's own arrays, so it shows the mask that the loss will use and not the one that was meant.

    console.print(show_example(batches.batch(0), tokenizer))
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.text import Text


def show_example(batch: Mapping[str, np.ndarray], tokenizer: Any, row: int = 0, max_characters: int = 1500) -> Text:
    """Return one row of a batch decoded, special tokens included, as a rich Text (`.plain` is the bare string).

    Of a row that holds several examples it is the first.
    Text that is read and not learnt is shortened in its middle beyond `max_characters`.
    """
    from rich.text import Text

    shown = Text()
    if "encoder_tokens" in batch:
        read = batch["encoder_tokens"][row][batch["encoder_segments"][row] == 1]
        shown.append(_shorten(tokenizer.decode(read.tolist()), max_characters), style="dim")
        shown.append("\n→ ")
        pieces = []
    else:
        pieces = [(int(batch["tokens"][row, 0]), False)]
    real = batch["segments"][row] == 1
    targets, weights = batch["targets"][row][real].tolist(), batch["weights"][row][real] > 0
    pieces += zip(targets, weights.tolist(), strict=True)
    for learnt, group in groupby(pieces, key=lambda piece: piece[1]):
        text = tokenizer.decode([token for token, _ in group])
        shown.append(f"⟦{text}⟧" if learnt else _shorten(text, max_characters), style="green" if learnt else "dim")
    return shown


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} […] {text[len(text) - limit // 2 :]}"
