"""What the documentation shows is so: recipes are valid, commands exist, Python runs, links lead somewhere."""

import json
import re
from pathlib import Path

import pytest
import yaml

from jaxft.cli import _commands
from jaxft.data.dialogues import dialogues
from jaxft.data.tasks import load_task
from jaxft.recipe import make_recipe

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.S)


@pytest.mark.parametrize("page", PAGES)
def test_recipes_commands_and_links(page):
    for block in map(yaml.safe_load, blocks(page, "yaml")):
        if "templates" in block:
            assert load_task(block).name == block["name"]
            continue
        start = {"model": {"source": "x"}, "data": {"source": "x", "prompt": "a", "completion": "b"}}
        if "tasks" in block.get("data", {}):
            start["data"] = {}
        assert make_recipe({**start, **block, "data": {**start["data"], **block.get("data", {})}})
    assert set(re.findall(r"^jaxft (\w+)", "\n".join(blocks(page, "bash")), flags=re.M)) <= set(_commands())
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target


def test_a_method_of_ones_own_is_a_method():
    import jax
    from conftest import LLAMA, make_model

    names = {}
    (code,) = blocks("choosing_a_method", "python")
    exec(compile(code, "choosing_a_method.md", "exec"), names)
    model = make_model(LLAMA)
    trainable, frozen = names["last_norm"]().init(jax.random.key(0), {"params": model.params})
    assert len(jax.tree.leaves(trainable)) == 1
    bound = names["last_norm"]().bind(trainable, frozen)
    assert jax.tree.structure(bound["params"]) == jax.tree.structure(model.params)


def test_the_first_tune_runs_and_its_adapters_are_served_together(tmp_path, monkeypatch):
    import jaxft

    monkeypatch.chdir(tmp_path)
    rows = dialogues(seed=0, count=16)
    Path("dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    names = {}
    (code,) = blocks("first_tune", "python")
    exec(compile(code.replace("range(30)", "range(2)"), "first_tune.md", "exec"), names)
    assert int(names["state"].step) == 2
    for folder in ("summaries", "translations", "replies"):
        jaxft.save_adapter(folder, names["method"], names["state"].trainable, names["frozen"], names["model"])
    (code,) = blocks("serving", "python")
    exec(compile(code, "serving.md", "exec"), names)
    assert len(names["texts"]) == 2
