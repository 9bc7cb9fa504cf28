"""A run over several tasks, mixed and packed: what it reports of each, and that it goes on to the same bits."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from test_run import QUIET, Stop, adapter, files, same

from jaxft.data.dialogues import dialogues
from jaxft.errors import UsageError
from jaxft.recipe import DataRecipe
from jaxft.runs import run
from jaxft.runs.parts import read_rows
from jaxft.runs.use import evaluate_split
from jaxft.training.journal import read_lines

NAMES = ["who", "long", "sum", "first"]


def write_tasks(folder):
    """Four tasks over dialogues: records, with their rows in files."""
    for seed, (split, count) in enumerate({"train": 20, "validation": 3, "test": 3}.items()):
        found = dialogues(seed=seed, count=count)
        rows = {
            "who": [{"x": row["dialogue"][:30], "y": row["dialogue"].split(":")[0]} for row in found[: count // 2 + 1]],
            "long": [{"x": row["dialogue"][:20], "y": ["no", "yes"][len(row["dialogue"]) % 2]} for row in found],
            "sum": [{"x": row["dialogue"][:80], "y": row["summary"]} for row in found],
            "first": [{"x": row["summary"], "y": row["summary"].split()[0]} for row in found[:4]],
        }
        for name, lines in rows.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    templates = {"a": "Tell:\n{{ x }}", "b": "{{ x }}\nTell:", "c": {"prompt": "Well? {{ x }}", "held_out": True}}
    records = [
        {"name": name, "source": str(folder / name), "templates": templates, "completion": "y"} for name in NAMES
    ]
    records[1]["choices"] = ["yes", "no"]
    return records


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    model = tiny_run.write_model(folder / "model", scale=1, t5=request.param == "encoder-decoder")
    return model, write_tasks(folder / "data")


def mixed(model, records, out, **train):
    data = DataRecipe(
        tasks=[records[0], {"task": records[1], "weight": 2, "limit": 15}, *records[2:]],
        mixture="temperature",
        cap=10,
        max_length=192,
        packing=True,
        held_out_templates=True,
    )
    train = {"steps": 6, "eval_every": 4, "eval_examples": 7, **train}
    return dataclasses.replace(tiny_run.recipe(model, "", out, **train), data=data)


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    recipe = mixed(*place, tmp_path_factory.mktemp("done"))
    return recipe, run(recipe, progress=QUIET)


def test_every_number_is_also_told_task_by_task(done):
    _, summary = done
    assert list(summary["tasks"]) == NAMES
    ranked = {"accuracy", "ece", "brier", "nll"}  # `long` has choices
    assert set(summary["after"]) == {"loss", "rouge1", "chrf"} | ranked
    for name, found in summary["tasks"].items():
        expected = {"loss"} | (ranked if name == "long" else {"rouge1", "chrf"})
        assert set(found["before"]) == set(found["after"]) == expected
        assert found["templates"]["after"]["c"]["n"] == found["n"]
        assert found["train"]["examples"] >= found["train"]["different_examples"] > 0
        assert found["train"]["tokens"] > found["train"]["target_tokens"] > 0
        assert set(found["data"]) == {"train", "validation", "test"}
    assert {name: found["data"]["train"]["examples"] for name, found in summary["tasks"].items()} == {
        "who": 11, "long": 15, "sum": 20, "first": 4,
    }  # fmt: skip
    losses = [found["after"]["loss"] for found in summary["tasks"].values()]
    assert min(losses) < summary["after"]["loss"] < max(losses)
    rates = {name: found["train"]["rate"] for name, found in summary["tasks"].items()}
    assert rates["long"] == pytest.approx(2 * rates["sum"]) and rates["first"] == pytest.approx(0.4**0.5 * rates["sum"])
    assert summary["data"]["train"]["examples"] == 50 and 0 < summary["padding"] < 1


def test_training_and_validation_lines_tell_tasks_apart(done):
    recipe, summary = done
    rows = read_lines(files(recipe, "metrics.jsonl"))
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 7))
    for row in steps:
        sums = np.array([[task["loss"] * task["tokens"], task["tokens"]] for task in row["tasks"].values()]).sum(axis=0)
        assert sums[1] == row["tokens"] and sums[0] / sums[1] == pytest.approx(row["loss"], rel=1e-5)
    tokens = {name: sum(row["tasks"].get(name, {"tokens": 0})["tokens"] for row in steps) for name in NAMES}
    assert tokens == {name: found["train"]["target_tokens"] for name, found in summary["tasks"].items()}
    evaluations = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in evaluations] == [4, 6]
    for row in evaluations:
        assert list(row["tasks"]) == NAMES
        assert all(set(task) == {"validation_loss"} for task in row["tasks"].values())


def test_predictions_name_the_task_and_the_phrasing(done):
    recipe, _ = done
    rows = read_lines(files(recipe, "predictions.jsonl"))
    assert [row["task"] for row in rows] == [name for name, count in zip(NAMES, (2, 3, 3, 3), strict=True)
                                             for _ in range(count)]  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["template"] for row in rows} == {"c"} and all("Well?" in row["prompt"] for row in rows)
    for row in rows:
        assert (row["task"] == "long") == ("probabilities" in row)
        for when, chances in row.get("probabilities", {}).items():
            assert row["choices"][int(np.argmax(chances))] == row[when] and sum(chances) == pytest.approx(1)


def test_stopped_it_goes_on_to_the_same_bits(done, tmp_path):
    whole, summary = done
    recipe = dataclasses.replace(whole, out=str(tmp_path / "run"))
    with pytest.raises(SystemExit):
        run(recipe, progress=Stop(2, signal.SIGTERM))
    resumed = run(recipe, progress=QUIET)
    assert resumed["resumed_from"] in range(2, 6)
    same(adapter(recipe), adapter(whole))
    for name in ("metrics.jsonl", "predictions.jsonl"):
        assert read_lines(files(recipe, name)) == read_lines(files(whole, name))
    assert resumed["after"] == summary["after"] and resumed["tasks"] == json.loads(json.dumps(summary["tasks"]))


def test_evaluate_tells_tasks_apart(done, tmp_path):
    recipe, summary = done
    found = evaluate_split(recipe, str(files(recipe, "adapter")), "test", str(tmp_path / "p.jsonl"))
    assert found["tasks"]["sum"]["loss"] == pytest.approx(summary["tasks"]["sum"]["after"]["loss"], abs=1e-5)
    assert found["tasks"]["long"] == pytest.approx(summary["tasks"]["long"]["after"], abs=1e-4)
    assert {row["task"] for row in read_lines(tmp_path / "p.jsonl")} == set(NAMES)


def test_what_is_wrong_with_tasks_shows_before_a_model_is_loaded(tmp_path):
    records = write_tasks(tmp_path / "data")
    recipe = mixed(tmp_path / "no-model", records, tmp_path / "run")
    one, other = records[0], records[1]
    for fields, message in [
        ({"tasks": [{"task": one, "wieght": 2}]}, "unknown key 'wieght'.*did you mean 'weight'"),
        ({"tasks": [{"task": one, "weight": -1}]}, "the weight of .* is -1; use a number of at least 0"),
        ({"tasks": [{"task": one, "weight": 0}]}, "all weights are zero"),
        ({"tasks": [{"task": one, "limit": 0}]}, "the limit of .* is 0; use whole numbers from 1"),
        ({"tasks": [{"task": one, "limit": {"tset": 3}}]}, "no split 'tset'; did you mean 'test'"),
        ({"tasks": [one, other, one]}, "who.* twice"),
        ({"tasks": [one | {"metrics": ["acuracy"]}]}, "metrics of who: .*'acuracy'; did you mean 'accuracy'"),
        ({"tasks": [one], "mixture": {"whom": 1}}, "unknown task 'whom'; did you mean 'who'"),
        ({"tasks": [one, other], "mixture": {"who": 1}}, "the task 'long' has no weight"),
        ({"tasks": [one | {"train": False}]}, "for evaluation only"),
        ({"tasks": [one | {"splits": {"test": "test"}}]}, "for evaluation only"),
        ({"tasks": [one | {"templates": {"a": "{{ z }}"}}]}, "'z'"),
        ({"tasks": [one | {"templates": {"a": "{{ x }}"}}]}, "no held-out template"),
        ({"tasks": [one], "shots": {-1: 1.0}}, r"data\.shots: .* may not be negative"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_rows(tiny_run.changed(recipe, "data", **fields))
    assert not Path(recipe.out).exists()
