"""The training loop: steps, and between them evaluations, checkpoints and a line of metrics.

It knows no model and no metric: `step` and `evaluate` are functions of the state. The device is never waited for
inside the loop: the metrics of a step are read when two more have been started, and all of them before a checkpoint.

    state, report = train(step, state, frozen, batches, key, steps=900, checkpoints=Checkpoints("run/checkpoints"))

Ctrl-C and SIGTERM let the step finish and write a checkpoint; then `KeyboardInterrupt` (or `SystemExit(143)`) goes on
its way. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from jaxft.data import prefetch
from jaxft.errors import Error
from jaxft.training.checkpoint import Checkpoints
from jaxft.training.journal import Write
from jaxft.training.progress import Progress

_LAG = 2  # steps in flight: enough that the device never waits for the host to read a number


@dataclasses.dataclass
class Report:
    """What a call of `train` did; seconds are wall time, and throughput counts neither compiling nor evaluating."""

    steps: int = 0
    tokens: int = 0
    target_tokens: int = 0
    timed_tokens: int = 0
    compilations: int = 0
    seconds: float = 0.0
    first_step_seconds: float = 0.0
    compile_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    checkpoint_seconds: float = 0.0

    @property
    def step_seconds(self) -> float:
        """Seconds spent on steps, waiting for their batches included."""
        return self.seconds - self.compile_seconds - self.evaluate_seconds - self.checkpoint_seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens that are no padding, prompt and completion, per second of steps that did not compile."""
        return self.timed_tokens / self.step_seconds if self.step_seconds > 0 else 0.0


def train(
    step: Callable[[Any, Any, Any, jax.Array], tuple[Any, Mapping[str, jax.Array]]],
    state: Any,
    frozen: Any,
    batches: Any,
    key: jax.Array,
    *,
    steps: int,
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None,
    eval_every: int = 0,
    eval_at: Collection[int] = (),
    evaluated: int = 0,
    stop_early: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = 300.0,
    save: Callable[[Any], Any] = lambda state: state,
    write: Write = lambda row: None,
    log_every: int = 1,
    progress: Progress | None = None,
) -> tuple[Any, Report]:
    """Run `step` from `state.step` up to `steps` and return the state and a report.

    `batches.batch(n)` is the batch of step n from 0, `batches.ids(n)` names its examples. `evaluate(state)` runs every
    `eval_every` steps, at the steps `eval_at` and at the end; its `validation_loss`, where it has one, decides which
    checkpoint is the best. `evaluated` is the last step that an earlier session evaluated. After each evaluation
    `stop_early()` may end the training. `save(state)` is what a checkpoint holds. Raises
    Error when the loss or gradient of a step is not finite: the earlier checkpoints are kept.
    """
    first, saved_at = int(state.step), time.monotonic()
    show, began = progress or Progress(quiet=True), time.perf_counter()
    ledger = _Ledger(Report(), write, log_every, steps, batches.ids, checkpoints, show, began)

    def due(step: int) -> bool:
        regular = step == steps or (eval_every > 0 and step % eval_every == 0)
        return evaluate is not None and step > 0 and (regular or step in eval_at)

    ready = cast(Generator, prefetch(batches, first, steps))
    with show, _stop_signals() as stop, contextlib.closing(ready):
        show.start(first, steps)
        if due(first) and evaluated < first:
            ledger.evaluate(evaluate, state)
        for n, batch in ready if not stop_early() else ():
            with ledger.step(n + 1, batch) as started:
                state, started.metrics = step(state, frozen, batch, key)
            if n + 1 == steps or due(n + 1) or stop or time.monotonic() - saved_at >= checkpoint_seconds:
                ledger.settle()
                ledger.save(save, state)
                if due(n + 1) and not stop:
                    ledger.evaluate(evaluate, state)
                saved_at = time.monotonic()
            if stop or (due(n + 1) and stop_early()):
                break
    ledger.tell_time()
    if stop:
        show.note(f"stopped at step {int(state.step)} of {steps}; the same command goes on from there")
        raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])
    return state, ledger.report


