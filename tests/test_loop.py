"""The loop: bitwise resume, no waiting for the device, stopping on a signal and on a loss that is not finite."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxft.errors import Error
from jaxft.training.checkpoint import Checkpoints
from jaxft.training.journal import append_to, cut, read_lines, write_text
from jaxft.training.loop import train
from jaxft.training.progress import Progress
from jaxft.training.state import init_state

OPTIMIZER = optax.adamw(0.05)
KEY = jax.random.key(3)


class Batches:
    """Two shapes in turn; the example of step `bad` overflows."""

    def __init__(self, bad=None):
        self.bad = bad

    def batch(self, step):
        values = np.random.default_rng(step).integers(1, 9, (2, 4 + 2 * (step % 2))).astype(np.int32)
        weights = np.full(values.shape, np.inf if step == self.bad else 1.0, np.float32)
        return {"tokens": values, "segments": np.ones_like(values), "weights": weights}

    def ids(self, step):
        return [f"train:{2 * step}", f"train:{2 * step + 1}"]


@jax.jit
def step(state, frozen, batch, key):
    def loss_of(trainable):
        noise = jax.random.normal(jax.random.fold_in(key, state.step), (4,))
        scores = (trainable["w"] + 0.1 * noise) @ frozen["m"]
        return jnp.mean((scores[0] - batch["tokens"]) ** 2 * batch["weights"])

    loss, gradient = jax.value_and_grad(loss_of)(state.trainable)
    updates, opt_state = OPTIMIZER.update(gradient, state.opt_state, state.trainable)
    trained = state._replace(trainable=optax.apply_updates(state.trainable, updates), opt_state=opt_state)
    finite = jnp.isfinite(loss)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), trained, state)
    metrics = {"loss": loss, "tokens": jnp.float32(batch["tokens"].size), "finite": finite}
    return kept._replace(step=state.step + 1), metrics


def start():
    return init_state({"w": jnp.linspace(-1.0, 1.0, 4)}, OPTIMIZER), {"m": jnp.ones((4, 2))}


def run(steps, state=None, batches=None, **options):
    fresh, frozen = start()
    return train(step, fresh if state is None else state, frozen, batches or Batches(), KEY, steps=steps, **options)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_train_2k_equals_train_k_save_restore_and_train_k_bitwise(tmp_path):
    whole, _ = run(10)
    half, _ = run(5, checkpoints=Checkpoints(tmp_path))
    assert bits(half) != bits(whole)
    restored = Checkpoints(tmp_path).restore(start()[0])
    resumed, report = run(10, restored)
    assert bits(resumed) == bits(whole)
    assert report.steps == 5


def test_counts_steps_tokens_and_compilations():
    rows = []
    _, report = run(6, write=rows.append)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert (report.steps, report.compilations) == (6, 2)
    assert report.tokens == report.target_tokens == 3 * 8 + 3 * 12
    assert report.timed_tokens == 2 * 8 + 2 * 12
    assert report.seconds >= report.compile_seconds >= report.first_step_seconds > 0
    assert rows[0]["loss"] > rows[-1]["loss"]


def test_throughput_counts_steps_and_neither_compiling_nor_evaluating(monkeypatch):
    """By a clock of our own: a device takes a second for each step, the first one is compiled, evaluations take 10."""
    now, free, shown = [0.0], [0.0], []
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=time.monotonic)
    monkeypatch.setattr("jaxft.training.loop.time", clock)

    class Loss:
        def __init__(self):
            self.done = free[0] = max(now[0], free[0]) + 1

        def block_until_ready(self):
            now[0] = max(now[0], self.done)

        def __array__(self, dtype=None, copy=None):
            self.block_until_ready()
            return np.asarray(1.0)

    class Even(Batches):
        def batch(self, step):
            return super().batch(0)

    class Shown(Progress):
        def stepped(self, row, tokens_per_second):
            shown.append(tokens_per_second)

    def evaluate(state):
        now[0] += 10
        return {}

    def counted(state, frozen, batch, key):
        return state._replace(step=state.step + 1), {"loss": Loss()}

    state, frozen = start()
    options = {"evaluate": evaluate, "eval_every": 3, "progress": Shown(quiet=True)}
    _, report = train(counted, state, frozen, Even(), KEY, steps=6, **options)
    assert shown == [0, 8, 8, 8, 8, 8]
    assert (report.seconds, report.step_seconds, report.evaluate_seconds) == (26, 5, 20)
    assert report.tokens_per_second == 8


def test_log_every_and_the_last_step():
    rows = []
    run(7, write=rows.append, log_every=3)
    assert [row["step"] for row in rows] == [3, 6, 7]


def test_metrics_are_read_only_when_later_steps_have_started():
    """Reading step n's numbers before step n + 2 has started would make the device wait for the host."""
    events = []

    class Number:
        def __init__(self, n, value):
            self.n, self.value = n, value

        def __array__(self, dtype=None, copy=None):
            events.append(("read", self.n))
            return np.asarray(self.value)

    def fake_step(state, frozen, batch, key):
        events.append(("start", int(state.step) + 1))
        return state._replace(step=state.step + 1), {"loss": Number(int(state.step) + 1, 1.0)}

    class OneShape(Batches):
        def batch(self, step):
            return super().batch(2 * step)

    state, frozen = start()
    train(fake_step, state, frozen, OneShape(), KEY, steps=6)
    for n in (2, 3, 4):
        assert events.index(("read", n)) > events.index(("start", n + 2))


