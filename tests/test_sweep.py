"""Sweeps: a member is its solo run, members do not disturb one another, and what the folder holds."""

import copy
import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from conftest import assert_close, make_batch

from jaxft.errors import Error, UsageError
from jaxft.methods import from_config
from jaxft.methods.peft import load_adapter
from jaxft.pretrained import load
from jaxft.recipe import override
from jaxft.runs import run
from jaxft.runs.resources import count_compilations
from jaxft.sweep import best_of, load_sweep, members_of, plot, show_results, sweep, sweep_loss, sweep_step
from jaxft.sweep.grid import RANKED
from jaxft.sweep.memory import fitting
from jaxft.sweep.show import groups
from jaxft.sweep.step import member, padded_alpha, start
from jaxft.training.optimizer import OptimizerConfig, make_optimizer
from jaxft.training.progress import Progress
from jaxft.training.state import init_state
from jaxft.training.step import loss_step, train_step

QUIET = Progress(quiet=True)
STEPS = 4
# eps: where a gradient is all rounding, AdamW would make a whole step of it, and two orders of summing two of them.
OPTIMIZER = OptimizerConfig(
    learning_rate=0.01, schedule="cosine", warmup_steps=1, weight_decay=0.1, clip_norm=0.5, eps=1e-4
)
LORA = {"name": "lora", "rank": 4, "alpha": 8.0, "targets": "all", "dropout": 0.2}
# (method's settings, optimizer's settings, seed)
MEMBERS = [
    ({}, {"learning_rate": 0.01, "weight_decay": 0.1}, 0),
    ({"rank": 2, "alpha": 3.0}, {"learning_rate": 0.03, "weight_decay": 0.0}, 0),
    ({"alpha": 32.0}, {"learning_rate": 0.001, "weight_decay": 0.5}, 1),
    ({"rank": 1}, {"learning_rate": 0.02, "weight_decay": 0.3}, 2),
]


def solo(model, method, optimizer, seed, batches):
    """Losses, the trained tree and the validation loss of a run by the ordinary step."""
    method, update = from_config(method), make_optimizer(optimizer, STEPS)
    init_key, key = jax.random.split(jax.random.key(seed))
    trainable, frozen = method.init(init_key, {"params": model.params})
    state, step = init_state(trainable, update), train_step(model, method, update)
    losses = []
    for batch in batches:
        state, metrics = step(state, frozen, batch, key)
        losses.append(float(metrics["loss"]))
    return losses, state.trainable, loss_step(model, method)(state.trainable, frozen, batches[0])


class Swept:
    """Members by the vmapped step: `members`, `frozen` and each step's losses `[M]`."""

    def __init__(self, model, members=MEMBERS, base=LORA, optimizer=OPTIMIZER, own=False):
        self.model, self.optimizer, self.methods = model, optimizer, [{**base, **method} for method, _, _ in members]
        self.widest = max(self.methods, key=lambda method: method.get("rank", 0))
        self.settings = {name: [rates[name] for _, rates, _ in members] for name in members[0][1]}
        if "alpha" in base:
            self.settings["alpha"] = [padded_alpha(method, self.widest["rank"]) for method in self.methods]
        self.seeds = [seed for _, _, seed in members]
        self.step = sweep_step(model, self.widest, optimizer, STEPS, own_batches=own)
        self.loss = sweep_loss(model, self.widest, own_batches=own)
        self.begin()

    def begin(self):
        keys = [jax.random.split(jax.random.key(seed)) for seed in self.seeds]
        self.keys, drawn = jax.numpy.stack([key for _, key in keys]), [key for key, _ in keys]
        self.members, self.frozen = start(
            self.model, self.methods, drawn, self.settings, self.optimizer, STEPS, self.widest
        )
        self.losses = []
        return self

    def again(self):
        return copy.copy(self).begin()

    def train(self, batches, stop=None):
        for n, batch in enumerate(batches):
            if stop is not None and n == stop[1]:
                self.members = self.members._replace(stopped=np.arange(len(self.methods)) == stop[0])
            self.members, _ = self.step(self.members, self.frozen, batch, self.keys)
            self.losses.append(np.asarray(self.members.loss))
        return self

    def trainable(self, i):
        return member(self.members.states.trainable, self.frozen, i, self.methods[i], self.model)[1]


