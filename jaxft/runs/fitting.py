"""The training of a run: steps, evaluations and probes between them, checkpoints, and which state counts at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxft.data import Encoded
from jaxft.data.grouping import spread
from jaxft.evaluation.forgetting import mean_score
from jaxft.evaluation.scoring import batch_losses
from jaxft.recipe import Recipe
from jaxft.runs.parts import Parts, placer
from jaxft.runs.probes import Probing, Stopper, probe_steps
from jaxft.runs.scores import Scores, loss_scores, predictions, text_scores
from jaxft.training.checkpoint import Checkpoints
from jaxft.training.journal import append_to, cut, read_lines
from jaxft.training.loop import Report, train
from jaxft.training.progress import Progress
from jaxft.training.step import loss_step


class Fitted(NamedTuple):
    """The state that counts, the last step, what training took, where it was resumed, and early stopping if asked."""

    state: Any
    last: int
    report: Report
    resumed: int
    stopper: Stopper | None

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says of early stopping; nothing where it did not come to it."""
        if self.stopper is None or not self.stopper.bad:
            return {}
        return {"stopped": {"at": self.last, "kept": int(self.state.step), "by": "probes.stop"}}


def fit(recipe: Recipe, parts: Parts, folder: Path, show: Progress, probing: Probing | None = None) -> Fitted:
    """Train from where the run's folder stands to the end, or until the probes stop it."""
    options = recipe.train
    checkpoints = Checkpoints(folder / "checkpoints", identity=parts.identity(), keep=options.keep)
    metrics, stopper = folder / "metrics.jsonl", _stopper(recipe, probing)
    if stopper is not None and not checkpoints.steps:
        checkpoints.save(0, parts.state)  # the last state within the limit may be the first
    state = checkpoints.restore(parts.state) if checkpoints.steps else parts.state
    resumed = int(state.step)
    if resumed:
        show.note(f"going on from the checkpoint of step {resumed}")
    cut(metrics, resumed)
    _told_before(metrics, probing, stopper)
    if stopper is not None:
        checkpoints.hold(stopper.good)
    state, report = train(
        parts.step,
        state,
        parts.anchors,
        parts.batches,
        parts.key,
        steps=parts.steps,
        evaluate=_evaluation(recipe, parts, probing, stopper, checkpoints),
        eval_every=_every(recipe, parts),
        eval_at=probe_steps(recipe, parts.steps),
        evaluated=_evaluated(metrics),
        stop_early=lambda: stopper is not None and stopper.stopped,
        checkpoints=checkpoints,
        checkpoint_seconds=60 * options.checkpoint_minutes,
        write=_writer(metrics, parts),
        log_every=options.log_every,
        progress=show,
    )
    last = int(state.step)
    if stopper is not None and stopper.bad:
        show.note(f"the probes fell too far: the weights of step {stopper.good} are the last that had not")
        state = checkpoints.restore(state, step=stopper.good)
    elif options.use == "best" and checkpoints.best is not None:
        state = checkpoints.restore(state, step=checkpoints.best)
    checkpoints.close()
    return Fitted(state, last, report, resumed, stopper)


def split_loss(
    recipe: Recipe, parts: Parts, loss: Any, trainable: Any, frozen: Any, examples: Sequence[Encoded]
) -> Scores:
    """Return the mean loss of the examples' target tokens; `loss` is what `loss_step` returns."""
    total_of = functools.partial(batch_losses, loss, trainable, frozen, place=placer(parts.mesh))
    return loss_scores(parts.model, examples, recipe.train.batch_size, total_of)


def probed_rows(folder: Path) -> dict[int, dict[str, float]]:
    """Return the probes' values that metrics.jsonl holds, by step."""
    return {row["step"]: row["probes"] for row in read_lines(folder / "metrics.jsonl") if "probes" in row}


def _every(recipe: Recipe, parts: Parts) -> int:
    every = recipe.train.eval_every
    return parts.batches.steps_per_epoch if every is None else every


def _stopper(recipe: Recipe, probing: Probing | None) -> Stopper | None:
    rule = recipe.probes.stop
    if probing is None or rule.drop is None or probing.start is None:
        return None
    return Stopper(probing.start, rule.drop, rule.patience)


def _told_before(metrics: Path, probing: Probing | None, stopper: Stopper | None) -> None:
    """Write the probes' row of step 0 where it is missing, and tell the stopper what an earlier session found."""
    if probing is None:
        return
    rows = probed_rows(metrics.parent)
    if 0 not in rows:
        append_to(metrics)({"step": 0, **probing.before.row()})
    for step, values in sorted(rows.items()):
        mean = mean_score(values, probing.before.metrics)
        if step and stopper is not None and mean is not None:
            stopper.told(step, mean)


def _writer(metrics: Path, parts: Parts) -> Callable[[Mapping[str, Any]], None]:
    append = append_to(metrics)

    def write(row: Mapping[str, Any]) -> None:
        append(_step_row(row, parts) if "grad_norm" in row else row)

    return write


def _evaluated(metrics: Path) -> int:
    return max((row["step"] for row in read_lines(metrics) if "grad_norm" not in row), default=0)


def _step_row(row: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    row = {**row, "learning_rate": float(parts.schedule(row["step"] - 1))}
    sums = zip(parts.batches.tasks, row.pop("task_loss", []), row.pop("task_tokens", []), strict=True)
    tasks = {name: {"loss": loss / tokens, "tokens": tokens} for name, loss, tokens in sums if tokens}
    return {**row, "tasks": tasks} if tasks else row


def _evaluation(
    recipe: Recipe, parts: Parts, probing: Probing | None, stopper: Stopper | None, checkpoints: Checkpoints
) -> Callable[[Any], Mapping[str, Any]] | None:
    examples = parts.examples.get("validation", [])
    for_loss = spread(examples, recipe.train.eval_examples)
    for_texts = spread(examples, recipe.train.eval_generate)
    if not for_loss and not for_texts and probing is None:
        return None
    loss, every, probed_at = (
        loss_step(parts.model, parts.method),
        _every(recipe, parts),
        probe_steps(recipe, parts.steps),
    )

    def evaluate(state):
        step, scores, row = int(state.step), Scores({}, {}), {}
        regular = step == parts.steps or (every and step % every == 0)
        if for_loss and regular:
            scores = split_loss(recipe, parts, loss, state.trainable, parts.frozen, for_loss)
        if for_texts and regular:
            texts = predictions(recipe, parts, parts.method.bind(state.trainable, parts.frozen), for_texts)
            scores = scores.beside(text_scores(recipe, for_texts, texts, resamples=0))
        if probing is not None and step in probed_at:
            row = probing.ask(step, state).row()
            mean = mean_score(row["probes"], probing.before.metrics)
            if stopper is not None and mean is not None:
                stopper.told(step, mean)
                checkpoints.hold(stopper.good)
        return {**scores.row("validation_"), **row}

    return evaluate
