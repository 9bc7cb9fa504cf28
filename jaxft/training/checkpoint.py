"""Checkpoints of what is trained, never of the base: any pytree, written whole or not at all.

Orbax writes a step into a temporary folder and renames it when it is complete, so a process killed at any moment leaves
the previous checkpoints as they were and, at worst, a temporary folder that the next start removes. Beside the arrays
lies what they belong to (`identity`: model, method, data), compared before anything is restored.

    checkpoints = Checkpoints("run/checkpoints", identity={"model": "...", "method": method.config})
    checkpoints.save(120, state)
    checkpoints.mark(120, loss=1.9)
    state = checkpoints.restore(state)           # the newest; arrays land where `state`'s leaves lie
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxft.errors import Error
from jaxft.training.journal import read_lines, write_lines

_DELETED = "deleted"


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, the one with the lowest loss and the one that is held."""

    def __init__(self, directory: str | Path, *, identity: Mapping[str, Any] | None = None, keep: int = 2):
        import orbax.checkpoint as ocp

        self.directory = Path(directory).absolute()
        self.identity = json.loads(json.dumps(dict(identity or {})))  # as it will be read back: tuples are lists
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._losses = {row["step"]: row["loss"] for row in read_lines(self._losses_file)}
            self._held: set[int] = set()
            self._manager = ocp.CheckpointManager(self.directory, options=_options(keep, self._losses, self._held))
            self._empty_bin()
        except OSError as error:
            raise Error(
                f"{self.directory}: checkpoints cannot be kept there ({error.strerror}): change `out`"
            ) from error

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    @property
    def best(self) -> int | None:
        """The step with the lowest loss, or None when no checkpoint has one."""
        known = [step for step in self.steps if step in self._losses]
        return min(known, key=self._losses.__getitem__, default=None)

    @property
    def _losses_file(self) -> Path:
        return self.directory / "losses.jsonl"

    def mark(self, step: int, loss: float) -> None:
        """Note the loss of a checkpoint, by which `best` is chosen; one that is not finite is not noted."""
        if math.isfinite(loss):
            self._losses[step] = loss
            write_lines(self._losses_file, [{"step": step, "loss": loss} for step, loss in self._losses.items()])

    def hold(self, step: int) -> None:
        """Keep the checkpoint of `step`, no longer the one held before; each process has to say it again."""
        self._held.clear()
        self._held.add(step)

    def save(self, step: int, tree: Any) -> None:
        """Write `tree` as the checkpoint of `step` and drop those no longer kept; an existing step is left alone.

        Raises Error when the folder cannot be written (a full disk): earlier checkpoints are still there.
        """
        import orbax.checkpoint as ocp

        if step in self.steps:
            return
        leaves = _named(tree)
        shapes = {name: _shape(leaf) for name, leaf in leaves.items()}
        metadata = {"identity": self.identity, "leaves": shapes}
        arrays = {name: leaf for name, leaf in leaves.items() if leaf.size}  # orbax refuses arrays without elements
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), metadata=ocp.args.JsonSave(metadata))
        try:
            self._manager.save(step, args=args, force=True)
        except Exception as error:  # orbax wraps a full disk in one of several types
            raise Error(self._cannot_write(step, error)) from error
        self._empty_bin()

    def restore(self, like: Any, *, step: int | None = None) -> Any:
        """Return the tree of `step` (the newest by default), shaped and sharded as `like` is.

        `like` holds arrays or `jax.ShapeDtypeStruct`s. Raises Error when there is no checkpoint, when it belongs to
        another model or method, when its arrays differ in name or shape, and when it cannot be read.
        """
        import orbax.checkpoint as ocp

        if step is None:
            step = max(self.steps, default=None)
        if step is None or step not in self.steps:
            raise Error(f"{self.directory} holds no checkpoint{'' if step is None else f' of step {step}'}")
        leaves = _named(like)
        self._compare(step, leaves)
        abstract = {name: _abstract(leaf) for name, leaf in leaves.items() if leaf.size}
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
        except Exception as error:
            raise Error(self._cannot_read(step, error)) from error
        restored = [found["state"][name] if leaf.size else leaf for name, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(like), restored)

    def clear(self) -> None:
        """Delete every checkpoint."""
        for step in self.steps:
            self._manager.delete(step)
        self._losses.clear()
        self._losses_file.unlink(missing_ok=True)
        self._empty_bin()

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()

    def _metadata(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        try:
            return self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]
        except Exception as error:
            raise Error(self._cannot_read(step, error)) from error

    def _compare(self, step: int, leaves: Mapping[str, Any]) -> None:
        metadata, place = self._metadata(step), self.directory / str(step)
        remedy = "use a new `out` or --overwrite"
        for path, saved, wanted in _differences(metadata["identity"], self.identity):
            raise Error(f"{place} was made with {path} {saved}, this run has {wanted}: {remedy}")
        shapes = {name: _shape(leaf) for name, leaf in leaves.items()}
        for path, saved, wanted in _differences(metadata["leaves"], shapes):
            raise Error(f"{place} holds {path} as {saved}, this run needs {wanted}: {remedy}")

    def _cannot_read(self, step: int, error: Exception) -> str:
        return f"{self.directory / str(step)} cannot be read ({_first_line(error)}): delete it to use an earlier one"

    def _cannot_write(self, step: int, error: Exception) -> str:
        self._empty_bin()
        reason = "no space left" if "No space left" in str(error) else _first_line(error)
        last = max(self.steps, default=None)
        kept = "no earlier checkpoint" if last is None else f"the checkpoint of step {last} is intact"
        return (
            f"{self.directory}: the checkpoint of step {step} could not be written ({reason}): "
            f"free disk space there or change `out`, then run the same command; {kept}"
        )

    def _empty_bin(self) -> None:
        # Here and not by orbax, which removes what a kill left behind at some later time.
        for left_over in (self.directory / _DELETED, *self.directory.glob("*.orbax-checkpoint-tmp*")):
            shutil.rmtree(left_over, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
    keep: int
    losses: Mapping[int, float]
    held: Collection[int]

    def should_preserve(self, checkpoints, *, context):
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = min((step for step in steps if step in self.losses), key=self.losses.__getitem__, default=None)
        newest = set(steps[-self.keep :])
        return [step in newest or step == best or step in self.held for step in steps]


def _options(keep: int, losses: Mapping[int, float], held: Collection[int]):
    import orbax.checkpoint as ocp

    return ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False,  # on CPU an asynchronous write would read buffers that the next step donates
        cleanup_tmp_directories=False,
        preservation_policy=_NewestAndBest(max(keep, 1), losses, held),
        todelete_subdir=_DELETED,  # a rename first: a kill while files are removed leaves no half checkpoint
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


def _named(tree: Any) -> dict[str, Any]:
    pairs, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def _shape(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _differences(saved: Any, wanted: Any, path: str = ""):
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in saved if key not in wanted)]:
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(saved.get(key, "nothing"), wanted.get(key, "nothing"), below)
    elif isinstance(saved, list) or isinstance(wanted, list | tuple):
        if list(saved) != list(wanted):
            yield path, list(saved), list(wanted)
    elif saved != wanted:
        yield path, saved, wanted
