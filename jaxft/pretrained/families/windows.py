"""Which layers look how far back, as GGUF says it.

llama.cpp knows of a window in few architectures; there `attention.sliding_window_pattern` is a period p, of which
every last layer sees all, and what the architecture does by itself is left unsaid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxft.errors import UsageError
from jaxft.models import DecoderConfig
from jaxft.models.decoder import FULL, LOCAL

Kinds = Callable[[int], tuple[str, ...]]
PATTERN = "attention.sliding_window_pattern"


def every(count: int, last: str, others: str) -> Kinds:
    """Return the kinds of layers of which every `count`-th one is `last`."""
    return lambda layers: tuple(last if layer % count == count - 1 else others for layer in range(layers))


def kinds_from_gguf(pattern: Any, layers: int, window: int | None, unsaid: Kinds) -> tuple[str, ...]:
    """Return `layer_kinds` for what a file has as its pattern (None: nothing), where nothing means `unsaid`."""
    if isinstance(pattern, list):
        kinds = tuple(LOCAL if local else FULL for local in pattern)
    else:
        kinds = unsaid(layers) if pattern is None else every(pattern, FULL, LOCAL)(layers)
    if window is None:
        kinds = tuple(FULL if kind == LOCAL else kind for kind in kinds)
    elif not kinds:
        kinds = (LOCAL,) * layers
    return () if set(kinds) == {FULL} else kinds


def to_gguf(config: DecoderConfig, unsaid: Kinds) -> dict[str, Any]:
    """Return what a file says of the window, of an architecture that has one in llama.cpp."""
    layers, said = config.num_layers, {"attention.sliding_window": config.window or 0}
    if config.layer_kinds == kinds_from_gguf(None, layers, config.window, unsaid):
        return said
    for period in range(1, layers + 2):
        if config.layer_kinds == kinds_from_gguf(period, layers, config.window, unsaid):
            return said | {PATTERN: period}
    raise UsageError(f"GGUF's {config.family} has a window in all layers but every n-th; this model has it elsewhere")


def refuse(config: DecoderConfig) -> None:
    """Raise `UsageError` for a window that matters, of an architecture that has none in llama.cpp."""
    if config.window is not None and config.window < config.max_length:
        raise UsageError(
            f"{config.family} has a sliding window of {config.window} tokens, which llama.cpp does not apply to it; "
            "for texts no longer than that, set sliding_window to null in its config.json and export again"
        )