def batches_of(model, seed=0):
    return [make_batch(model.config, seed=seed + n) for n in range(STEPS)]


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def swept(llama):
    return Swept(llama).train(batches_of(llama))


def check_member(swept, i, batches, tolerance=1e-5):
    """Compare losses, weights and validation loss of a member with those of its solo run."""
    rates = {name: values[i] for name, values in swept.settings.items() if name != "alpha"}
    optimizer = dataclasses.replace(swept.optimizer, **rates)
    losses, trainable, summed = solo(swept.model, swept.methods[i], optimizer, swept.seeds[i], batches)
    np.testing.assert_allclose([loss[i] for loss in swept.losses], losses, rtol=tolerance)
    assert_close(swept.trainable(i), trainable, 10 * tolerance)
    return summed


@pytest.mark.parametrize("i", range(len(MEMBERS)))
def test_a_member_is_its_solo_run(swept, i):
    """Learning rate, weight decay, alpha, rank and seed differ; clipping and the schedule are each member's own."""
    batches = batches_of(swept.model)
    summed = check_member(swept, i, batches)
    totals, counts = swept.loss(swept.members, swept.frozen, batches[0])
    np.testing.assert_allclose([totals[i], counts[i]], summed, rtol=1e-5)


def test_a_member_of_an_encoder_decoder_is_its_solo_run(flan_t5):
    """This model is sharp: rounding grows a hundredfold in a step. In float64 the two agree to 1e-7."""
    batches = batches_of(flan_t5)
    check_member(Swept(flan_t5).train(batches), 3, batches, tolerance=2e-4)


def test_padding_stays_exactly_zero(swept):
    ranks = [method["rank"] for method in swept.methods]
    seen = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(swept.members.states):
        name = getattr(path[-1], "key", None)
        for i, rank in enumerate(ranks):
            if name in ("a", "b"):
                padding = leaf[i][..., rank:] if name == "a" else leaf[i][:, rank:]
                assert not np.asarray(padding).any()
                assert np.asarray(leaf[i]).any()
                seen += padding.size
    assert seen


def test_the_product_with_the_base_is_one_for_all_members(swept):
    """No array of the step has a kernel's shape with the members before it."""
    config, members = swept.model.config, len(MEMBERS)
    batch = make_batch(config, rows=3, length=7)  # no product of sizes is a kernel's
    lowered = swept.step.lower(swept.members, swept.frozen, batch, swept.keys).as_text()
    kernels = {leaf.shape[1:] for leaf in jax.tree.leaves(swept.model.params["layers"]) if leaf.ndim == 3}
    assert f"<{config.num_layers}x{config.width}x{config.mlp_width}x" in lowered
    for kernel in kernels:
        for first in (f"{members}x", f"{members}x{config.num_layers}x", f"{config.num_layers}x{members}x"):
            assert f"<{first}{'x'.join(map(str, kernel))}x" not in lowered


def test_a_member_that_diverges_stays_where_it_was_and_disturbs_no_other(swept):
    broken = swept.again()
    start = jax.device_get(broken.trainable(2))
    settings = dict(broken.members.settings)
    settings["alpha"] = settings["alpha"].at[2].set(np.inf)  # b starts at 0, and 0 · inf is NaN
    settings["learning_rate"] = settings["learning_rate"].at[1].set(1e30)
    broken.members = broken.members._replace(settings=settings)
    broken.train(batches_of(swept.model))
    assert broken.members.finite.tolist() == [True, False, False, True]
    same(broken.trainable(2), start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(broken.trainable(1)))
    assert broken.members.states.step.tolist()[2:] == [0, STEPS] and broken.members.states.step[1] < STEPS
    for i in (0, 3):
        same(broken.trainable(i), swept.trainable(i))