def test_evaluates_checkpoints_and_keeps_the_best(tmp_path):
    losses = iter([3.0, 1.0, 2.0])
    rows = []
    checkpoints = Checkpoints(tmp_path, keep=1)
    run(
        6,
        evaluate=lambda state: {"validation_loss": next(losses), "at": float(state.step)},
        eval_every=2,
        checkpoints=checkpoints,
        write=rows.append,
    )
    assert [(row["step"], row["at"]) for row in rows if "at" in row] == [(2, 2.0), (4, 4.0), (6, 6.0)]
    assert [row["step"] for row in rows] == [1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert (checkpoints.steps, checkpoints.best) == ([4, 6], 4)


def test_an_evaluation_that_a_signal_skipped_is_made_up_for(tmp_path):
    def write_and_stop(row):
        rows.append(row)
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    rows = []
    options = {"evaluate": lambda state: {"validation_loss": 1 / float(state.step)}, "eval_every": 1, "log_every": 3}
    with pytest.raises(SystemExit):
        run(9, write=write_and_stop, checkpoints=Checkpoints(tmp_path, keep=1), **options)
    assert [row["step"] for row in rows] == [1, 2, 3]  # the third is the step's own: its evaluation was skipped
    checkpoints = Checkpoints(tmp_path, keep=1)
    rows.clear()
    run(5, checkpoints.restore(start()[0]), checkpoints=checkpoints, write=rows.append, evaluated=2, **options)
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 4, 5]
    assert checkpoints.best == 5


def test_the_clock_makes_checkpoints_too(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=9)
    run(3, checkpoints=checkpoints, checkpoint_seconds=0)
    assert checkpoints.steps == [1, 2, 3]


def test_a_loss_that_is_not_finite_names_step_and_examples_and_keeps_the_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Error, match=r"^step 6: .*not finite.* on train:10, train:11: .*step 4 is intact") as caught:
        run(20, batches=Batches(bad=5), checkpoints=checkpoints, evaluate=lambda state: {}, eval_every=2)
    assert "\n" not in str(caught.value)
    assert checkpoints.steps[-1] == 4
    good, _ = run(4)
    assert bits(checkpoints.restore(start()[0])) == bits(good)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_checkpoints_and_goes_on_its_way(tmp_path, number):
    def write(row):
        if row["step"] == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        run(10**6, write=write, checkpoints=Checkpoints(tmp_path))
    assert caught.type is KeyboardInterrupt if number == signal.SIGINT else caught.value.code == 143
    assert signal.getsignal(number) is before
    stopped = Checkpoints(tmp_path).steps[-1]
    assert 3 <= stopped < 10
    restored = Checkpoints(tmp_path).restore(start()[0])
    assert bits(restored) == bits(run(stopped)[0])
    assert bits(run(12, restored)[0]) == bits(run(12)[0])


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def write(row):
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(10**6, write=write, checkpoints=Checkpoints(tmp_path))
    assert Checkpoints(tmp_path).steps == []


def test_an_error_while_preparing_a_batch_is_raised_at_its_step():
    class Broken(Batches):
        def batch(self, step):
            if step == 3:
                raise Error("no target token")
            return super().batch(step)

    rows = []
    with pytest.raises(Error, match="no target token"):
        run(9, batches=Broken(), write=rows.append)
    assert len(rows) >= 1


TRAIN_SLOWLY = textwrap.dedent("""
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_loop import *
    from pathlib import Path
    folder = Path(sys.argv[1])
    checkpoints = Checkpoints(folder / "checkpoints")
    state = checkpoints.restore(start()[0]) if checkpoints.steps else start()[0]
    cut(folder / "metrics.jsonl", int(state.step))
    write = append_to(folder / "metrics.jsonl")

    def slowly(row):
        write(row)
        time.sleep(0.01)

    run(60, state, checkpoints=checkpoints, checkpoint_seconds=0.1, write=slowly)
""")


def test_killed_again_and_again_the_run_ends_as_if_never_killed(tmp_path):
    """kill -9 while training: the same command ends with the same bits, and each step stands in metrics.jsonl once."""
    program = TRAIN_SLOWLY.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, str(tmp_path)]
    kills = 0
    while (process := subprocess.Popen(command)).poll() is None:
        lines = len(read_lines(tmp_path / "metrics.jsonl"))
        deadline = time.monotonic() + 60
        while process.poll() is None and kills < 3 and time.monotonic() < deadline:
            if len(read_lines(tmp_path / "metrics.jsonl")) >= max(lines, 1) + 12:
                process.kill()
                kills += 1
            time.sleep(0.005)
        process.wait()
        if process.returncode == 0:
            break
    assert kills == 3
    assert bits(Checkpoints(tmp_path / "checkpoints").restore(start()[0])) == bits(run(60)[0])
    expected = []
    run(60, write=expected.append)
    assert read_lines(tmp_path / "metrics.jsonl") == json.loads(json.dumps(expected))


def test_cut_drops_later_steps_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "loss": 1}\n{"step": 3}\n{"st')
    cut(path, 2)
    append_to(path)({"step": 3, "again": True})
    assert read_lines(path) == [{"step": 1}, {"step": 2}, {"step": 2, "loss": 1}, {"step": 3, "again": True}]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    path = tmp_path / "summary.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    with pytest.raises(Error, match="cannot be written"):
        write_text(tmp_path / "missing" / "summary.json", "x")
