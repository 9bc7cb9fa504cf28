"""A run: what its folder holds, that it goes on where it stopped, and what it refuses."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from jaxft.errors import Error, UsageError
from jaxft.methods.peft import load_adapter
from jaxft.pretrained import load
from jaxft.recipe import MeshRecipe, load_recipe, resolve
from jaxft.runs import run
from jaxft.runs.folder import FILES
from jaxft.training.journal import read_lines
from jaxft.training.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    return tiny_run.write_model(folder / "model"), tiny_run.write_rows(folder / "data")


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    recipe = tiny_run.recipe(*place, tmp_path_factory.mktemp("done"), eval_generate=2)
    return recipe, run(recipe, progress=QUIET)


def files(recipe, name):
    return Path(recipe.out) / name


def adapter(recipe):
    return load_adapter(files(recipe, "adapter"), load(recipe.model.source))[1]


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


class Stop(Progress):
    """Sends a signal to this process when a step's numbers are shown."""

    def __init__(self, step, number):
        super().__init__(quiet=True)
        self.at, self.number = step, number

    def stepped(self, row, tokens_per_second):
        if row["step"] == self.at:
            os.kill(os.getpid(), self.number)


def test_the_folder_holds_everything_about_the_run(done):
    recipe, summary = done
    there = {path.name for path in Path(recipe.out).iterdir()}
    assert there == {*FILES, ".lock"} - {"answers"}  # predictions.jsonl has them
    assert load_recipe(files(recipe, "recipe.yaml")) == resolve(recipe)
    assert json.loads(files(recipe, "summary.json").read_text()) == json.loads(json.dumps(summary))
    rows = read_lines(files(recipe, "metrics.jsonl"))
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 9))
    assert all({"loss", "tokens", "grad_norm", "learning_rate"} <= set(row) for row in steps)
    evaluations = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in evaluations] == [3, 6, 8]
    assert all({"validation_rouge1", "validation_chrf"} <= set(row) for row in evaluations)
    predictions = read_lines(files(recipe, "predictions.jsonl"))
    assert [set(row) for row in predictions] == [{"id", "prompt", "references", "before", "after"}] * 4
    assert [row["id"] for row in predictions] == ["2-0", "2-1", "2-2", "2-3"]
    (session,) = json.loads(files(recipe, "environment.json").read_text())["sessions"]
    assert session["versions"]["jax"] == jax.__version__ and session["host_cpus"] == os.cpu_count()


def test_the_summary_says_what_was_gained_and_what_it_took(done):
    _, summary = done
    assert set(summary["before"]) == set(summary["after"]) == {"loss", "rouge1", "chrf"}
    assert summary["after"]["loss"] < summary["before"]["loss"] - 0.1
    assert summary["provenance"]["rouge1"].startswith("rouge-score|F1|stemmer:yes")
    assert summary["scored_on"] == {"split": "test", "examples": 4}
    assert summary["sizes"]["trainable"] == 2 * 2 * (4 * (16 + 16) + 3 * (16 + 32))
    assert summary["sizes"]["gradient_bytes"] == 4 * summary["sizes"]["trainable"]
    assert summary["compilations"]["train_step"] == 1 < summary["compilations"]["programs"]
    assert summary["peak_memory_bytes"]["host"] > 1e7
    assert {"load", "before", "train", "first_step", "compile", "evaluate", "after"} <= set(summary["seconds"])
    assert summary["data"]["train"]["examples"] == 24


def test_the_adapter_is_the_trained_one(done):
    recipe, summary = done
    from jaxft.evaluation.scoring import batch_losses
    from jaxft.runs.parts import encode_rows, in_order, read_rows
    from jaxft.training.step import loss_step

    model = load(recipe.model.source)
    method, trainable, frozen = load_adapter(files(recipe, "adapter"), model)
    examples, _ = encode_rows(recipe, read_rows(recipe)["test"], model)
    losses = batch_losses(loss_step(model, method), trainable, frozen, in_order(model, examples, 4))
    total, tokens = losses.sum(axis=0)
    assert total / tokens == pytest.approx(summary["after"]["loss"], abs=1e-6)