def test_a_stopped_member_no_longer_moves_and_the_others_do(swept):
    batches = batches_of(swept.model)
    half, stopped = swept.again().train(batches[:2]), swept.again().train(batches, stop=(1, 2))
    same(stopped.trainable(1), half.trainable(1))
    assert stopped.members.states.step.tolist() == [4, 2, 4, 4]
    assert stopped.members.finite.all()
    for i in (0, 2, 3):
        same(stopped.trainable(i), swept.trainable(i))


def test_another_chunk_of_members_compiles_nothing(swept):
    other = swept.again()
    order = np.array([2, 0, 3, 1])
    other.members = jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, other.members)
    with count_compilations() as compiled:
        other.train(batches_of(swept.model)[:1])
    assert compiled() == 0


def test_members_with_batches_of_their_own(llama):
    streams = [batches_of(llama, seed=10 * i) for i in range(len(MEMBERS))]
    each = zip(*streams, strict=True)
    laid = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in each]
    check_member(Swept(llama, own=True).train(laid), 1, streams[1])


def test_chunks_that_no_member_needs_are_skipped(llama):
    """Members with batches of their own have conditions of their own; mapped one by one, both sides would be taken."""
    swept = Swept(llama, own=True)
    rows = make_batch(llama.config, rows=4 * len(MEMBERS))
    step = swept.step.lower(swept.members, swept.frozen, rows, swept.keys).as_text()
    loss = swept.loss.lower(swept.members, swept.frozen, rows).as_text()
    assert "stablehlo.case" in step and "stablehlo.case" in loss


@pytest.mark.parametrize(
    ("base", "optimizer"),
    [
        ({"name": "full"}, OPTIMIZER),
        ({"name": "prompt", "length": 3}, dataclasses.replace(OPTIMIZER, name="adafactor", clip_norm=None)),
        pytest.param({**LORA, "rslora": True}, OPTIMIZER, marks=pytest.mark.slow),
        pytest.param({**LORA, "name": "dora"}, OPTIMIZER, marks=pytest.mark.slow),
        pytest.param({**LORA, "name": "pissa"}, OPTIMIZER, marks=pytest.mark.slow),
        pytest.param({"name": "vera", "rank": 4}, OPTIMIZER, marks=pytest.mark.slow),
        ({"name": "selective", "targets": "norms"}, OPTIMIZER),
        ({"name": "adapter", "width": 4}, OPTIMIZER),
        ({"name": "prefix", "length": 3, "hidden": 4}, OPTIMIZER),
        ({"name": "ia3"}, OPTIMIZER),
        ({"name": "union", "methods": [{**LORA}, {"name": "selective", "targets": "norms"}]}, OPTIMIZER),
    ],
    ids=["full", "prompt", "rslora", "dora", "pissa", "vera", "selective", "adapter", "prefix", "ia3", "union"],
)
def test_other_methods_can_be_swept(llama, base, optimizer):
    """The rank differs where it may; what a method keeps frozen of its own (PiSSA's start) is each member's."""
    rank = {"rank": 2} if base["name"] in RANKED else {}
    members = [({}, {"learning_rate": 0.003}, 0), (rank, {"learning_rate": 0.001}, 1)]
    check_member(Swept(llama, members, base, optimizer).train(batches_of(llama)), 1, batches_of(llama), 1e-4)


def test_chunks_shrink_until_they_fit():
    class Program:
        def __init__(self, count):
            self.count = count

        def compile(self):
            return self

        def memory_analysis(self):
            return self

        argument_size_in_bytes = property(lambda self: 1000 + 10 * self.count)
        temp_size_in_bytes = property(lambda self: 80 * self.count)
        output_size_in_bytes = alias_size_in_bytes = 10

    assert fitting(lambda count: (Program(count), 1000), 9, free=10_000) == 9
    assert fitting(lambda count: (Program(count), 1000), 9, free=500) == 3
    with pytest.raises(Error, match="one member needs"):
        fitting(lambda count: (Program(count), 1000), 9, free=50)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    # A calm model: a sharp one makes rounding visible.
    return tiny_run.write_model(folder / "model", scale=1), tiny_run.write_rows(folder / "data")


