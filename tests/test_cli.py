"""The command line: one line for each problem, exit codes, and the same runs as the library's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from jaxft.cli import main
from jaxft.methods import METHODS
from jaxft.methods.peft import load_adapter
from jaxft.pretrained import load
from jaxft.recipe import recipe_fields, to_yaml
from jaxft.training.journal import read_lines


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    model, data = tiny_run.write_model(folder / "model"), tiny_run.write_rows(folder / "data")
    (folder / "tiny.yaml").write_text(to_yaml(tiny_run.recipe(model, data, folder / "run", steps=4)))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    assert main(["train", str(place / "tiny.yaml")]) == 0
    return place / "run"


def problem(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error.strip().split("\n")
    return code, lines[-1]


def test_help_names_every_command():
    run = subprocess.run([sys.executable, "-m", "jaxft", "--help"], capture_output=True, text=True, check=True)
    commands = ("train", "generate", "evaluate", "sweep", "merge", "export", "look", "data", "params", "inspect")
    commands += ("quickstart",)
    named = {line.split()[0] for line in run.stdout.split("\n") if line[:4] == "    " and line[4:5].isalpha()}
    assert set(commands) <= named


def test_the_command_line_loads_neither_jax_nor_transformers_to_answer():
    program = "import sys; import jaxft.cli; print({'jax', 'transformers', 'pydantic', 'rich'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_train_help_explains_every_field_and_every_setting(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for field in recipe_fields():
        assert f"  {field.key}  (" in text
        assert field.help.split()[0] in text
    for name in METHODS:
        assert f"method.name={name}" in text
    assert "method.rank  (int; default 16)" in text


def test_train_writes_the_run_and_prints_the_scores(place, capsys):
    out = place / "printed"
    assert main(["train", str(place / "tiny.yaml"), f"--out={out}", "--train.steps", "1"]) == 0
    shown = capsys.readouterr()
    assert "rouge1" in shown.out and "before" in shown.out and str(out) in shown.out.replace("\n", "")
    assert "numbers are trained" in shown.err and "compiling the step" in shown.err
    assert "⟦" in shown.err, "one example is shown with its trained tokens marked"
    assert json.loads((out / "summary.json").read_text())["steps"] == 1


def test_params_counts_every_method_before_anything_is_compiled(place, capsys):
    assert main(["params", str(place / "model")]) == 0
    text = capsys.readouterr().out
    model = load(place / "model")
    total = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert f"{total:,}" in text and all(name in text for name in METHODS)
    assert main(["params", str(place / "model"), "--method=lora", "--method.rank=1", "--method.targets=[q]"]) == 0
    assert f"{2 * (16 + 16):,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "5"], "--limit: for benchmarks only: name them with --tasks"),
        (["--tasks", "boolq", "--split", "dev"], "--split: for a recipe's data, not with --tasks"),
        (["--tasks", "boolq", "--words", "lists.yaml"], "--words: for a recipe's data, not with --tasks"),
    ],
)
def test_evaluate_refuses_a_flag_that_it_would_not_read(flags, message, capsys):
    assert main(["evaluate", "no-model", *flags]) == 2
    assert message in capsys.readouterr().err


def test_evaluate_gives_the_scores_of_the_run(trained, place, capsys):
    recipe, adapter = place / "tiny.yaml", trained / "adapter"
    capsys.readouterr()
    predictions = place / "predictions.jsonl"
    arguments = ["evaluate", place / "model", recipe, "--adapter", adapter, "--predictions", predictions]
    assert main([str(argument) for argument in arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    summary = json.loads((trained / "summary.json").read_text())
    assert result["loss"] == pytest.approx(summary["after"]["loss"], abs=1e-6)
    assert result["scores"]["chrf"]["value"] == summary["after"]["chrf"]
    rows = read_lines(trained / "predictions.jsonl")
    assert [row["prediction"] for row in read_lines(predictions)] == [row["after"] for row in rows]
    assert main(["evaluate", str(place / "model"), str(recipe)]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(summary["before"]["loss"], abs=1e-6)


def test_generate_takes_prompts_from_flags_a_file_and_standard_input(trained, place, capsys, monkeypatch):
    import io

    capsys.readouterr()
    model, settings = (
        str(place / "model"),
        ["--chat", "--generate.max_new_tokens=5", "--adapter", str(trained / "adapter")],
    )
    assert main(["generate", model, "--prompt", "Hello", "--prompt", "What now?", *settings]) == 0
    from_flags = capsys.readouterr().out
    (place / "prompts.txt").write_text("Hello\nWhat now?\n")
    assert main(["generate", model, "--file", str(place / "prompts.txt"), *settings]) == 0
    assert capsys.readouterr().out == from_flags != ""
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    assert main(["generate", model, *settings]) == 0
    assert from_flags.startswith(capsys.readouterr().out)


def test_sweep_prints_its_members_and_writes_the_best(place, tmp_path, capsys):
    out = tmp_path / "sweep"
    grid = ["--sweep.optimizer.learning_rate=0.01,0.1", "--sweep.method.rank=1,2"]
    assert main(["sweep", str(place / "tiny.yaml"), f"--out={out}", "--train.steps=2", *grid]) == 0
    shown = capsys.readouterr().out
    assert "rank" in shown and "learning_rate" in shown and "results.jsonl" in shown.replace("\n", "")
    assert len(read_lines(out / "results.jsonl")) == 4
    assert {"sweep.json", "sweep.png", "adapter"} <= {path.name for path in out.iterdir()}
    settings = ["--chat", "--generate.max_new_tokens=2", "--adapter", str(out / "adapter")]
    assert main(["generate", str(place / "model"), "--prompt", "Hello", *settings]) == 0


def test_merge_and_look_take_the_adapter_of_a_run(trained, tmp_path, capsys):
    assert main(["merge", str(trained / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    assert "base and adapter as one model" in capsys.readouterr().out
    assert load(tmp_path / "merged").config == load(trained.parent / "model").config
    assert main(["look", str(trained / "adapter"), "--out", str(tmp_path / "pictures")]) == 0
    written = [line for line in capsys.readouterr().out.split("\n") if line.endswith(".png")]
    assert written and all(Path(line).exists() for line in written)
    code, error = problem(capsys, "merge", trained / "adapter", "--out", tmp_path / "merged", "--train.steps=1")
    assert code == 2 and "--train.steps" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.source=missing.jsonl"], "missing.jsonl: no such file"),
        (["--data.completion=sumary"], "did you mean 'summary'"),
        (["--data.prompt={{ dialog }}"], "did you mean 'dialogue'"),
        (["--data.prompt={{ dialogue"], "template"),
        (["--data.prompt={{ dialogue.__class__ }}"], "template"),
        (["--data.max_length=20"], "24 of 24 examples are too long for max_length 20"),
        (["--data.max_length=100000"], "beyond the model's context of 512"),
        (["--train.stepz=1"], "did you mean 'train.steps'"),
        (["--train.batch_size=0"], "greater than or equal to 1"),
        (["--method=lorra"], "unknown method 'lorra'; did you mean 'lora'"),
        (["--method.targets=qq"], "'qq' matches no kernel"),
        (["--method.rank=1000"], "method.rank: 1000 exceeds"),
        (["--evaluate.metrics=[blue]"], "unknown metric 'blue'; did you mean 'bleu"),
        (["--model.source=./nowhere"], "nowhere"),
        (["--mesh.fsdp=64"], "needs 64 devices"),
        (["--train.accumulate=3"], "cannot be accumulated in 3 equal parts"),
        (["--optimizer.warmup=5"], "warm"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(place, tmp_path, capsys, flags, message):
    code, error = problem(capsys, "train", place / "tiny.yaml", f"--out={tmp_path / 'run'}", *flags)
    assert code == 2, error
    assert error.startswith("jaxft: ") and message in error


def test_a_recipe_may_be_corrected_in_the_same_folder(place, tmp_path, capsys):
    command = ["train", str(place / "tiny.yaml"), f"--out={tmp_path}", "--train.steps=1"]
    assert problem(capsys, *command, "--method.targets=qq")[0] == 2
    assert main(command) == 0


def test_damaged_files_are_one_line_and_exit_code_1(place, tmp_path, capsys):
    import shutil

    shutil.copytree(place / "model", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    out = f"--out={tmp_path / 'run'}"
    code, error = problem(capsys, "train", place / "tiny.yaml", f"--model.source={tmp_path / 'model'}", out)
    assert code == 1 and "model.safetensors" in error
    (tmp_path / "rows.jsonl").write_text('{"dialogue": "x", "summary": "y"}\n{"dialogue": "x", "summ\n')
    code, error = problem(capsys, "train", place / "tiny.yaml", f"--data.source={tmp_path / 'rows.jsonl'}", out)
    assert code == 1 and "rows.jsonl:2: broken JSON" in error
    code, error = problem(capsys, "train", place / "tiny.yaml", out, "--optimizer.learning_rate=1e38")
    assert code == 1 and "not finite" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "invalid choice"),
        (["train", "missing.yaml"], "missing.yaml: no such recipe file"),
        (["train"], "data.source and data.prompt and data.completion is missing"),
        (["params", "x", "--train.steps=3"], "only fields of method and optimizer"),
        (["generate", "x", "--prompt", "p", "--data.seed=3"], "only fields of 'generate'"),
        (["generate", "x", "--prompt", "p", "--generate.top_p=3"], "generate.top_p should be"),
        (["generate", "x", "--file", "missing.txt"], "missing.txt cannot be read"),
        (["generate", "x", "--prompt", "p", "--system", "s"], "`system` needs `chat: true`"),
    ],
)
def test_wrong_commands_are_exit_code_2(capsys, arguments, message):
    code, error = problem(capsys, *arguments)
    assert code == 2 and message in error


def test_quickstart_is_an_ordinary_run_on_dialogues_that_it_writes(place, tmp_path, capsys):
    flags = ["--train.steps=1", "--data.limit={train: 8, validation: 2, test: 2}", "--mesh.data=1"]
    folder, tiny = tmp_path / "quick", f"--model.source={place / 'model'}"
    assert main(["quickstart", str(folder), tiny, "--data.max_length=512", "--method.rank=4", *flags]) == 0
    shown = capsys.readouterr().out
    assert "rouge1" in shown and "reference" in shown and "now try: jaxft generate" in shown
    assert {path.name for path in (folder / "data").iterdir()} == {"train.jsonl", "validation.jsonl", "test.jsonl"}
    again = ["train", str(folder / "recipe.yaml"), f"--out={tmp_path / 'again'}"]
    assert main(again) == 0
    left, right = (json.loads((out / "summary.json").read_text()) for out in (folder, tmp_path / "again"))
    assert left["after"] == right["after"]


def test_debug_shows_the_traceback(capsys):
    from jaxft.errors import UsageError

    with pytest.raises(UsageError):
        main(["train", "missing.yaml", "--debug"])


def command(place, out):
    programs = str(jax.config.jax_compilation_cache_dir)
    cache = {"JAX_COMPILATION_CACHE_DIR": programs, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | cache | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    flags = [f"--out={out}", "--train.steps=24", "--train.checkpoint_minutes=0.001", "--train.eval_every=10"]
    arguments = [sys.executable, "-m", "jaxft", "train", str(place / "tiny.yaml"), *flags]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, out, step):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["step"] >= step for row in read_lines(out / "metrics.jsonl")):
            return
        time.sleep(0.005)
    raise AssertionError(process.stderr.read())


@pytest.mark.slow  # a minute; test_run.py, test_loop.py and test_checkpoint.py kill in-process. 2026-11-22: passed
def test_ctrl_c_and_kill_9_then_the_same_command_ends_with_the_same_bits(place, tmp_path):
    """The promise of a run that lasts, on real processes."""
    whole, out = tmp_path / "whole", tmp_path / "broken"
    process = command(place, whole)
    assert process.wait() == 0, process.stderr.read()
    for step, number, code in [(3, signal.SIGINT, 130), (15, signal.SIGKILL, -9)]:
        process = command(place, out)
        wait_for_step(process, out, step)
        process.send_signal(number)
        assert process.wait() == code, process.stderr.read()
        assert "Traceback" not in process.stderr.read()
    process = command(place, out)
    assert process.wait() == 0, process.stderr.read()
    model = load(place / "model")
    left, right = (load_adapter(folder / "adapter", model)[1] for folder in (whole, out))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert read_lines(out / "metrics.jsonl") == read_lines(whole / "metrics.jsonl")
    assert len(json.loads((out / "environment.json").read_text())["sessions"]) == 3
    assert not list(Path(out / "checkpoints").glob("*tmp*"))
