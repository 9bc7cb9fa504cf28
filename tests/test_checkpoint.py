"""Checkpoints: what is restored is what was saved, and nothing (kill, full disk, another run) breaks an earlier one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxft.errors import Error
from jaxft.training.checkpoint import Checkpoints

IDENTITY = {"model": "abc", "method": {"name": "lora", "rank": 8, "targets": ["q", "v"]}}


def make_state(value=0.0):
    trainable = {"layers": ({"q": {"a": jnp.full((2, 3), float(value)), "b": jnp.zeros((3, 0))}},)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {"trainable": trainable, "opt_state": optimizer.init(trainable), "step": jnp.int32(7)}


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_restores_the_saved_tree_with_its_structure_and_types(tmp_path):
    state = make_state(0.1)
    Checkpoints(tmp_path, identity=IDENTITY).save(7, state)
    again = Checkpoints(tmp_path, identity=IDENTITY)
    restored = again.restore(jax.eval_shape(lambda: make_state()))
    same(restored, state)
    assert isinstance(restored["step"], jax.Array) and restored["step"].dtype == jnp.int32


def test_keeps_the_newest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, float("nan"))]:
        checkpoints.save(step, make_state(step))
        if loss is not None:
            checkpoints.mark(step, loss)
    assert (checkpoints.steps, checkpoints.best) == ([2, 4, 5], 2)
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2)  # the losses are read from disk
    again.save(6, make_state(6))
    again.mark(6, 2.5)
    assert (again.steps, again.best) == ([2, 5, 6], 2)
    assert float(again.restore(make_state(), step=2)["trainable"]["layers"][0]["q"]["a"][0, 0]) == 2


def test_arrays_land_on_the_given_shardings(tmp_path):
    if jax.device_count() < 2:
        pytest.skip("one device: run with XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = jax.make_mesh((2,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    Checkpoints(tmp_path).save(1, {"a": jnp.arange(8.0)})
    restored = Checkpoints(tmp_path).restore({"a": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)})
    assert restored["a"].sharding == sharding
    np.testing.assert_array_equal(restored["a"], np.arange(8.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "xyz"}, "model abc, this run has xyz"),
        ({"method": IDENTITY["method"] | {"rank": 16}}, "method.rank 8, this run has 16"),
        ({"method": IDENTITY["method"] | {"targets": ["q"]}}, "method.targets"),
        ({"method": IDENTITY["method"] | {"dropout": 0.1}}, "method.dropout nothing, this run has 0.1"),
    ],
)
def test_another_model_or_method_is_named(tmp_path, change, message):
    Checkpoints(tmp_path, identity=IDENTITY).save(1, make_state())
    with pytest.raises(Error, match=message):
        Checkpoints(tmp_path, identity=IDENTITY | change).restore(make_state())


def test_other_shapes_and_no_checkpoint_are_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Error, match="holds no checkpoint"):
        checkpoints.restore(make_state())
    checkpoints.save(1, {"a": jnp.zeros((2, 3))})
    with pytest.raises(Error, match=r"holds a as float32\[2,3\], this run needs float32\[2,4\]"):
        checkpoints.restore({"a": jnp.zeros((2, 4))})
    with pytest.raises(Error, match=r"holds b as nothing, this run needs float32\[1\]"):
        checkpoints.restore({"a": jnp.zeros((2, 3)), "b": jnp.zeros(1)})
    with pytest.raises(Error, match="no checkpoint of step 5"):
        checkpoints.restore({"a": jnp.zeros((2, 3))}, step=5)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": jnp.arange(1000.0)})
    for file in (tmp_path / "1/state/d").iterdir():
        file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(Error, match=r"1 cannot be read .*delete it to use an earlier one") as caught:
        checkpoints.restore({"a": jnp.zeros(1000)})
    assert "\n" not in str(caught.value)


SAVE_FOREVER = textwrap.dedent("""
    import itertools, sys
    import jax.numpy as jnp
    from jaxft.training.checkpoint import Checkpoints
    checkpoints = Checkpoints(sys.argv[1], keep=1)
    for step in itertools.count(max(checkpoints.steps, default=0) + 1):
        checkpoints.save(step, {"a": jnp.full((300_000,), step, jnp.float32), "b": jnp.full((10,), step)})
        print(step, flush=True)
""")


def start(program, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_kill_9_at_any_moment_loses_nothing_that_was_reported_saved(tmp_path):
    draw = random.Random(0)
    cut_short = 0
    for _ in range(6):
        process = start(SAVE_FOREVER, tmp_path)
        assert process.stdout is not None
        reported = int(process.stdout.readline())
        time.sleep(draw.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        reported = max([reported, *map(int, process.stdout.read().split())])
        process.wait()
        cut_short += any(tmp_path.glob("*tmp*")) or (tmp_path / "deleted").exists()
        checkpoints = Checkpoints(tmp_path, keep=1)
        newest = checkpoints.steps[-1]
        assert newest >= reported
        for step in checkpoints.steps:
            restored = checkpoints.restore({"a": jnp.zeros(300_000), "b": jnp.zeros(10, jnp.int32)}, step=step)
            assert set(np.unique(restored["a"])) == set(np.unique(restored["b"])) == {step}
        checkpoints.close()
        assert not any(tmp_path.glob("*tmp*"))
    assert cut_short, "no kill fell into a write: the test shows nothing"


FILL_THE_DISK = textwrap.dedent("""
    import sys
    import jax, jax.numpy as jnp
    from jaxft.errors import Error
    from jaxft.training.checkpoint import Checkpoints
    checkpoints = Checkpoints(sys.argv[1], keep=1)
    try:
        for step in range(1, 30):
            checkpoints.save(step, {"a": jax.random.normal(jax.random.key(step), (step * 100_000,))})
    except Error as error:
        print(error)
    newest = checkpoints.steps[-1]
    restored = Checkpoints(sys.argv[1]).restore({"a": jnp.zeros(newest * 100_000)})
    assert (restored["a"] == jax.random.normal(jax.random.key(newest), (newest * 100_000,))).all()
    print("intact", newest)
""")


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs `unshare` to mount a small disk")
def test_a_full_disk_is_named_and_the_last_checkpoint_survives(tmp_path):
    mount = f"mount -t tmpfs -o size=3m none {tmp_path} && "
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount + "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    command = mount + f'"{sys.executable}" -c "$0" {tmp_path}/checkpoints'
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, FILL_THE_DISK], capture_output=True, text=True, env=environment
    )
    error, intact = run.stdout.strip().split("\n")
    newest = int(intact.split()[1])
    assert f"{tmp_path}/checkpoints: the checkpoint of step {newest + 1} could not be written (no space left)" in error
    assert f"free disk space there or change `out`, then run the same command; the checkpoint of step {newest}" in error
