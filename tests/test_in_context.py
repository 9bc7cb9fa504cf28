"""The untuned model asked in other ways: which examples that makes, and what a run says of them."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_run
from rich.console import Console
from test_multitask_run import write_tasks
from test_run import QUIET

from jaxft.data.dialogues import dialogues
from jaxft.data.grouping import spread
from jaxft.errors import UsageError
from jaxft.pretrained import load
from jaxft.recipe import DataRecipe, InContextRecipe, make_recipe, to_dict
from jaxft.runs import run
from jaxft.runs.asking import Variant, check_prompts, encode_variant, variants
from jaxft.runs.parts import encode_rows, read_splits
from jaxft.runs.show import show_scores
from jaxft.training.journal import read_lines

OTHER = "In short, what do they say?\n{{ dialogue }}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").mkdir()
    for seed, (name, count) in enumerate({"train": 60, "test": 3}.items()):
        rows = [{"dialogue": row["dialogue"][:30], "summary": row["summary"][:15]} for row in dialogues(seed, count)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tiny_run.write_model(folder / "model", scale=2), folder / "data"


def asking(recipe, **settings):
    return tiny_run.changed(recipe, "evaluate", in_context=InContextRecipe(enabled=True, **settings))


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    recipe = tiny_run.recipe(*place, tmp_path_factory.mktemp("run"), steps=2, eval_every=0, eval_examples=0)
    recipe = asking(recipe, shots=[0, 1, 30], prompts=[OTHER], examples=0)
    return recipe, run(recipe, progress=QUIET)


def test_every_way_is_scored_beside_the_tuned_model(done):
    recipe, summary = done
    found, tuned = summary["in_context"], summary["in_context_tuned"]
    assert [one["name"] for one in found] == ["zero-shot", "one-shot", "30-shot", "prompt 1"]
    assert [one["shots"] for one in found] == [0, 1, 30, 0]
    assert found[3]["prompt"] == OTHER and found[0]["prompt"] == recipe.data.prompt
    # The model as it is, asked as in training: the run's own score before.
    assert {name: one["value"] for name, one in found[0]["scores"].items()} == pytest.approx(
        {name: value for name, value in summary["before"].items() if name != "loss"}
    )
    assert {name: one["value"] for name, one in tuned["scores"].items()} == pytest.approx(
        {name: value for name, value in summary["after"].items() if name != "loss"}
    )
    for one in found:
        assert one["n"] == tuned["n"] == 3
        for name, score in one["scores"].items():
            assert score["low"] <= score["value"] <= score["high"]
            difference = tuned["scores"][name]["value"] - score["value"]
            assert one["comparison"][name]["difference"] == pytest.approx(difference)
    best = max(found, key=lambda one: one["scores"]["rouge1"]["value"])
    assert tuned["best"] == best["name"] and tuned["by"] == "rouge1"
    assert json.loads(Path(recipe.out, "summary.json").read_text())["in_context"] == found
    assert not Path(recipe.out, "answers").exists()


def test_what_did_not_fit_is_told(done):
    _, summary = done
    found = {one["name"]: one["dropped_shots"] for one in summary["in_context"]}
    assert found["zero-shot"] == found["prompt 1"] == 0 and 0 < found["30-shot"] < 90


def test_the_table(done, capsys):
    _, summary = done
    show_scores(summary, Console(width=120))
    shown = capsys.readouterr().out
    assert "one-shot" in shown and "(best)" in shown and "worked examples left out" in shown and "tuned" in shown


def test_worked_examples_are_training_rows_in_the_prompts_wording(place):
    recipe = asking(tiny_run.recipe(*place, "unused"), shots=[2], prompts=[OTHER])
    model, rows = load(place[0]), read_splits(recipe)
    examples = encode_rows(recipe, rows["test"], model)[0][:2]
    train = {row["dialogue"]: row["summary"] for row in read_lines(place[1] / "train.jsonl")}
    for variant, head in [(Variant("2-shot", 2), "Summarise:\n"), (Variant("own", 2, OTHER), OTHER.split("{{")[0])]:
        asked, report = encode_variant(recipe, rows, "test", variant, model, examples)
        again, _ = encode_variant(recipe, rows, "test", variant, model, examples)
        assert [one.id for one in asked] == [one.id for one in examples] and report.dropped_shots == 0
        assert all((one.prompt == other.prompt).all() for one, other in zip(asked, again, strict=True))
        for one, example in zip(asked, examples, strict=True):
            assert one.references == example.references and not one.task
            text = model.tokenizer.decode(one.prompt.tolist())
            shots = text.split(head)[1:-1]
            assert len(shots) == 2 and shots[0] != shots[1]
            assert all(any(x in shot and y in shot for x, y in train.items()) for shot in shots)
            last = model.tokenizer.decode(example.prompt.tolist()).split("Summarise:\n")[1]
            assert text.endswith(head + last)


def test_tasks_are_asked_in_each_of_their_phrasings(place, tmp_path):
    records = write_tasks(tmp_path)
    recipe = dataclasses.replace(
        asking(tiny_run.recipe(*place, "unused"), shots=[0, 1], prompts=["Hm, {{ x }}"], phrasings=2),
        data=DataRecipe(tasks=records[:2], max_length=192),
    )
    model, rows = load(place[0]), read_splits(recipe)
    examples = encode_rows(recipe, rows["test"], model)[0]
    ways = variants(recipe, rows["test"])
    assert [way.name for way in ways] == ["zero-shot", "one-shot", "prompt 1", "phrasing 1", "phrasing 2"]
    asked = {way.name: encode_variant(recipe, rows, "test", way, model, spread(examples, 4))[0] for way in ways}
    for name, found in asked.items():
        assert [one.id for one in found] == [one.id for one in spread(examples, 4)]
        assert {one.task for one in found} == {"who", "long"}
        texts = [model.tokenizer.decode(one.prompt.tolist()) for one in found]
        assert all((one.choice_tokens != ()) == (one.task == "long") for one in found)
        if name == "phrasing 1":
            assert all(text.startswith("Tell:") for text in texts)
        if name == "phrasing 2":
            assert not any(text.startswith("Tell:") for text in texts)
        if name == "prompt 1":
            assert all(text.startswith("Hm, ") for text in texts)
        if name == "one-shot":
            assert all(text.count("Tell:") == 2 for text in texts)


def test_short_for_true():
    values = to_dict(tiny_run.recipe("m", "d", "o"))
    values["evaluate"]["in_context"] = True
    assert make_recipe(values).evaluate.in_context == InContextRecipe(enabled=True)
    assert not tiny_run.recipe("m", "d", "o").evaluate.in_context.enabled


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{{ dialog }}", "in_context.prompts: .*'dialog'; did you mean 'dialogue'"),
        ("{{ dialogue", "in_context.prompts"),
    ],
)
def test_bad_prompts_show_before_a_model_is_loaded(place, tmp_path, prompt, message):
    recipe = asking(tiny_run.recipe("no-model", place[1], tmp_path / "run"), prompts=[prompt])
    with pytest.raises(UsageError, match=message):
        run(recipe, progress=QUIET)
    with pytest.raises(UsageError, match=message):
        check_prompts(recipe, read_splits(recipe))
    with pytest.raises(UsageError, match=r"in_context\.shots: \[-1\]"):
        check_prompts(asking(recipe, shots=[-1]), {})
