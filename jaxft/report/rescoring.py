"""What needs the texts themselves: differences between runs, intervals of runs that recorded none, words in common.

Scoring ROUGE again takes a second or two, so a page of one run that has its intervals does without.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxft.errors import Error
from jaxft.report.reading import Run
from jaxft.report.values import Change, Value, part

SHOWN = 4  # metrics of a comparison
_OPTIONS = ("stemmer", "sentences", "words")  # of a recipe's evaluate section: what `score` takes


class Pair(NamedTuple):
    """How the second of two runs differs from the first in one metric, on examples that both have."""

    metric: str
    first: str
    second: str
    n: int
    change: Change


def word_f1(text: str, references: Sequence[str]) -> float:
    """Return the F-measure of the words in common with the closest reference: quick, and for sorting only."""
    return max((_f1(_words(text), _words(reference)) for reference in references), default=0.0)


def with_intervals(run: Run) -> Run:
    """Return the run with the intervals of its scores, from its predictions; what they do not give stays without."""
    texts = {when: [row.get(when) for row in run.predictions] for when in ("before", "after")}
    found = {
        when: _scores(run, _known(list(run.scores)), run.predictions, each)
        for when, each in texts.items()
        if _all(each)
    }
    scores = {}
    for metric, measure in run.scores.items():
        before, after = (
            _with_interval(getattr(measure, when), found.get(when, {}).get(metric)) for when in ("before", "after")
        )
        scores[metric] = measure._replace(before=before, after=after)
    return dataclasses.replace(run, scores=scores)


def pairs(runs: Sequence[Run]) -> tuple[list[Pair], str]:
    """Return differences between tuned models on the examples that all runs have, and what stood in the way.

    Of two runs the first few metrics are compared, of more the first one, for each pair; p-values are Holm's.
    """
    from jaxft.evaluation.statistics import ALPHA, compare, holm

    tables = [{row["id"]: row for row in run.predictions if isinstance(row.get("after"), str)} for run in runs]
    common = [name for name in tables[0] if all(name in table for table in tables)]
    if not common:
        return [], "The runs have no scored examples in common: differences between them are not tested."
    kept = [[table[name] for name in common] for table in tables]
    if any([references(row) for row in rows] != [references(row) for row in kept[0]] for rows in kept):
        return [], "The runs have other references for the same examples: differences between them are not tested."
    wanted = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    wanted = _known(wanted)[: SHOWN if len(runs) == 2 else 1]
    # The first run's settings for all: what is compared is scored alike.
    scored = [_scores(runs[0], wanted, rows, [row["after"] for row in rows]) for rows in kept]
    wanted = [name for name in wanted if all(_agree(*one, name) for one in zip(runs, scored, strict=True))]
    both = [(name, *two) for name in wanted for two in itertools.combinations(range(len(runs)), 2)]
    if not both:
        return [], "The completions cannot be scored again: differences between the runs are not tested."
    found = [compare(scored[j][name], scored[i][name]) for name, i, j in both]
    made = []
    for (name, i, j), one, p in zip(both, found, holm([one.p for one in found]), strict=True):
        change = Change(one.difference, one.low, one.high, p, one.test, p < ALPHA)
        made.append(Pair(name, runs[i].name, runs[j].name, len(common), change))
    return made, ""


def references(row: Mapping[str, Any]) -> list[str]:
    """Return the references of a prediction that are texts."""
    value = row.get("references")
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _known(names: Sequence[str]) -> list[str]:
    from jaxft.evaluation.metrics import METRICS

    return [name for name in names if name in METRICS]


def _scores(
    run: Run, metrics: Sequence[str], rows: Sequence[Mapping[str, Any]], texts: Sequence[Any]
) -> dict[str, Any]:
    from jaxft.evaluation.metrics import score

    options = {key: value for key, value in part(run.recipe, "evaluate").items() if key in _OPTIONS}
    try:
        return dict(score(texts, [references(row) for row in rows], metrics, **options))
    except Error:  # an example without a reference, say
        return {}


def _agree(run: Run, scored: Mapping[str, Any], name: str) -> bool:
    """Whether texts alone give the recorded score, which choices by probability or several tasks' metrics do not."""
    known, again = run.scores[name].after, scored.get(name)
    if known is None or again is None:
        return False
    return again.n != len(run.predictions) or abs(again.value - known.value) < 1e-6


def _with_interval(value: Value | None, again: Any) -> Value | None:
    if value is None or value.low is not None or again is None or again.interval is None:
        return value
    # Another number than the recorded one was scored by other rules: its interval is not this one's.
    if abs(again.value - value.value) > 1e-6:
        return value
    return Value(value.value, *again.interval)


def _all(texts: Sequence[Any]) -> bool:
    return bool(texts) and all(isinstance(text, str) for text in texts)


def _words(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"\w+", text.lower()))


def _f1(one: collections.Counter[str], other: collections.Counter[str]) -> float:
    size = one.total() + other.total()
    return 2 * (one & other).total() / size if size else 1.0
