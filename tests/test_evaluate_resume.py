"""An evaluation that was killed goes on from what is on disk, to the same rows; answers of others are refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import pytest
import tiny_run

from jaxft.errors import UsageError
from jaxft.evaluation import tasks
from jaxft.evaluation.answers import Answers
from jaxft.recipe import to_yaml
from jaxft.runs.use import evaluate_split
from jaxft.training.journal import read_lines
from jaxft.training.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """One task of choices and one of texts, over the same rows."""
    folder = tmp_path_factory.mktemp("place")
    model = tiny_run.write_model(folder / "model")
    data = tiny_run.write_rows(folder / "data", train=2, validation=1, test=11)
    record = {
        "source": {"test": str(data / "test.jsonl")},
        "templates": {"a": "Said:\n{{ dialogue }}\nSo:", "b": "{{ dialogue }}\nIn short?"},
    }
    records = [
        {**record, "name": "long", "completion": "{{ 'yes' if dialogue | length > 120 else 'no' }}",
         "choices": ["yes", "no"], "train": False},
        {**record, "name": "short", "completion": "summary", "metrics": ["chrf"], "stop": ["."], "train": False},
    ]  # fmt: skip
    one = tiny_run.recipe(model, "", folder / "out")
    one = tiny_run.changed(one, "data", source=None, prompt=None, completion=None, chat=False, tasks=records)
    return tiny_run.changed(one, "data", max_length=256, on_long="truncate")


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, evaluate_split(recipe, out=out, progress=QUIET)


def test_everything_is_there(recipe, whole):
    out, found = whole
    assert json.loads((out / "scores.json").read_text()) == json.loads(json.dumps(found))
    rows = read_lines(out / "predictions.jsonl")
    assert len(rows) == found["examples"] == 22
    assert set(found["scores"]) == {"accuracy", "ece", "brier", "nll", "chrf"}
    assert found["scores"]["accuracy"]["n"] == 11 and found["scores"]["accuracy"]["low"] is not None
    assert set(found["task_scores"]["short"]["templates"]) <= {"a", "b"}
    assert not any("." in row["prediction"] for row in rows if row["task"] == "short")


def test_interrupted_it_goes_on(recipe, whole, tmp_path, monkeypatch, capsys):
    """Ctrl-C after some batches: what is there is told, kept, and not computed again."""
    out, expected = whole
    seen = []

    class Interrupted(tasks.Answers):
        def add_all(self, items):
            super().add_all(items)
            seen.append(len(self))
            if len(seen) == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr("jaxft.runs.evaluating.Answers", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_split(recipe, out=tmp_path, progress=Progress())
    assert f"{seen[-1]} answers are kept in {tmp_path}/answers.jsonl" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "predictions.jsonl").exists() and 0 < seen[-1] < 22
    again = evaluate_split(recipe, out=tmp_path, progress=QUIET)
    assert len(seen) > 4
    assert again == expected
    assert (tmp_path / "predictions.jsonl").read_text() == (out / "predictions.jsonl").read_text()


def test_killed_it_goes_on(recipe, whole, tmp_path):
    """kill -9 in the middle of a line of answers, in a process of its own, at the command line."""
    out, _ = whole
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    code = f"""
import os, signal
from jaxft.evaluation.answers import Answers
write = Answers._write
def killed(self, data):
    if len(self) >= 7:
        write(self, data[:20])
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, data)
Answers._write = killed
from jaxft.cli import main
main(["evaluate", {recipe.model.source!r}, {str(tmp_path / "recipe.yaml")!r}, "--predictions",
      {str(tmp_path / "p.jsonl")!r}])
"""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **cache}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    lines = (tmp_path / "p.answers.jsonl").read_bytes().split(b"\n")
    assert 8 <= len(lines) < 22 and len(lines[-1]) == 20
    evaluate_split(recipe, predictions=tmp_path / "p.jsonl", progress=QUIET)
    assert read_lines(tmp_path / "p.jsonl") == read_lines(out / "predictions.jsonl")


def test_answers_of_others_are_refused_before_the_model_is_loaded(recipe, whole, tmp_path, monkeypatch):
    out, _ = whole
    monkeypatch.setattr("jaxft.runs.evaluating.load_model", None)
    other = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, source="elsewhere"))
    with pytest.raises(UsageError, match=r"another model: .*, not 'elsewhere'; choose another file"):
        evaluate_split(other, out=out, progress=QUIET)
    with pytest.raises(UsageError, match="another dtype: 'auto', not 'bfloat16'"):
        evaluate_split(tiny_run.changed(recipe, "model", dtype="bfloat16"), out=out, progress=QUIET)
    (tmp_path / "p.answers.jsonl").write_text('{"jaxft answers": 0, "identity": {}}\n')
    with pytest.raises(UsageError, match="of version 0, this jaxft writes 1"):
        evaluate_split(recipe, predictions=tmp_path / "p.jsonl", progress=QUIET)


def test_other_weights_of_the_same_name_are_refused(recipe, whole, tmp_path):
    out, _ = whole
    copied = tmp_path / "answers.jsonl"
    header, *rest = (out / "answers.jsonl").read_text().split("\n")
    found = json.loads(header)
    found["identity"]["weights"] = "others"
    copied.write_text("\n".join([json.dumps(found), *rest]))
    with pytest.raises(UsageError, match="another weights: 'others'"):
        evaluate_split(recipe, out=tmp_path, progress=QUIET)


def test_what_is_known_is_found_by_prompt_and_settings(recipe, whole, tmp_path):
    """Longer answers are other answers; ranked choices are the same."""
    out, _ = whole
    (tmp_path / "answers.jsonl").write_bytes((out / "answers.jsonl").read_bytes())
    evaluate_split(tiny_run.changed(recipe, "generate", max_new_tokens=5), out=tmp_path, progress=QUIET)
    identity = json.loads((out / "answers.jsonl").read_text().split("\n")[0])["identity"]
    with Answers(tmp_path / "answers.jsonl", identity) as found:
        assert len(found) == 33
