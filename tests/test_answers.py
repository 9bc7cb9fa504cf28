"""Answers kept in a file: what is there comes back, what was cut off is dropped, what is another's is refused."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxft.errors import Error, UsageError
from jaxft.evaluation.answers import VERSION, Answers

IDENTITY = {"model": "tiny", "settings": {"max_new_tokens": 8}, "metrics": ("rouge1",)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new folder" / "answers.jsonl"
    with Answers(path, IDENTITY) as answers:
        answers.add("one", "häh?\nyes\r\u2028")
        answers.add_all([("two", [-1.25, True]), ("three", {"a": np.float32(0.5), "b": np.arange(2)})])
    return path


def test_come_back(path):
    with Answers(path, IDENTITY) as answers:
        assert len(answers) == 3 and "four" not in answers
        assert answers["one"] == "häh?\nyes\r\u2028"
        assert answers["two"] == [-1.25, True]
        assert answers["three"] == {"a": 0.5, "b": [0, 1]}


def test_held_is_what_is_read_again(tmp_path):
    with Answers(None, IDENTITY) as memory, Answers(tmp_path / "a", IDENTITY) as file:
        memory.add("x", (1, {2: 3}))
        file.add("x", (1, {2: 3}))
        assert memory["x"] == file["x"] == [1, {"2": 3}]
    with Answers(tmp_path / "a", IDENTITY) as file:
        assert file["x"] == [1, {"2": 3}]


def test_every_cut_goes_on(path):
    """Wherever a process was killed while writing: whole lines stay, and new ones stand on lines of their own."""
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with Answers(path, IDENTITY) as answers:
            assert len(answers) == max(0, data[:cut].count(b"\n") - 1)
            answers.add("last", cut)
        with Answers(path, IDENTITY) as answers:
            assert answers["last"] == cut


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "other"}, r"another model: 'tiny', not 'other'"),
        ({"settings": {"max_new_tokens": 9}}, r"another settings: \{'max_new_tokens': 8\}"),
        ({"seed": 1}, r"another seed: None, not 1"),
    ],
)
def test_another_identity(path, changed, named):
    before = path.read_bytes()
    with pytest.raises(UsageError, match=named + ".*choose another file"):
        Answers(path, IDENTITY | changed)
    assert path.read_bytes() == before


def test_another_version(path):
    lines = path.read_text().split("\n", 1)
    path.write_text(lines[0].replace(f": {VERSION}", f": {VERSION + 1}", 1) + "\n" + lines[1])
    with pytest.raises(UsageError, match=f"of version {VERSION + 1}, this jaxft writes {VERSION}"):
        Answers(path, IDENTITY)


@pytest.mark.parametrize("text", ["poems", "poems\n", '{"id": 3}\n', "[]\n", "\ufffd\n"])
def test_another_file(tmp_path, text):
    (tmp_path / "x").write_text(text)
    with pytest.raises(UsageError, match="holds no answers"):
        Answers(tmp_path / "x", IDENTITY)
    assert (tmp_path / "x").read_text() == text


def test_broken_line(path):
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]))
    with pytest.raises(Error, match="line 2: is broken"):
        Answers(path, IDENTITY)


def test_no_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Answers(tmp_path / "file" / "below", IDENTITY)
    with pytest.raises(UsageError, match="cannot be written"):
        Answers(tmp_path, IDENTITY)


def test_one_writer(path):
    with Answers(path, IDENTITY), pytest.raises(Error, match="another process"):
        Answers(path, IDENTITY)


def test_key():
    assert Answers.key("a", [1, 2]) == Answers.key("a", np.array([1, 2], np.int32)) == Answers.key("a", (1, 2))
    assert len({Answers.key("a", "b"), Answers.key("ab"), Answers.key("a", ["b"]), Answers.key("b", "a")}) == 4


def test_killed(tmp_path):
    """What `add` returned from is in the file, though the process dies at once."""
    path = tmp_path / "answers"
    code = f"""
import os, signal
from jaxft.evaluation.answers import Answers
answers = Answers({str(path)!r}, {{}})
for i in range(5):
    answers.add(str(i), i)
os.kill(os.getpid(), signal.{signal.SIGKILL.name})
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    with Answers(path, {}) as answers:
        assert [answers[str(i)] for i in range(5)] == list(range(5))
    assert json.loads(path.read_text().split("\n")[0]) == {"jaxft answers": VERSION, "identity": {}}
