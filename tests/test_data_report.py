"""What `jaxft data` says is what is there; its page needs nothing else and lets no row speak as HTML."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tiny_run
from page_parser import Page

from jaxft.cli import main
from jaxft.data import Batches, encode, splits
from jaxft.recipe import make_recipe, to_dict, to_yaml
from jaxft.runs.data_page import data_page
from jaxft.runs.data_report import data_report
from jaxft.runs.parts import data_format


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model without weights, and rows of which some repeat others, one is empty and one would be HTML."""
    folder = tmp_path_factory.mktemp("place")
    model, data = tiny_run.write_model(folder / "model"), tiny_run.write_rows(folder / "data", train=20)
    for name in ("model.safetensors", "adapter.safetensors"):
        (model / name).unlink(missing_ok=True)
    assert not list(model.glob("*.safetensors"))
    train = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    test = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    train += [train[3] | {"id": "again"}, train[5] | {"id": "nearly", "summary": train[5]["summary"] + " Indeed."}]
    train += [{"id": "html", "dialogue": "<b>Bold</b> & <script>alert(1)</script>", "summary": "A </pre> tag."}]
    train += [{"id": "empty", "dialogue": "A: Hi", "summary": ""}]
    test += [train[7] | {"id": "leaked"}]
    for name, rows in (("train", train), ("test", test)):
        (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "tiny.yaml").write_text(to_yaml(recipe(folder)))
    return folder


def recipe(folder, **data):
    made = tiny_run.recipe(folder / "model", folder / "data", folder / "run")
    return tiny_run.changed(made, "data", on_bad="skip", **data)


def test_no_weight_is_read_and_every_number_is_that_of_the_library(place):
    found = data_report(recipe(place))
    tokenizer = data_report.__globals__["peek"](place / "model").tokenizer
    rows = splits(place / "data")
    train, report = encode(rows["train"], data_format(recipe(place)), tokenizer, max_length=512, on_bad="skip",
                           eos_token_ids=(2,))  # fmt: skip
    assert found.splits["train"] == report and report.bad_rows == 1 and len(train) == 23
    assert found.lengths["prompt"].mean == np.mean([len(example.prompt) for example in train])
    assert sum(found.lengths["completion"].counts) == 23
    assert [share[:4] for share in found.shares] == [("", 23, 23, 1.0)]
    for name, packing in (("buckets", False), ("packing", True)):
        batches = Batches(train, 4, num_buckets=1, packing=packing)
        assert found.padding[name] == (batches.padding(), batches.steps_per_epoch, batches.shapes)
    assert found.refused == [] and len(found.notes) == 1 and "train: 1 bad rows (first: train" in found.notes[0]


def test_repeated_and_leaked_rows_are_found_with_both_places(place):
    found = data_report(recipe(place))
    train, test = found.duplicates["train"], found.duplicates["test"]
    assert (train.report.exact, train.report.near, train.report.texts) == (1, 1, 24)
    assert [one[:2] for one in train.first] == [
        ("train.jsonl:21", "train.jsonl:4"), ("train.jsonl:22", "train.jsonl:6")]  # fmt: skip
    assert test.first == (("test.jsonl:5", "train.jsonl:8", 1.0),)
    overlap = found.contamination["test", ""]
    assert ("test.jsonl:5", "train.jsonl:8") in [one[:2] for one in overlap.first]
    assert overlap.found.tested == 5 and found.contamination["validation", ""].found.tested == 4


def test_what_a_run_would_refuse_is_said(place, capsys):
    found = data_report(tiny_run.changed(recipe(place, max_length=200), "data", on_bad="error"))
    assert len(found.refused) == 4, "bad rows of train, and long ones of every split"
    assert "1 bad rows (first: train.jsonl:24" in found.refused[0]
    assert found.splits["train"].truncated_prompts > 10
    assert main(["data", str(place / "tiny.yaml"), "--data.max_length=200"]) == 0
    assert "a run refuses train: examples that are too long" in capsys.readouterr().out


