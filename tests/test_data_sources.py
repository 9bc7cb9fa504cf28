"""Sources and splits: given ones are found under their usual names, missing ones are carved the same way every time."""

import json
import os
from pathlib import Path

import datasets
import pytest

from jaxft.data.rows import Rows
from jaxft.data.sources import carve, read, split_name, splits
from jaxft.errors import Error, UsageError

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write(path, count, start=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"x": i, "y": str(i)}) + "\n" for i in range(start, start + count)))
    return path


@pytest.fixture
def directory(tmp_path):
    write(tmp_path / "d" / "train.jsonl", 10)
    write(tmp_path / "d" / "dev.jsonl", 3, 100)
    write(tmp_path / "d" / "test.jsonl", 2, 200)
    return tmp_path / "d"


def test_split_names_are_normalised(directory):
    assert [split_name(n) for n in ("dev", "val", "Validation", "eval", "TRAIN", "other")] == [
        "validation", "validation", "validation", "validation", "train", "other"]  # fmt: skip
    for name in ("dev", "val", "validation"):
        assert [row["x"] for row in read(directory, name)] == [100, 101, 102]
    assert read(directory, "dev").id(0) == "validation:0" and read(directory, "dev").place(1) == "dev.jsonl:2"


def test_a_directory_of_shards_or_with_a_data_folder_is_read_in_order(tmp_path):
    write(tmp_path / "data" / "train-00001-of-00002.jsonl", 2, 2)
    write(tmp_path / "data" / "train-00000-of-00002.jsonl", 2)
    rows = read(tmp_path)
    assert [row["x"] for row in rows] == [0, 1, 2, 3]
    assert rows.place(2) == "train-00001-of-00002.jsonl:1"


def test_two_files_for_one_split_are_refused(directory):
    write(directory / "train.csv", 1)
    with pytest.raises(UsageError, match=r"both train\.csv and train\.jsonl could be the split 'train'"):
        read(directory, "train")


def test_a_single_file_has_no_named_splits(tmp_path):
    path = write(tmp_path / "all.jsonl", 4)
    assert len(read(path)) == 4 and read(path, name="test").id(3) == "test:3"
    with pytest.raises(UsageError, match="single file without named splits"):
        read(path, "test")
    assert len(read(tmp_path)) == 4  # the only data file of its directory


def test_what_is_missing_or_misnamed_is_a_usage_error(directory, tmp_path):
    with pytest.raises(UsageError, match="has several splits; name one of"):
        read(directory)
    with pytest.raises(UsageError, match="no split 'tset'; did you mean 'test'"):
        read(directory, "tset")
    with pytest.raises(UsageError, match="no column 'z'"):
        read(directory, "train", columns=["x", "z"])
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(UsageError, match="no such file"):
        read("./absent")
    with pytest.raises(UsageError, match="no such file"):
        read("some/where/else")
    with pytest.raises(UsageError, match="no such file"):
        read("/absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no train, validation or test file"):
        read(tmp_path / "empty")


def test_a_saved_data_set_is_read_and_a_broken_one_is_an_error(tmp_path):
    part = datasets.Dataset.from_dict({"x": [1, 2], "y": ["a", "b"]})
    datasets.DatasetDict({"train": part, "val": part.select([0])}).save_to_disk(tmp_path / "both")
    part.save_to_disk(tmp_path / "one")
    assert [dict(row) for row in read(tmp_path / "both", "train")] == [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]
    assert len(read(tmp_path / "both", "dev")) == 1 and len(read(tmp_path / "one")) == 2
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(Error, match="cannot be read as a saved data set"):
        read(tmp_path / "one")


def test_any_other_name_is_asked_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, config):
        asked.append((name, config))
        if name == "nobody/nothing":
            raise ConnectionError("Couldn't reach the Hub\nlong story")
        return {"train": datasets.Dataset.from_dict({"x": [1]}), "validation": datasets.Dataset.from_dict({"x": [2]})}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("owner/name:config", "dev")[0] == {"x": 2} and read("owner/name", "train")[0] == {"x": 1}
    assert asked == [("owner/name", "config"), ("owner/name", None)]
    with pytest.raises(UsageError, match=r"nobody/nothing: neither a file .* \(Couldn't reach the Hub\)$"):
        read("nobody/nothing")


def test_given_splits_are_kept_and_missing_ones_carved(directory):
    parts = splits(directory, validation=0.5, limit={"train": 4, "dev": 2})
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "validation": 2, "test": 2}
    (directory / "dev.jsonl").unlink()
    (directory / "test.jsonl").unlink()
    assert list(splits(directory)) == ["train"]
    parts = splits(directory, validation=0.2, test=3, seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "validation": 2, "test": 3}


def test_one_source_for_each_split(tmp_path, directory):
    parts = splits({"train": write(tmp_path / "a.jsonl", 3), "dev": directory})
    assert [part.id(0) for part in parts.values()] == ["train:0", "validation:0"] and len(parts["validation"]) == 3
    with pytest.raises(UsageError, match="no split 'other'"):
        splits({"train": tmp_path / "a.jsonl", "other": directory})


@pytest.mark.parametrize("sizes", [{"test": 0.2, "validation": 0.1}, {"test": 7, "validation": 1}, {"validation": 0.5}])
def test_carved_parts_are_disjoint_complete_and_in_order(sizes):
    rows = Rows([{"x": i} for i in range(50)])
    parts = carve(rows, sizes, seed=3)
    members = {name: [row["x"] for row in part] for name, part in parts.items()}
    assert sorted(x for values in members.values() for x in values) == list(range(50))
    assert all(values == sorted(values) for values in members.values())
    assert len(members["validation"]) == {0.1: 5, 1: 1, 0.5: 25}[sizes["validation"]]


def test_carving_is_a_function_of_the_seed():
    rows = Rows([{"x": i} for i in range(50)])
    chosen = [[row["x"] for row in carve(rows, {"test": 5}, seed)["test"]] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == [6, 17, 18, 20, 25]  # on every machine and with every numpy


@pytest.mark.parametrize(
    "sizes", [{"test": 1.5}, {"test": -1}, {"test": 10}, {"test": 0.01}, {"test": 5, "validation": 5}]
)
def test_sizes_that_leave_a_split_empty_are_refused(sizes):
    with pytest.raises(UsageError, match="split sizes"):
        carve(Rows([{"x": i} for i in range(10)]), sizes)


def test_dialogsum_as_it_was_published():
    if not (DATA / "dialogsum").is_dir():
        pytest.skip(f"no DialogSum in {DATA}: set JAXFT_DATA")
    parts = splits(DATA / "dialogsum", limit={"train": 1000}, columns=["dialogue", "summary"])
    assert list(parts) == ["train", "validation", "test"] and len(parts["train"]) == 1000
    assert parts["train"].id(0) == "train_0"
    assert all(len(row["summary"]) == 3 for row in parts["test"])