@dataclasses.dataclass
class _Started:
    step: int
    tokens: Any
    compiles: bool
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Ledger:
    report: Report
    write: Write
    log_every: int
    steps: int
    ids: Callable[[int], Sequence[str]]
    checkpoints: Checkpoints | None
    show: Progress
    began: float
    pending: collections.deque[_Started] = dataclasses.field(default_factory=collections.deque)
    shapes: set[Any] = dataclasses.field(default_factory=set)

    @contextlib.contextmanager
    def step(self, step: int, batch: Mapping[str, Any]) -> Iterator[_Started]:
        shape = _shapes(batch)
        started = _Started(step, _token_count(batch), shape not in self.shapes)
        if started.compiles:
            self.settle()
            self.shapes.add(shape)
            self.show.compiling(batch)
            with _timed(self.report, "compile_seconds") as clock:
                yield started
                jax.block_until_ready(started.metrics)
            self.report.compilations = len(self.shapes)
            self.report.first_step_seconds = self.report.first_step_seconds or clock()
            self.show.compiled(clock())
        else:
            yield started
        self.pending.append(started)
        self.settle(_LAG)

    def settle(self, keep: int = 0) -> None:
        while len(self.pending) > keep:
            self._settle(self.pending.popleft())

    def tell_time(self) -> None:
        self.report.seconds = time.perf_counter() - self.began

    def _settle(self, started: _Started) -> None:
        report = self.report
        values = {name: np.asarray(value).tolist() for name, value in started.metrics.items()}
        self.tell_time()  # the step has ended now, and not before its numbers were there
        if not values.pop("finite", True):
            raise Error(_not_finite(started.step, values, self.ids(started.step - 1), self.checkpoints))
        report.steps += 1
        report.target_tokens += int(values.get("tokens", 0))
        report.tokens += int(started.tokens)
        report.timed_tokens += 0 if started.compiles else int(started.tokens)
        row = {"step": started.step, **values}
        self.show.stepped(row, report.tokens_per_second)
        if started.step % self.log_every == 0 or started.step == self.steps:
            self.write(row)

    def save(self, save: Callable[[Any], Any], state: Any) -> None:
        if self.checkpoints is not None:
            with _timed(self.report, "checkpoint_seconds"):
                self.checkpoints.save(int(state.step), save(state))

    def evaluate(self, evaluate: Any, state: Any) -> None:
        step = int(state.step)
        with _timed(self.report, "evaluate_seconds"):
            scores = dict(evaluate(state))
        self.write({"step": step, **scores})
        self.show.evaluated(step, scores)
        if self.checkpoints is not None and "validation_loss" in scores:
            self.checkpoints.mark(step, scores["validation_loss"])


@contextlib.contextmanager
def _timed(report: Report, name: str) -> Iterator[Callable[[], float]]:
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began
    setattr(report, name, getattr(report, name) + time.perf_counter() - began)


def _not_finite(step: int, values: Mapping[str, float], ids: Sequence[str], checkpoints: Checkpoints | None) -> str:
    last = max(checkpoints.steps, default=None) if checkpoints is not None else None
    kept = "" if last is None else f"; the checkpoint of step {last} is intact"
    return (
        f"step {step}: the loss or its gradient is not finite (loss {values.get('loss')}) on {', '.join(ids)}: "
        f"look at these examples or lower optimizer.learning_rate{kept}"
    )


def _shapes(batch: Mapping[str, Any]):
    return tuple(sorted((name, tuple(value.shape), str(value.dtype)) for name, value in batch.items()))


def _token_count(batch: Mapping[str, Any]) -> Any:
    return sum((batch[name] > 0).sum() for name in ("segments", "encoder_segments") if name in batch)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Sequence[int]]:
    received: list[int] = []

    def handle(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may change handlers
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