def test_the_command_shows_it_and_writes_the_page(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "new" / "data.html"
    assert main(["data", str(place / "tiny.yaml"), "--html", str(out), "--examples", "2", "--data.buckets=2"]) == 0
    shown = capsys.readouterr()
    assert max(len(line) for line in shown.out.split("\n") if not line.startswith("the page: ")) <= 80
    found = data_report(recipe(place, buckets=2), examples=2)
    report = found.splits["train"]
    assert re.search(rf"train +24 +23 +1 +0 +0 +{report.mean_prompt:.0f} +{report.max_prompt} ", shown.out)
    assert "1 exact, 1 nearly" in shown.out and "train.jsonl:21 repeats train.jsonl:4 (100%)" in shown.out
    assert f"{found.padding['buckets'].share:.1%} with length buckets" in shown.out
    assert shown.out.count("⟦") == 2 and "█" in shown.out and str(out) in shown.out.replace("\n", "")
    page = Page(out.read_text(encoding="utf-8"))
    assert page.tables[0][1][:6] == ["train", "24", "23", "1", "0", "0"]
    assert page.tables[1][1][:5] == ["all", "23", "23", "100.0%", "100.0%"]
    assert ["train", "train", "24", "1", "1"] in page.tables[2] and ["test", "train", "5", "1", "0"] in page.tables[2]
    assert page.tables[3][2][:3] == ["test", "all", "5"]
    assert "train.jsonl:22 repeats train.jsonl:6" in page.text
    assert len(page.marked) == 1 + 2 and page.marked[1].startswith("⟦") and page.marked[1].endswith("<|end|>⟧")
    assert main(["data", str(place / "tiny.yaml"), "--html", str(out)]) == 0, "its own page is replaced"
    other = tmp_path / "other.html"
    other.write_text("<!doctype html><title>mine</title>")
    assert main(["data", str(place / "tiny.yaml"), "--html", str(other)]) == 2
    assert "mine" in other.read_text()


def test_the_page_stands_alone_and_rows_stay_text(place):
    # The dangerous row is shown in full, and is what the first example is.
    hostile = place / "hostile"
    shutil.copytree(place / "data", hostile, dirs_exist_ok=True)
    lines = (hostile / "train.jsonl").read_text().splitlines()
    (hostile / "train.jsonl").write_text("\n".join([lines[22], lines[22], *lines[:4]]) + "\n")
    found = data_report(dataclasses.replace(recipe(place, source=str(hostile))))
    text = data_page(found, "<i>title</i>")
    assert text.startswith("<!doctype html>\n<!-- jaxft data -->")
    assert "<script" not in text and "<b>Bold" not in text and "<i>title" not in text
    page = Page(text)
    assert "<b>Bold</b> & <script>alert(1)</script>" in page.text and "A </pre> tag." in page.text
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "onclick", "onload", "srcset"}
    assert not re.search(r"https?:|url\(|@import", text)
    assert ("name", "viewport") in page.attributes and "prefers-color-scheme: dark" in text and "@media print" in text


def test_an_encoder_decoder(tmp_path):
    model, data = tiny_run.write_model(tmp_path / "t5", t5=True), tiny_run.write_rows(tmp_path / "data")
    (model / "model.safetensors").unlink()
    made = tiny_run.changed(tiny_run.recipe(model, data, tmp_path / "run"), "data", chat=False)
    found = data_report(made, examples=1)
    assert len(found.padding["buckets"].shapes[0]) == 2
    (shown,) = found.examples
    assert "".join(piece for piece, learnt in shown.pieces if not learnt).endswith("\n→ ")
    assert [learnt for _, learnt in shown.pieces] == [False, False, True]


def tasks(place):
    records = []
    for name, file in (("small", "validation.jsonl"), ("big", "train.jsonl")):
        records.append({
            "name": name,
            "source": {"train": str(place / "data" / file), "test": str(place / "data" / "test.jsonl")},
            "templates": {
                "short": {"prompt": f"{name} tl;dr {{{{ dialogue }}}}"},
                "long": {"prompt": f"{name}: summarise {{{{ dialogue }}}}"},
            },
            "completion": "{{ summary }}",
        })  # fmt: skip
    return records


def test_tasks_are_counted_apart(place, capsys):
    values = to_dict(recipe(place))
    values["data"] |= {"source": None, "prompt": None, "completion": None, "tasks": tasks(place), "mixture": "equal"}
    made = make_recipe(values)
    found = data_report(made, examples=3)
    assert [(share.task, share.available, share.drawn) for share in found.shares] == [("small", 4, 14), ("big", 23, 13)]
    assert sum(share.examples for share in found.shares) == pytest.approx(1)
    assert sum(share.target_tokens for share in found.shares) == pytest.approx(1)
    assert set(found.contamination) == {("test", "small"), ("test", "big")}
    assert found.contamination["test", "big"].first[0][0].startswith("big test")
    assert {sum(one.templates.values()) for one in found.statistics.values()} == {23, 4}
    assert set(found.statistics["big"].templates) == {"short", "long"}
    first, second, third = (shown.title.split(", ")[:2] for shown in found.examples)
    assert {first[0], second[0]} == {"small", "big"} and third not in (first, second)
    page = Page(data_page(found, "mixed"))
    assert page.tables[1][1][:3] == ["small", "4", "14"] and page.tables[1][2][:3] == ["big", "23", "13"]
    assert "Templates" in page.text and f"short {found.statistics['big'].templates['short']}" in page.text


def test_a_model_without_a_tokenizer_is_wrong_use(place, tmp_path, capsys):
    shutil.copy(place / "model" / "config.json", tmp_path / "config.json")
    assert main(["data", str(place / "tiny.yaml"), f"--model.source={tmp_path}"]) == 2
    assert "has no tokenizer" in capsys.readouterr().err
