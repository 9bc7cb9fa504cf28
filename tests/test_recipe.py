"""A recipe: files, flags and Python fill the same fields; what is wrong is named with its place."""

import dataclasses
import inspect
import textwrap

import pytest
import yaml

from jaxft.errors import UsageError
from jaxft.methods import METHODS, lora
from jaxft.recipe import (
    PUBLISHED,
    DataRecipe,
    ModelRecipe,
    Recipe,
    differences,
    load_recipe,
    make_recipe,
    optimizer_config,
    parse_flags,
    recipe_fields,
    resolve,
    schema,
    to_dict,
    to_yaml,
)
from jaxft.training.optimizer import OptimizerConfig

SMALLEST = Recipe(model=ModelRecipe("tiny/"), data=DataRecipe("rows.jsonl", "{{ question }}", "answer"))
TEXT = """
    model: {source: tiny/}
    data:
      source: rows.jsonl
      prompt: "Q: {{ question }}"
      completion: answer
    optimizer:
      learning_rate: 2e-4
"""


def write(tmp_path, text=TEXT, name="small.yaml"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return path


def test_file_flags_and_python_give_equal_recipes(tmp_path):
    from_file = load_recipe(write(tmp_path), ["--train.steps=3", "--method.rank", "4", "--out=there"])
    from_flags = load_recipe(
        None,
        [
            *("--model.source", "tiny/", "--data.source=rows.jsonl", "--data.prompt=Q: {{ question }}"),
            *("--data.completion=answer", "--optimizer.learning_rate=2e-4", "--train.steps=3"),
            *("--method.rank=4", "--out", "there"),
        ],
    )
    from_python = dataclasses.replace(
        SMALLEST,
        data=dataclasses.replace(SMALLEST.data, prompt="Q: {{ question }}"),
        optimizer=dataclasses.replace(SMALLEST.optimizer, learning_rate=2e-4),
        train=dataclasses.replace(SMALLEST.train, steps=3),
        method={"name": "lora", "rank": 4},
        out="there",
    )
    assert from_file == from_flags == from_python


def test_a_resolved_recipe_loads_from_its_yaml_to_an_equal_one(tmp_path):
    flags = ["--method={name: lora, targets: [q, v]}", "--data.limit={train: 9}"]
    recipe = resolve(load_recipe(write(tmp_path), flags))
    assert recipe.method == dict(lora(16, 32.0, ["q", "v"]).config)
    again = load_recipe(write(tmp_path, to_yaml(recipe), "again.yaml"))
    assert again == recipe == resolve(again)
    assert make_recipe(to_dict(recipe)) == recipe


def test_every_field_survives_the_round_trip_with_another_value():
    """Each leaf changed on its own: shows that none is dropped or converted on its way through YAML."""
    other = {int: 7, float: 0.25, bool: True, str: "x: {{ y }}", dict: {"name": "prompt", "length": 3}, list: ["bleu"]}
    of_tasks = [f"data.{name}" for name in ("tasks", *schema._TASKS)]
    own = {"data.limit": {"train": 3}, "data.mixture": {"a": 2.0}, "evaluate.in_context.shots": [2]}
    for field in recipe_fields():
        base = dataclasses.replace(SMALLEST, data=DataRecipe(tasks=["a"])) if field.key in of_tasks else SMALLEST
        changed = yaml.safe_load(yaml.safe_dump(to_dict(base)))
        *parents, last = field.key.split(".")
        section = changed
        for parent in parents:
            section = section[parent]
        kinds = {"int": int, "float": float, "bool": bool, "text": str, "mapping": dict, "list": list}
        names = field.type.split("|")
        kind = next((kinds[name] for name in names if name in kinds), None)
        if field.key in own:
            section[last] = own[field.key]
        elif kind is bool:
            section[last] = not section[last]
        else:
            section[last] = other[kind] if kind else next(name for name in names if name != section[last])
        recipe = make_recipe(changed)
        assert make_recipe(yaml.safe_load(to_yaml(recipe))) == recipe
        changed_keys = [key for key, _, _ in differences(base, recipe)]
        assert changed_keys and all(key.startswith(field.key) for key in changed_keys)


def test_what_is_null_takes_the_methods_published_value():
    assert set(PUBLISHED) == set(METHODS)
    for name, published in PUBLISHED.items():
        assert resolve(dataclasses.replace(SMALLEST, method={"name": name})).optimizer == published
        assert all(value is not None for value in dataclasses.asdict(published).values())
    chosen = dataclasses.replace(SMALLEST.optimizer, learning_rate=0.5, warmup=0.1, clip_norm=0)
    config = optimizer_config(resolve(dataclasses.replace(SMALLEST, optimizer=chosen)).optimizer, steps=50)
    assert config == OptimizerConfig("adamw", 0.5, "linear", warmup_steps=5, weight_decay=0.01, clip_norm=None)


def test_a_method_may_be_named_alone_and_a_flag_for_it_replaces_its_settings(tmp_path):
    path = write(tmp_path, TEXT + "    method: lora\n")
    assert load_recipe(path, ["--method.rank=8"]).method == {"name": "lora", "rank": 8}
    assert load_recipe(path, ["--method.rank=8", "--method=prompt"]).method == {"name": "prompt"}


def test_out_is_named_after_the_recipe(tmp_path):
    assert load_recipe(write(tmp_path)).out == "runs/small"
    assert load_recipe(write(tmp_path), ["--out=x"]).out == "x"


def test_flag_values_are_yaml_but_text_stays_text():
    pairs = [
        ("--data.prompt", "Say: {{ x }}"),
        ("--data.source", "{train: a.csv, test: b.csv}"),
        ("--data.source", "a.csv"),
        ("--data.system", "null"),
        ("--data.system", "yes"),
        ("--data.max_length", "null"),
        ("--evaluate.before", "no"),
        ("--evaluate.metrics", "[bleu, chrf]"),
        ("--optimizer.learning_rate", "1e-5"),
        ("--train.batch-size", "4"),
        ("--method.targets", "[q, v]"),
        ("--method.alpha", "2E1"),
    ]
    values = [value for _, value in parse_flags([part for pair in pairs for part in pair])]
    assert values == [
        "Say: {{ x }}", {"train": "a.csv", "test": "b.csv"}, "a.csv", None, "yes", None, False, ["bleu", "chrf"], 1e-5,
        4, ["q", "v"], 20.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.stepz=3"], "unknown key 'train.stepz'; did you mean 'train.steps'"),
        (["--learning_rate=3"], "unknown key 'learning_rate'; did you mean 'optimizer.learning_rate'"),
        (["--lerning_rate=3"], "did you mean 'optimizer.learning_rate'"),
        (["--generate.seed=3"], "did you mean '(data|train).seed'"),
        (["--train.learning_rate=3"], "did you mean 'optimizer.learning_rate'"),
        (["--trian.steps=3"], "unknown key 'trian'; did you mean 'train'"),
        (["--train.steps=many"], r"train.steps should be a valid integer.* \(it is 'many'; type int\|null\)"),
        (["--train.batch_size=0"], "train.batch_size should be greater than or equal to 1"),
        (["--optimizer.name=adma"], "optimizer.name should be 'adamw' or 'adafactor'"),
        (["--data.limit={train: x}"], "data.limit should be a valid integer"),
        (["--train.steps"], "--train.steps needs a value"),
        (["--train.steps", "--out=x"], "--train.steps needs a value"),
        (["train.steps=3"], "is no flag"),
        (["--train.steps=[1"], "is not YAML"),
        (["--train.steps.more=1"], "train.steps"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(write(tmp_path), flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train: {stepz: 3}", "small.yaml:9: unknown key 'train.stepz'"),
        ("train: 3", "small.yaml:9: train "),
        ("metod: lora", "small.yaml:9: unknown key 'metod'; did you mean 'method'"),
        ("data: {}", "small.yaml:9: data stands there twice"),
        ("train: {steps: 3", "small.yaml:10: not YAML"),
    ],
)
def test_wrong_lines_are_named_with_their_number(tmp_path, line, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(write(tmp_path, TEXT + f"    {line}\n"))
    assert str(caught.value).startswith(str(tmp_path))


def test_each_problem_is_a_line_of_its_own(tmp_path):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, "model: {source: x}\ntrain: {stepz: 1, batch_size: no}\n"))
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert any(
        "data.source and data.prompt and data.completion is missing: set it in the file" in line for line in lines
    )


@pytest.mark.parametrize(
    ("text", "message"), [("", "the recipe is empty"), ("- a\n- b\n", "a recipe is a mapping"), ("a: b: c", "not YAML")]
)
def test_files_that_are_no_recipe(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(write(tmp_path, text))
    with pytest.raises(UsageError, match="no such recipe file"):
        load_recipe(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--method.name=lorra", "did you mean 'lora'"),
        ("--method.rnk=3", "did you mean 'rank'"),
        ("--method.rank=0", "method.rank"),
        ("--evaluate.metrics=[rouge3]", "unknown metric 'rouge3'; did you mean 'rouge"),
    ],
)
def test_unknown_methods_settings_and_metrics_are_named(tmp_path, flag, message):
    with pytest.raises(UsageError, match=message):
        resolve(load_recipe(write(tmp_path), ["--method.name=lora", flag]))


def test_every_field_is_explained_with_its_type():
    fields = list(recipe_fields())
    assert len({field.key for field in fields}) == len(fields) > 50
    assert all(field.help and field.type for field in fields)
    assert {field.key for field in fields if field.default is dataclasses.MISSING} == {"model.source"}


TASKS = "model: {source: tiny/}\ndata:\n  tasks: [glue/rte]\n"


def test_data_are_rows_or_tasks(tmp_path):
    path = write(tmp_path, TASKS)
    recipe = load_recipe(path, ["--data.shots={0: 0.5, 2: 0.5}", "--data.mixture={glue/rte: 2}", "--data.packing=yes"])
    assert recipe.data.tasks == ["glue/rte"] and recipe.data.shots == {0: 0.5, 2: 0.5}
    assert recipe.data.mixture == {"glue/rte": 2.0} and recipe.data.packing is True
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe))
    assert load_recipe(again, [f"--out={recipe.out}"]) == recipe


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (TASKS, ["--data.prompt=x"], "data.prompt beside data.tasks, which bring their own"),
        (TASKS, ["--data.source=x"], "data.source beside data.tasks"),
        (TASKS, ["--data.validation=0.1"], "data.validation beside data.tasks"),
        (TASKS + "  system: x\n", [], "small.yaml:4: data.system beside data.tasks"),
        (TEXT, ["--data.shots=2"], "data.shots is about data.tasks, and there are none"),
        (TEXT, ["--data.mixture=equal"], "data.mixture is about data.tasks"),
        (TEXT, ["--data.prompt=null"], "data.prompt is missing: .* or set data.tasks"),
        (TASKS, ["--data.mixture=even"], "data.mixture "),
        (TASKS, ["--data.temperature=0"], "data.temperature should be greater than 0"),
        (TASKS, ["--data.rationale=2"], "data.rationale should be less than or equal to 1"),
        (TASKS, ["--data.tasks=3"], "data.tasks should be a valid list"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, text, flags, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(write(tmp_path, text), flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [{"name": "prompt"}, {"methods": [{"name": "lora"}, {"name": "prompt"}]}])
def test_a_soft_prompt_and_packing_exclude_each_other(tmp_path, method):
    recipe = load_recipe(write(tmp_path), ["--data.packing=true"])
    with pytest.raises(UsageError, match="a soft prompt stands before a row"):
        resolve(dataclasses.replace(recipe, method={"name": "union", **method}))
    assert resolve(dataclasses.replace(recipe, method={"name": "prefix"})).data.packing


def test_methods_settings_are_their_constructors_parameters():
    for constructor in METHODS.values():
        for parameter in inspect.signature(constructor).parameters.values():
            assert parameter.default is not inspect.Parameter.empty
