"""Efficiency: how long one request takes, and how much fits into a second. Own definition.

HELM reports the mean time of a request as its client saw it (`inference_runtime`, here the mean too), and times of a
reference machine for models that it knows, which it does not for ours. Here some requests are sent one at a time, each
twice: the second is the latency, and what the first took longer is compilation.

    latency_mean, _p50, _p90, _p99   seconds a request, linear between ranks
    tokens_per_second                prompt and output tokens over the time of all requests
    output_tokens_per_second         of generated texts, the output alone
    compile_seconds                  what first requests took longer, summed
    peak_memory_bytes                of the process since its start; of the device where it keeps count
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxft.data import Encoded
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.metrics import Score, measure
from jaxft.evaluation.resampling import RESAMPLES
from jaxft.evaluation.tasks import answer

PROVENANCE = "own definition: one request at a time, compilation apart"


def latencies(
    model: Any, variables: Any, examples: Sequence[Encoded], settings: Mapping[str, Any], key: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds [N, 2] of each request, the first time and the second, and its tokens [N, 2], prompt and output.

    The output of an example with choices is all of them: each is read.
    """
    settings = {**settings, "batch_size": 1}
    seconds, tokens = [], []
    for example in examples:
        pair = []
        for _ in range(2):
            start = time.perf_counter()
            given = answer(model, variables, [example], settings, answers=Answers(None, {}), key=key, by="token")
            pair.append(time.perf_counter() - start)
        texts = example.choices if given[0].probabilities else [given[0].text]
        output = sum(len(ids) for ids in model.tokenizer(list(texts), add_special_tokens=False)["input_ids"])
        seconds.append(pair)
        tokens.append((len(example.prompt), output))
    return np.array(seconds), np.array(tokens, np.float64)


def efficiency(
    seconds: np.ndarray, tokens: np.ndarray, *, generated: bool, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """Return the scores of what `latencies` gave; memory is that of this process now."""
    from jaxft.runs.resources import peak_memory

    settings: Any = {"resamples": resamples, "seed": seed}
    taken, n = seconds[:, 1], len(seconds)
    found = {"latency_mean": measure(taken, PROVENANCE, **settings)}
    for rank in (50, 90, 99):
        found[f"latency_p{rank}"] = measure(taken, PROVENANCE, _percentile(rank), whole=True, **settings)
    rates = {"tokens_per_second": tokens.sum(axis=1)}
    if generated:
        rates["output_tokens_per_second"] = tokens[:, 1]
    for name, counts in rates.items():
        found[name] = measure(np.stack([counts, taken], axis=1), PROVENANCE, _rate, **settings)
    found["compile_seconds"] = Score(float(np.maximum(seconds[:, 0] - taken, 0).sum()), PROVENANCE, n)
    for name, size in peak_memory().items():
        if size is not None:
            found[f"peak_memory_bytes_{name}"] = Score(float(size), PROVENANCE, n)
    return found


def _percentile(rank: float) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda rows, n: np.percentile(rows[:, :, 0], rank, axis=1)


def _rate(sums: np.ndarray, n: int) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]