def test_a_finished_run_says_so_and_does_nothing(done):
    recipe, summary = done
    before = {name: files(recipe, name).stat().st_mtime_ns for name in ("summary.json", "metrics.jsonl")}
    notes = []

    class Notes(Progress):
        def note(self, text):
            notes.append(text)

    assert run(recipe, progress=Notes(quiet=True)) == json.loads(json.dumps(summary))
    assert "this run is finished" in notes[0]
    assert before == {name: files(recipe, name).stat().st_mtime_ns for name in before}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_the_same_recipe_goes_on_to_the_same_bits(done, tmp_path, number, code):
    whole, summary = done
    recipe = dataclasses.replace(whole, out=str(tmp_path / "run"))
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
        run(recipe, progress=Stop(2, number))
    assert getattr(stopped.value, "code", None) == code
    assert not files(recipe, "summary.json").exists()
    resumed = run(recipe, progress=QUIET)
    assert resumed["resumed_from"] in range(2, 7)
    assert resumed["after"] == summary["after"] and resumed["before"] == summary["before"]
    same(adapter(recipe), adapter(whole))
    assert read_lines(files(recipe, "metrics.jsonl")) == read_lines(files(whole, "metrics.jsonl"))
    assert read_lines(files(recipe, "predictions.jsonl")) == read_lines(files(whole, "predictions.jsonl"))


def test_another_recipe_is_refused_naming_the_fields_and_overwrite_starts_anew(place, tmp_path):
    first = tiny_run.recipe(*place, tmp_path, steps=1)
    run(first, progress=QUIET)
    second = tiny_run.changed(first, "train", batch_size=2, log_every=9)
    with pytest.raises(
        UsageError, match=r"another recipe; it differs in train.batch_size \(4 there, 2 here\): .*--overwrite"
    ):
        run(second, progress=QUIET)
    again = run(tiny_run.changed(first, "train", log_every=9), progress=QUIET)  # free to change
    assert again["steps"] == 1
    assert run(second, overwrite=True, progress=QUIET)["data"]["train"]["examples"] == 24
    assert load_recipe(tmp_path / "recipe.yaml").train.batch_size == 2


def test_a_folder_with_other_things_is_left_alone(place, tmp_path):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(UsageError, match=r"holds adapter and no recipe.yaml"):
        run(tiny_run.recipe(*place, tmp_path), progress=QUIET)


def test_two_processes_do_not_share_a_folder(place, tmp_path):
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Error, match="another process is running in"):
            run(tiny_run.recipe(*place, tmp_path), progress=QUIET)


