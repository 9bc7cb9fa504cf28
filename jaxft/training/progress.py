"""What a person sees while a run goes on: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_LINE_SECONDS = 15.0


class Progress:
    """Shows steps, loss, tokens/s and the time left on standard error; `quiet` shows nothing."""

    def __init__(self, console: Any = None, *, quiet: bool = False):
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._steps = 0
        self._printed = 0.0
        self._console = console
        if console is None and not quiet:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def start(self, first: int, steps: int) -> None:
        """Begin to show steps `first` to `steps`."""
        self._steps = steps
        if self._quiet or not self._console.is_terminal:
            return
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[text]}"),
            progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=steps, completed=first, text="")
        self._bar.start()

    def note(self, text: Any) -> None:
        """Print a line, or a rich text."""
        if not self._quiet:
            self._console.print(text, markup=False, soft_wrap=True)

    def compiling(self, batch: Mapping[str, Any]) -> None:
        """Announce a compilation for the shapes of `batch`."""
        rows, length = batch["tokens"].shape
        source = f" + {batch['encoder_tokens'].shape[1]}" if "encoder_tokens" in batch else ""
        self.note(f"compiling the step for batches of {rows} x {length}{source} tokens ...")

    def compiled(self, seconds: float) -> None:
        """Say how long the first step of a shape took."""
        self.note(f"... {seconds:.1f} s")

    def stepped(self, row: Mapping[str, Any], tokens_per_second: float) -> None:
        """Show a finished step."""
        if self._quiet:
            return
        text = f"loss {row.get('loss', float('nan')):.3f}  {tokens_per_second:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], text=text)
        elif time.monotonic() - self._printed >= _LINE_SECONDS or row["step"] == self._steps:
            self._printed = time.monotonic()
            self.note(f"step {row['step']}/{self._steps}  {text}")

    def evaluated(self, step: int, scores: Mapping[str, Any]) -> None:
        """Show an evaluation; what it says of single tasks is left to metrics.jsonl."""
        shown = {name: value for name, value in scores.items() if not isinstance(value, Mapping)}
        self.note(f"step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()))