GRID = {"optimizer.learning_rate": [0.01, 0.003], "method.rank": [1, 2], "train.seed": [0, 1]}


def sweep_recipe(place, out, **train):
    return tiny_run.recipe(*place, out, **train)


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    recipe = sweep_recipe(place, tmp_path_factory.mktemp("done") / "sweep")
    return recipe, sweep(recipe, GRID, at_once=3, progress=QUIET)


def solo_run(recipe, overrides, out):
    flags = [f"--{key}={value}" for key, value in overrides.items()]
    return run(dataclasses.replace(override(recipe, flags), out=str(out)), progress=QUIET)


def test_the_best_member_is_its_solo_run_and_is_saved_as_an_ordinary_adapter(done, tmp_path):
    recipe, rows = done
    best = rows[best_of(rows)]
    assert best["validation_loss"] == min(row["validation_loss"] for row in rows)
    solo_run(recipe, best["overrides"], tmp_path / "solo")
    model = load(recipe.model.source)
    method, tuned, _ = load_adapter(Path(recipe.out) / "adapter", model)
    expected_method, expected, _ = load_adapter(tmp_path / "solo" / "adapter", model)
    assert method.config == expected_method.config
    assert_close(tuned, expected, 1e-3)
    scores = [json.loads(line) for line in (tmp_path / "solo" / "metrics.jsonl").read_text().splitlines()]
    for step, loss in best["evaluations"]:
        expected = next(row["validation_loss"] for row in scores if row["step"] == step and "validation_loss" in row)
        assert loss == pytest.approx(expected, rel=1e-4)
    assert best["train_loss"] == pytest.approx([row["loss"] for row in scores if "loss" in row][-1], rel=1e-4)


def test_the_folder_holds_everything_about_the_sweep(done):
    recipe, rows = done
    folder = Path(recipe.out)
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert lines == rows and [row["member"] for row in rows] == list(range(8))
    assert all(row["finite"] and not row["stopped"] and row["steps"] == 8 for row in rows)
    asked = json.loads((folder / "sweep.json").read_text())
    assert asked["members"] == [row["overrides"] for row in rows] and asked["best"] == best_of(rows)
    assert (folder / "sweep.png").stat().st_size > 1000 and (folder / "recipe.yaml").exists()


