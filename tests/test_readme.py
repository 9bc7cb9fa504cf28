"""The README's Python runs as it stands, with each of the three methods; only the model is a tiny one."""

import json
import re
from pathlib import Path

import jax
import pytest
import yaml
from conftest import LLAMA
from tiny_tokenizer import CHATML, tiny_tokenizer

import jaxft
from jaxft.data.dialogues import dialogues
from jaxft.models import Decoder, Model
from jaxft.recipe import make_recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    import dataclasses

    tokenizer = tiny_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    config = dataclasses.replace(
        LLAMA, vocab_size=len(tokenizer), eos_token_ids=(tokenizer.eos_token_id,), tie_embeddings=True
    )
    architecture = Decoder(config)
    model = Model(architecture, architecture.init(jax.random.key(0)), tokenizer, "tiny")
    monkeypatch.setattr(jaxft, "load", lambda source: model, raising=False)
    monkeypatch.chdir(tmp_path)
    rows = dialogues(seed=0, count=16)
    Path("dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "prompt"))]
)
def test_the_example_runs(tiny, method):
    (code,) = blocks("python")
    code = code.replace("max_length=384", "max_length=1024").replace("range(60)", "range(3)")
    lines = [line for line in code.split("\n") if not line.startswith("method = ")]
    code = "\n".join(lines).replace(f"# method = jaxft.{method}", f"method = jaxft.{method}")
    if method == "lora":
        code = code.replace("# method = jaxft.full()", "method = jaxft.lora(rank=4, alpha=32)")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert int(names["state"].step) == 3 and Path("adapter").is_dir()


def test_the_recipe_is_valid():
    whole, data = map(yaml.safe_load, blocks("yaml"))
    recipe = make_recipe(whole)
    assert recipe.method["rank"] == 16 and recipe.train.epochs == 3
    mixed = make_recipe({**whole, **data})
    assert mixed.data.packing and mixed.data.tasks[2]["weight"] == 2


def test_the_commands_exist():
    from jaxft.cli import _commands

    named = set(re.findall(r"jaxft (\w+)", "\n".join(blocks("bash"))))
    assert named and named <= set(_commands())
