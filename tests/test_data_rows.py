"""Rows keep their names and places through choosing and limiting."""

import pytest

from jaxft.data.rows import Rows, check_columns
from jaxft.errors import UsageError

ROWS = Rows(
    [{"x": 0}, {"x": 1, "id": "own"}, {"x": 2, "id": ""}, {"x": 3}], "train", places=["f:1", "f:3", "f:4", "f:9"]
)


def test_ids_and_places_are_those_of_the_source_after_take_and_limit():
    taken = ROWS.take([3, 1, 2]).limit(2)
    assert [row["x"] for row in taken] == [3, 1] and len(taken) == 2
    assert [taken.id(i) for i in range(2)] == ["train:3", "own"]
    assert [taken.place(i) for i in range(2)] == ["f:9", "f:3"]


def test_a_row_without_an_id_or_a_file_is_named_by_its_position():
    assert ROWS.id(2) == "train:2"
    assert Rows([{"x": 1}], "test").place(0) == "test row 1"


def test_limit_none_or_more_keeps_all():
    assert len(ROWS.limit(None)) == len(ROWS.limit(10)) == 4 and len(ROWS.limit(0)) == 0


def test_index_out_of_range_raises():
    with pytest.raises(IndexError):
        ROWS[4]


def test_missing_column_names_the_nearest():
    rows = Rows([{"dialogue": "a"}, {"dialogue": "b", "summary": "c"}])
    check_columns(rows, ["dialogue", "summary"], "f")  # a later row has it
    with pytest.raises(UsageError, match=r"data.csv: no column 'dialog'; did you mean 'dialogue'"):
        check_columns(rows, ["dialog"], "data.csv")