def test_a_finished_sweep_does_nothing_and_an_interrupted_one_goes_on_with_what_is_left(done, tmp_path):
    recipe, rows = done
    assert sweep(recipe, GRID, at_once=3, progress=QUIET) == rows
    part = dataclasses.replace(recipe, out=str(tmp_path / "part"))

    class Interrupted(Progress):
        def note(self, text):
            if str(text).startswith("members 7"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(part, GRID, at_once=3, progress=Interrupted(quiet=True))
    assert len((tmp_path / "part" / "results.jsonl").read_text().splitlines()) == 6
    resumed = sweep(part, GRID, at_once=3, progress=QUIET)
    assert resumed == rows  # bitwise: the same program ran the same chunks
    with pytest.raises(UsageError, match="another sweep; it differs in members"):
        sweep(part, {"train.seed": [0, 1]}, progress=QUIET)
    assert len(sweep(part, {"train.seed": [0, 1]}, overwrite=True, progress=QUIET)) == 2


def test_members_stop_by_patience_and_the_best_weights_may_count(place, tmp_path):
    """A rate that is too high goes up and is stopped; its best weights, from before, are what counts."""
    recipe = sweep_recipe(place, tmp_path / "out", eval_every=1, use="best")
    rows = sweep(recipe, {"optimizer.learning_rate": [0.003, 30.0]}, patience=2, progress=QUIET)
    assert [row["stopped"] for row in rows] == [False, True] and rows[1]["steps"] < 8
    for row in rows:
        assert row["validation_loss"] == min(loss for _, loss in row["evaluations"])
    stopped = rows[1]["steps"]
    assert len({loss for step, loss in rows[1]["evaluations"] if step >= stopped}) == 1


def test_every_member_may_have_its_own_data(place, tmp_path):
    """Of unequal length, and of an encoder-decoder; a member is still its solo run."""
    model = tiny_run.write_model(tmp_path / "t5", scale=1, t5=True)
    other = tiny_run.write_rows(tmp_path / "other", train=17, validation=7)
    recipe = sweep_recipe((model, place[1]), tmp_path / "out", steps=4)
    recipe = tiny_run.changed(tiny_run.changed(recipe, "data", chat=False), "optimizer", learning_rate=0.003, eps=1e-4)
    rows = sweep(recipe, {"data.source": [str(place[1]), str(other)]}, progress=QUIET)
    solo_run(recipe, rows[1]["overrides"], tmp_path / "solo")
    scores = [json.loads(line) for line in (tmp_path / "solo" / "metrics.jsonl").read_text().splitlines()]
    validation = [row["validation_loss"] for row in scores if "validation_loss" in row]
    assert rows[1]["train_loss"] == pytest.approx([row["loss"] for row in scores if "loss" in row][-1], rel=1e-4)
    assert [loss for _, loss in rows[1]["evaluations"]] == pytest.approx(validation, rel=1e-4)
    with pytest.raises(UsageError, match="steps: set train"):
        out = dataclasses.replace(recipe, out=str(tmp_path / "unequal"))
        sweep(tiny_run.changed(out, "train", steps=None), {"data.source": [str(place[1]), str(other)]}, progress=QUIET)


def test_if_every_member_diverges_it_is_an_error(place, tmp_path):
    recipe = sweep_recipe(place, tmp_path / "out")
    with pytest.raises(Error, match="every member diverged"):
        sweep(recipe, {"optimizer.learning_rate": [1e38, 2e38]}, progress=QUIET)
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize(
    ("changes", "grid", "message"),
    [
        ([], {"train.batch_size": [1, 2]}, "members cannot differ in 'train.batch_size'.*they can in .*method.rank"),
        ([], {"method.name": ["lora", "full"]}, "members cannot differ in 'method.name'"),
        ([], {"optimizer.learning_rte": [1, 2]}, "did you mean 'optimizer.learning_rate'"),
        ([], {"method.rank": 4}, "sweep.method.rank: 4 is no list"),
        ([], {"method.rank": []}, r"sweep.method.rank: \[\] is no list"),
        ([], {"method.rank": [4, 0]}, "method.rank: 0"),
        (["--method.rank_pattern={q: 2}"], {"method.rank": [1, 2]}, "beside method.rank_pattern"),
        (["--method=vera"], {"method.rank": [1, 2]}, "the rank of vera cannot vary"),
        ([], {"method.rank": [4, 4000]}, "method.rank: 4000 exceeds"),
        ([], {"optimizer.learning_rate": [0.1, -1]}, "optimizer.learning_rate should be greater than 0"),
        ([], {"train.seed": [0, 0]}, "two members are the same"),
        ([], {}, "nothing to vary"),
        ([], "method.rank", "write a mapping of lists"),
        (["--method=full"], {"method.rank": [4, 8]}, "full has no such setting"),
        (["--optimizer.name=adafactor"], {"method.rank": [1, 2]}, "adafactor"),
        (["--optimizer.name=adafactor"], {"optimizer.weight_decay": [0.0, 0.1]}, "adafactor"),
        (["--mesh.data=2"], {"train.seed": [0, 1]}, "mesh.data: a sweep runs on one device"),
        (["--train.accumulate=3"], {"train.seed": [0, 1]}, "train.accumulate: 4 rows"),
        (["--train.eval_examples=0"], {"train.seed": [0, 1]}, "validation split"),
        (["--data.source=nowhere"], {"train.seed": [0, 1]}, "nowhere"),
    ],
)
def test_what_cannot_be_swept_is_one_line(place, tmp_path, changes, grid, message):
    recipe = override(sweep_recipe(place, tmp_path / "out"), changes)
    with pytest.raises(UsageError, match=message) as caught:
        sweep(recipe, grid, progress=QUIET)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["at_once", "patience"])
