"""Every format gives the same rows, and what is wrong with a file is said in one line with its place."""

import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxft.data.files import is_data_file, read_file
from jaxft.errors import Error, UsageError

ROWS = [{"q": 'a "quoted", one', "a": "é\u2028ß"}, {"q": "two\nlines", "a": "B"}, {"q": "c", "a": "x" * 200_000}]


def separated(delimiter):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["q", "a"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue().encode()


def parquet():
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


CONTENTS = {
    "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "json": json.dumps(ROWS).encode(),
    "csv": separated(","),
    "tsv": separated("\t"),
    "parquet": parquet(),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_every_format_gives_the_same_rows(tmp_path, suffix, packed):
    path = tmp_path / (f"rows.{suffix}.gz" if packed else f"rows.{suffix}")
    path.write_bytes(gzip.compress(CONTENTS[suffix]) if packed else CONTENTS[suffix])
    rows, places = read_file(path)
    assert rows == ROWS
    assert places[0].startswith(path.name) and len(places) == 3
    assert is_data_file(path)


def test_places_are_the_lines_where_rows_begin(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (tmp_path / "a.csv").write_text('x,y\n1,"a\nb"\n\n2,c\n')
    assert read_file(tmp_path / "a.jsonl")[1] == ["a.jsonl:1", "a.jsonl:3"]
    assert read_file(tmp_path / "a.csv")[1] == ["a.csv:2", "a.csv:5"]


def test_a_byte_order_mark_lines_in_json_and_gzip_without_its_suffix_are_understood(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfx\n1\n")
    (tmp_path / "a.json").write_text('{"x": 1}\n{"x": 2}\n')
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"x": 1}'))
    assert read_file(tmp_path / "a.csv")[0] == [{"x": "1"}]
    assert len(read_file(tmp_path / "a.json")[0]) == 2
    assert read_file(tmp_path / "a.jsonl")[0] == [{"x": 1}]


def test_a_short_csv_row_has_nulls(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1\n")
    assert read_file(tmp_path / "a.csv")[0] == [{"x": "1", "y": None}]


FAILURES = {  # what the file holds, and what the message must say; these are exit code 1
    "broken.jsonl": (b'{"a": 1}\n{"a": \n{"a": 3}\n', r"broken\.jsonl:2: broken JSON .* column"),
    "cut.jsonl": (b'{"a": 1}\n{"a": "hal', r"cut\.jsonl:2: broken JSON"),
    "broken.json": (b'[{"a": 1},\n{"a" 2}]', r"broken\.json:2: broken JSON"),
    "list.jsonl": (b'{"a": 1}\n[1, 2]\n', r"list\.jsonl:2: expected an object with named fields, got list"),
    "latin.jsonl": ('{"a": 1}\n{"a": "caf\xe9"}'.encode("latin-1"), r"latin\.jsonl:2: not UTF-8 \(byte 0xe9\)"),
    "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), r"utf16\.csv:1: not UTF-8"),
    "long.csv": (b"a,b\n1,2\n1,2,3\n", r"long\.csv:3: 3 fields where the header has 2"),
    "quote.csv": (b'a,b\n1,2\n1,"2\n', r"quote\.csv:3: broken CSV"),
    "bad.parquet": (parquet()[:-20], r"bad\.parquet: truncated or corrupt Parquet"),
    "cut.jsonl.gz": (gzip.compress(CONTENTS["jsonl"])[:-30], r"cut\.jsonl\.gz: the gzip data is truncated or corrupt"),
    "not.jsonl.gz": (b'{"a": 1}', r"not\.jsonl\.gz: the gzip data is truncated or corrupt"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_unreadable_content_names_the_file_and_the_line(tmp_path, name):
    content, message = FAILURES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Error, match=message) as caught:
        read_file(tmp_path / name)
    assert not isinstance(caught.value, UsageError) and "\n" not in str(caught.value)


USAGE = {
    "empty.jsonl": (b"", "the file is empty"),
    "blank.csv": (b" \n\n", "the file is empty"),
    "header.csv": (b"a,b\n", "the file has no rows"),
    "none.json": (b"[]", "the file has no rows"),
    "packed.csv.gz": (gzip.compress(b""), "the file is empty"),
    "twice.csv": (b"a,a\n1,2\n", "repeated column name"),
    "notes.docx": (b"text", "unknown data format; use .jsonl"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_file_that_cannot_be_meant_is_a_usage_error(tmp_path, name):
    content, message = USAGE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_file(tmp_path / name)


def test_a_missing_file_names_its_nearest_sibling(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(UsageError, match=r"trian.jsonl: no such file; did you mean 'train.jsonl'"):
        read_file(tmp_path / "trian.jsonl")
    with pytest.raises(UsageError, match="no such file"):
        read_file(tmp_path / "nowhere" / "train.jsonl")


def test_the_csv_field_limit_of_others_is_left_alone(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_bytes(CONTENTS["csv"])
    read_file(tmp_path / "a.csv")
    assert csv.field_size_limit() == before