def test_a_loss_that_is_not_finite_stops_with_step_and_examples_and_keeps_the_checkpoint(place, tmp_path):
    recipe = tiny_run.recipe(*place, tmp_path, eval_every=1)
    recipe = tiny_run.changed(recipe, "optimizer", learning_rate=1e38, warmup=0)
    with pytest.raises(
        Error, match=r"^step \d: the loss or its gradient is not finite .* on 0-\d+, .*step \d is intact"
    ):
        run(recipe, progress=QUIET)
    assert any((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_of_other_data_is_refused(place, tmp_path):
    data = tiny_run.write_rows(tmp_path / "data")
    recipe = tiny_run.recipe(place[0], data, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=Stop(2, signal.SIGINT))
    tiny_run.write_rows(data, train=20)
    with pytest.raises(Error, match=r"was made with data [0-9a-f]+, this run has [0-9a-f]+"):
        run(recipe, progress=QUIET)


def test_the_best_checkpoint_may_be_the_one_that_counts(place, tmp_path):
    recipe = tiny_run.recipe(*place, tmp_path, use="best", steps=6, eval_every=2)
    recipe = tiny_run.changed(recipe, "optimizer", learning_rate=100.0, schedule="constant", clip_norm=0)
    run(recipe, progress=QUIET)
    losses = {
        row["step"]: row["validation_loss"]
        for row in read_lines(tmp_path / "metrics.jsonl")
        if "validation_loss" in row
    }
    best = min(losses, key=losses.get)
    assert best < 6, "the rate is meant to be too large"
    from jaxft.runs.parts import load_model, make_parts, read_rows
    from jaxft.training.checkpoint import Checkpoints

    parts = make_parts(resolve(recipe), read_rows(recipe), load_model(recipe))
    state = Checkpoints(tmp_path / "checkpoints", identity=parts.identity()).restore(parts.state, step=best)
    same(adapter(recipe), state.trainable)


def test_without_a_test_split_validation_is_scored_and_without_both_nothing(place, tmp_path):
    source = place[1] / "train.jsonl"
    recipe = tiny_run.recipe(place[0], source, tmp_path / "one", steps=1)
    summary = run(tiny_run.changed(recipe, "data", validation=5), progress=QUIET)
    assert summary["scored_on"] == {"split": "validation", "examples": 5}
    summary = run(dataclasses.replace(recipe, out=str(tmp_path / "two")), progress=QUIET)
    assert summary["before"] == summary["after"] == {} and summary["steps"] == 1


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "prompt", "length": 3}])
def test_every_method_runs_by_the_same_recipe(place, tmp_path, method):
    recipe = dataclasses.replace(tiny_run.recipe(*place, tmp_path, steps=2), method=method)
    summary = run(recipe, progress=QUIET)
    assert summary["steps"] == 2 and summary["after"]["loss"] > 0
    assert any((tmp_path / "adapter").iterdir())


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 2}, {"name": "prompt", "length": 3}])
def test_an_encoder_decoder_runs_by_the_same_recipe(place, tmp_path, method):
    model = tiny_run.write_model(tmp_path / "t5", scale=1, t5=True)
    recipe = tiny_run.recipe(model, place[1], tmp_path / "run", steps=2)
    recipe = tiny_run.changed(dataclasses.replace(recipe, method=method), "data", chat=False)
    assert run(recipe, progress=QUIET)["after"]["loss"] > 0


MESHES = [
    pytest.param(MeshRecipe(data=4, fsdp=1), marks=pytest.mark.slow),
    MeshRecipe(data=2, fsdp=2),
    pytest.param(MeshRecipe(data=1, fsdp=4), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_changes_nothing_beyond_rounding_and_resumes_on_itself(place, tmp_path, mesh):
    """On a calm model and at a usual rate: a sharp one turns 2e-8 into 0.1 in three steps, one device or many."""
    model = tiny_run.write_model(tmp_path / "calm", scale=1)
    one = tiny_run.recipe(model, place[1], tmp_path / "one", steps=4)
    one = tiny_run.changed(one, "optimizer", learning_rate=1e-3)
    many = dataclasses.replace(one, mesh=mesh, out=str(tmp_path / "many"))
    resumed = dataclasses.replace(many, out=str(tmp_path / "resumed"))
    run(one, progress=QUIET)
    run(many, progress=QUIET)
    with pytest.raises(KeyboardInterrupt):
        run(resumed, progress=Stop(1, signal.SIGINT))
    assert run(resumed, progress=QUIET)["resumed_from"] in (1, 2, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), adapter(many), adapter(one))
    same(adapter(resumed), adapter(many))


def test_the_recipe_is_checked_before_the_model_is_loaded(place, tmp_path):
    recipe = tiny_run.recipe(tmp_path / "no-model", place[1], tmp_path / "run")
    for broken, message in [
        (tiny_run.changed(recipe, "data", completion="sumary"), "did you mean 'summary'"),
        (tiny_run.changed(recipe, "data", prompt="{{ dialog }}"), "did you mean 'dialogue'"),
        (tiny_run.changed(recipe, "data", limit={"tset": 3}), "no split 'tset'"),
        (tiny_run.changed(recipe, "evaluate", metrics=["rouge"]), "unknown metric"),
        (dataclasses.replace(recipe, method={"name": "lora", "rank": 0}), "method.rank"),
    ]:
        with pytest.raises(UsageError, match=message):
            run(broken, progress=QUIET)