def test_counts_are_at_least_one(place, tmp_path, setting):
    with pytest.raises(UsageError, match=f"{setting}: 0 is not"):
        sweep(sweep_recipe(place, tmp_path), {"train.seed": [0, 1]}, progress=QUIET, **{setting: 0})


def test_the_folder_of_a_run_is_left_alone(place, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UsageError, match="holds a run, and not a sweep"):
        sweep(sweep_recipe(place, tmp_path), {"train.seed": [0, 1]}, progress=QUIET)


RECIPE = """
model: {source: somewhere}
data: {source: data.jsonl, prompt: question, completion: answer}
"""


def test_a_grid_comes_from_yaml_and_flags(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE + "sweep:\n  method: {rank: [4, 8]}\n  train.seed: [0, 1]\n")
    flags = ["--sweep.optimizer.learning_rate=1e-4,3e-4", "--sweep.train.seed", "5", "--train.steps=7"]
    recipe, grid = load_sweep(file, flags)
    assert grid == {"method.rank": [4, 8], "train.seed": [5], "optimizer.learning_rate": [1e-4, 3e-4]}
    assert recipe.train.steps == 7 and recipe.out == "runs/recipe-sweep"
    members = members_of(recipe, grid)
    assert len(members) == 4
    overrides, last = members[-1]
    assert overrides == {"method.rank": 8, "train.seed": 5, "optimizer.learning_rate": 3e-4}
    assert last.method["rank"] == 8 and last.train.seed == 5 and last.optimizer.learning_rate == 3e-4
    assert load_sweep(file, ["--sweep.data.source=a.jsonl,b.jsonl"])[1]["data.source"] == ["a.jsonl", "b.jsonl"]
    file.write_text(RECIPE + "sweep:\n- {method.rank: 4, method.alpha: 8}\n- method: {rank: 8}\n")
    recipe, grid = load_sweep(file)
    assert [(one.method["rank"], one.method["alpha"]) for _, one in members_of(recipe, grid)] == [(4, 8), (8, 32.0)]
    with pytest.raises(UsageError, match="lists its members"):
        load_sweep(file, ["--sweep.train.seed=0,1"])


def result(rate, seed, loss, rank=4, **changes):
    overrides = {"optimizer.learning_rate": rate, "method.rank": rank, "train.seed": seed}
    row = {"overrides": overrides, "train_loss": loss, "validation_loss": loss, "finite": True, "stopped": False}
    return {"member": 0, **row, **changes}


def test_the_table_and_the_plot_are_over_seeds(tmp_path):
    from rich.console import Console

    rows = [result(1e-4, 0, 2.0), result(1e-4, 1, 4.0), result(3e-4, 0, 1.0), result(3e-4, 1, None, finite=False)]
    rows.append(result(3e-4, 0, 1.5, rank=8, stopped=True))
    rows = [{**row, "member": i} for i, row in enumerate(rows)]
    assert [(group.members, group.diverged, group.stopped) for group in groups(rows)] == [
        (2, 0, 0),
        (2, 1, 0),
        (1, 0, 1),
    ]
    console = Console(width=160, file=io.StringIO())
    show_results(rows, console)
    text = console.file.getvalue()
    assert (
        "best: member 2" in text
        and "3.0000 ± 1.4142" in text
        and text.index("1.0000") < text.index("1.5000") < text.index("3.0000")
    )
    plot(rows, tmp_path / "sweep.png")
    plot([result(1e-4, 0, 2.0)], tmp_path / "one.png")
    assert (tmp_path / "sweep.png").stat().st_size > 5000
