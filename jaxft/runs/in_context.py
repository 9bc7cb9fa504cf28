"""What the untuned model does with a better prompt, beside the tuned model: whether tuning was needed.

    evaluate: {in_context: {enabled: true, shots: [0, 1, 3], prompts: ["{{ dialogue }}\\nIn short:"], examples: 50}}

Every way to ask is scored on the same examples of the scored split as the tuned model, which is compared with it
example by example. Worked examples are training rows, drawn for each example by a hash, so that every process draws
the same; they stand before the prompt in its wording, and the last ones are left out where the prompt would not fit.
The best way is picked on the examples that it is scored on, which is in its favour. Every way costs a scoring of its
own, of longer prompts: off unless asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jaxft.data import Encoded, EncodeReport
from jaxft.data.grouping import spread
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.progress import Answering
from jaxft.evaluation.statistics import compare_all
from jaxft.evaluation.tasks import Given
from jaxft.recipe import Recipe
from jaxft.runs.asking import Variant, encode_variant, variants
from jaxft.runs.parts import Parts, fingerprint, read_splits
from jaxft.runs.scores import Scores, known_given, predictions, scored, text_scores
from jaxft.runs.show import cell
from jaxft.training.progress import Progress


def in_context(recipe: Recipe, parts: Parts, folder: Path, seconds: dict[str, float], show: Progress) -> dict[str, Any]:
    """Return what summary.json holds of the untuned model with other prompts; nothing unless the recipe asks for it.

    `in_context` lists the ways to ask: name, shots, prompt, n, scores, `dropped_shots` (worked examples that did not
    fit or were not there), `cut_prompts`, and the `comparison` of the tuned model with it (tuned - untuned).
    `in_context_tuned` has the tuned model's scores on these examples and the name of the best way by the first metric.
    """
    options = recipe.evaluate.in_context
    examples = spread(scored(parts), options.examples or len(scored(parts)))
    if not options.enabled or not examples:
        return {}
    began = time.perf_counter()
    given = known_given(folder, examples, "after")
    tuned = {one.id: (one, said) for one, said in zip(examples, given, strict=True) if said is not None}
    rows, split = read_splits(recipe), "test" if "test" in parts.examples else "validation"
    identity = {"model": recipe.model.source, "weights": fingerprint(parts.model)}
    found, values = [], []
    with Answers(folder / "answers" / "in_context.jsonl", identity) as answers:
        for variant in variants(recipe, rows[split]):
            asked: Sequence[Encoded] = examples
            report: EncodeReport | None = None
            if variant != Variant("zero-shot") or recipe.data.shots:
                asked, report = encode_variant(recipe, rows, split, variant, parts.model, examples)
            show.note(f"the untuned model, {variant.name}, on {len(asked)} examples{_left_out(report)} ...")
            said = predictions(
                recipe, parts, {"params": parts.model.params}, asked, answers, Answering(asked, show.note)
            )
            scores = text_scores(recipe, asked, said)
            found.append(_entry(recipe, variant, report, scores, _scores(recipe, [tuned[one.id] for one in asked])))
            values.append(next(iter(scores.values.values())))
    seconds["in_context"] = time.perf_counter() - began
    whole = _scores(recipe, list(tuned.values()))
    best = found[values.index(max(values))]["name"]
    return {"in_context": found, "in_context_tuned": {**_numbers(whole), "best": best, "by": next(iter(whole.values))}}


def in_context_table(summary: Mapping[str, Any], most: int = 3) -> Table:
    """Return a run's in-context baseline as a table: every way to ask, the tuned model, and what tuning adds."""
    tuned = summary["in_context_tuned"]
    names = list(tuned["scores"])[:most]
    table = Table(title="the untuned model, asked in other ways", title_justify="left")
    table.add_column("", overflow="fold")
    for heading in ("n", *names, f"tuned adds to {names[0]}", "stands"):
        table.add_column(heading, justify="right")
    for one in summary["in_context"]:
        change = one["comparison"].get(names[0])
        name = one["name"] + (" (best)" if one["name"] == tuned["best"] else "")
        left_out = f"\n{one['dropped_shots']} worked examples left out" if one["dropped_shots"] else ""
        added = "" if change is None else cell(change["difference"], (change["low"], change["high"]), sign="+")
        stands = "" if change is None else ("yes" if change["stands"] else "no")
        table.add_row(name + left_out, str(one["n"]), *_cells(one, names), added, stands)
    table.add_section()
    table.add_row("tuned", str(tuned["n"]), *_cells(tuned, names), "", "")
    table.caption = "95 % intervals below; best of these on these examples, which is in its favour"
    return table


def _cells(one: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = []
    for score in (one["scores"].get(name, {}) for name in names):
        bounds = None if score.get("low") is None else (score["low"], score["high"])
        found.append(cell(score.get("value"), bounds))
    return found


def _scores(recipe: Recipe, pairs: Sequence[tuple[Encoded, Given]]) -> Scores:
    return text_scores(recipe, [one for one, _ in pairs], [said for _, said in pairs])


def _entry(
    recipe: Recipe, variant: Variant, report: EncodeReport | None, scores: Scores, tuned: Scores
) -> dict[str, Any]:
    compared = compare_all(tuned.measured, scores.measured)
    return {
        "name": variant.name,
        "shots": variant.shots,
        "prompt": variant.prompt or (variant.name if recipe.data.tasks else recipe.data.prompt),
        **_numbers(scores),
        "dropped_shots": report.dropped_shots if report else 0,
        "cut_prompts": report.truncated_prompts if report else 0,
        "comparison": {name: one.to_dict() for name, one in compared.items()},
    }


def _numbers(scores: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n": max(one.n for one in scores.measured.values()),
        "scores": {name: one.to_dict() for name, one in scores.measured.items()},
    }
    if len(scores.tasks) > 1:
        found["tasks"] = {
            task: {name: one.to_dict() for name, one in own.items()} for task, own in scores.measured_tasks.items()
        }
    return found


def _left_out(report: EncodeReport | None) -> str:
    if report is None:
        return ""
    text = f", {report.dropped_shots} worked examples left out" if report.dropped_shots else ""
    return text + (f", {report.truncated_prompts} prompts cut" if report.truncated_prompts else "")
