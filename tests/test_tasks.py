"""Tasks: what an example looks like is a function of (seed, row id); shots, phrasings and labels keep their laws."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.rows import Rows, Unusable
from jaxft.data.tasks import Task, Template, encode_task, load_task, load_tasks, render_task, task_names
from jaxft.data.tasks.drawing import checked_rates, draw, draw_by_rate
from jaxft.data.tasks.loading import _library
from jaxft.data.templates import Rendered
from jaxft.errors import Error, UsageError

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no data: set JAXFT_DATA")

RECORD = {
    "name": "colours",
    "fields": {"answer": "{{ {0: 'red', 1: 'blue'}.get(label, label) }}"},
    "completion": "answer",
    "choices": ["red", "blue"],
    "templates": {
        "ask": "Which colour has a {{ thing }}?",
        "fill": {"prompt": "A {{ thing }} is", "completion": "{{ answer }}."},
        "think": {"prompt": "{{ 'Think. ' if reason_first }}{{ thing }}:", "rationale": "{{ why }} So {{ answer }}."},
        "odd": {"prompt": "{{ thing }}? ({{ options | join('/') }})", "held_out": True},
    },
}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    rows = [{"thing": f"thing{i}", "label": i % 2, "why": f"because {i}."} for i in range(40)]
    return {"train": written(tmp_path / "train.jsonl", rows), "test": written(tmp_path / "test.jsonl", rows[:6])}


@pytest.fixture
def task(source):
    return load_task(RECORD | {"source": source})


def changed(source, **values):
    return RECORD | {"source": source} | values


def test_an_example_has_one_phrasing_and_says_where_it_comes_from(task):
    rows = task.rows("train")
    rendered = render_task(task, rows, seed=1)
    by_template = {r.template: r for r in rendered}
    assert set(by_template) == {"ask", "fill", "think"} and {r.task for r in rendered} == {"colours"}
    assert all(r.choices == ("red", "blue") for r in rendered)
    i = [r.template for r in rendered].index("fill")
    assert rendered[i].prompt == f"A thing{i} is" and rendered[i].references == (("red.", "blue.")[i % 2],)


def test_what_a_row_gets_depends_on_seed_and_id_alone(task):
    rows = task.rows("train")
    options = {"seed": 3, "shots": {0: 0.5, 2: 0.5}, "rationale": 0.5}
    whole = render_task(task, rows, **options)
    assert render_task(task, rows.take([7, 3, 31]), **options) == [whole[7], whole[3], whole[31]]
    assert render_task(task, rows, **options | {"seed": 4}) != whole


SCRIPT = """
import json, sys
from jaxft.data.tasks import load_task, render_task
task = load_task(json.loads(sys.argv[1]))
print(json.dumps(render_task(task, task.rows("train"), seed=5, shots={0: 1, 1: 1}, rationale=0.3)))
"""


def test_two_processes_render_the_same(source):
    outputs = []
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", SCRIPT, json.dumps(changed(source))]
        outputs.append(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    assert outputs[0] == outputs[1] and len(json.loads(outputs[0])) == 40


def test_the_draws_are_the_same_on_every_machine_and_even():
    assert [draw(1000, 0, f"train:{i}", "template") for i in range(4)] == [456, 746, 878, 372]
    counts = collections.Counter(draw(6, 0, i, "template") for i in range(6000))
    assert all(850 < counts[i] < 1150 for i in range(6))
    rates = collections.Counter(draw_by_rate({0: 1, 3: 3}, 0, i) for i in range(4000))
    assert set(rates) == {0, 3} and 2850 < rates[3] < 3150
    assert {draw_by_rate({0: 0, 2: 1, 5: 0}, i) for i in range(50)} == {2}


def test_held_out_phrasings_are_never_drawn_in_training_and_alone_when_asked_for(task):
    rows = task.rows("train")
    assert all(r.template != "odd" for seed in range(5) for r in render_task(task, rows, seed, rationale=0.5))
    held_out = render_task(task, rows, held_out=True)
    assert {r.template for r in held_out} == {"odd"} and held_out[0].prompt == "thing0? (red/blue)"
    with pytest.raises(UsageError, match="colours has no held-out template"):
        render_task(load_task(changed({"train": "x"}, templates={"a": "b"})), rows, held_out=True)


def test_shots_are_other_rows_of_train_in_the_same_phrasing(task):
    rows = task.rows("test")
    for r, row in zip(render_task(task, rows, shots=3), rows, strict=True):
        *shots, asked = r.prompt.split("\n\n")
        assert len(shots) == len(set(shots)) == 3 and row["thing"] in asked
        # The test rows are also in train: a row that reads the same is the example itself.
        assert not any(f"{row['thing']} " in shot or f"{row['thing']}?" in shot for shot in shots)
        assert all(shot.startswith(asked.split("thing")[0]) for shot in shots)
    first = render_task(task, rows, shots=1)[0]
    assert first.prompt.split("\n\n")[0].split()[-1].strip(".") in ("red", "blue")


def test_shots_are_never_the_example(task):
    rows = task.rows("train")
    for r, row in zip(render_task(task, rows, shots=5), rows, strict=True):
        shots = r.prompt.split("\n\n")[:-1]
        assert len(shots) == 5 and not any(f"{row['thing']}{end}" in shot for shot in shots for end in " ?:\n")


def test_a_pool_gives_the_shots_and_too_small_a_one_is_refused(task):
    rows = task.rows("train")
    prompts = [r.prompt for r in render_task(task, rows.take([0, 1]), shots=1, pool=rows.take([38, 39]))]
    assert all("thing38" in prompt or "thing39" in prompt for prompt in prompts)
    with pytest.raises(UsageError, match="2 worked examples need more than the 2 rows"):
        render_task(task, rows, shots=2, pool=rows.take([0, 1]))
    with pytest.raises(UsageError, match="rates may not be negative"):
        render_task(task, rows, shots={0: -1, 2: 2})
    assert checked_rates("shots", {"1": 2}) == {1: 2.0}
    for wrong in ({}, {0: 0}, {-1: 1}, "many"):
        with pytest.raises(UsageError, match="shots"):
            checked_rates("shots", wrong)


def test_reasoning_comes_before_the_answer_at_its_rate(task):
    rows = task.rows("train")
    assert not any(r.template.endswith("+rationale") for r in render_task(task, rows))
    always = render_task(task, rows, rationale=True)
    assert {r.template for r in always} == {"think+rationale"}
    assert (always[3].prompt, always[3].references) == ("Think. thing3:", ("because 3. So blue.",))
    half = [r.template for r in render_task(task, rows, rationale=0.5)]
    assert 10 <= half.count("think+rationale") <= 30
    with pytest.raises(UsageError, match="rationale: 2 is no rate"):
        render_task(task, rows, rationale=2)
    shot = render_task(task, rows, rationale=True, shots=1)[0].prompt.split("\n\n")[0]
    assert shot.startswith("Think. ") and " So " in shot


def test_labels_outside_the_choices_name_file_line_and_label_or_are_counted(tmp_path):
    rows = [{"thing": f"t{i}", "label": label, "why": ""} for i, label in enumerate([0, 1, 7, 1])]
    task = load_task(changed({"train": written(tmp_path / "c.jsonl", rows)}))
    with pytest.raises(UsageError, match=r"colours: c\.jsonl:3: the label '7' is not among 'red', 'blue' \(1 of 4"):
        task.rows("train")
    with pytest.raises(UsageError, match=r"1 of 4 rows are bad \(first: c\.jsonl:3, the label '7' is not among"):
        encode_task(task, "train", tiny_tokenizer(), max_length=100)
    examples, report = encode_task(task, "train", tiny_tokenizer(), max_length=100, on_bad="skip")
    assert len(examples) == 3 and report.bad_rows == 1 and "c.jsonl:3" in report.first_bad
    skipped = task.rows("train", on_bad="skip")
    assert isinstance(skipped[2], Unusable) and skipped.id(2) == "train:2" and len(skipped) == 4


def test_choices_per_row_and_of_a_phrasing(tmp_path):
    rows = [{"q": "2+2?", "options_of_row": ["3", "4"], "a": 1}, {"q": "1+1?", "options_of_row": ["2", "5"], "a": 0}]
    record = {"name": "sums", "source": {"train": written(tmp_path / "s.jsonl", rows)}, "choices": "options_of_row",
              "completion": "{{ options_of_row[a] }}", "templates": {
                  "text": "{{ q }}",
                  "letter": {"prompt": "{{ q }}", "completion": "{{ 'AB'[a] }}", "choices": ["A", "B"]}}}  # fmt: skip
    task = load_task(record)
    seen = {(r.references, r.choices) for seed in range(20) for r in render_task(task, task.rows("train"), seed)}
    assert seen == {(("4",), ("3", "4")), (("2",), ("2", "5")), (("B",), ("A", "B")), (("A",), ("A", "B"))}


def test_a_column_called_options_is_seen_where_the_task_has_no_choices(tmp_path):
    source = {"train": written(tmp_path / "o.jsonl", [{"options": ["x", "y"], "reasoning": "z", "a": "x"}])}
    record = {"name": "o", "source": source, "completion": "{{ reasoning }}: {{ a }}"}
    for choices, seen in ((None, "x-y"), (["z: x", "no"], "z: x-no")):
        task = load_task(record | {"choices": choices, "templates": {"t": "{{ options | join('-') }}"}})
        assert render_task(task, task.rows("train"))[0][:2] == (seen, ("z: x",))


def test_numbers_among_the_splits_are_carved_of_train_and_ids_stay(source):
    task = load_task(changed(source, splits={"train": "train", "validation": 5, "dev_test": 0.1, "test": "test"}))
    parts = {name: task.rows(name) for name in ("train", "validation", "dev_test", "test")}
    assert [len(part) for part in parts.values()] == [31, 5, 4, 6]
    ids = [part.id(i) for name, part in parts.items() if name != "test" for i in range(len(part))]
    assert sorted(ids, key=lambda name: int(name[6:])) == [f"train:{i}" for i in range(40)]
    assert parts["validation"].place(0).startswith("train.jsonl:")
    assert task.rows("val", limit=2).id(0) == parts["validation"].id(0) and task.splits["validation"] == 5


def test_what_is_for_evaluation_is_not_trained_on(source):
    task = load_task(changed(source, train=False))
    assert len(task.rows("test")) == 6
    for use in (lambda: task.rows("train"), lambda: encode_task(task, "train", tiny_tokenizer(), max_length=99)):
        with pytest.raises(UsageError, match="colours is for evaluation only: it may not be trained on"):
            use()
    with pytest.raises(UsageError, match="colours has no rows for worked examples"):
        render_task(task, task.rows("test"), shots=1)
    _, report = encode_task(task, "test", tiny_tokenizer(), max_length=99, shots=2)
    assert report.dropped_shots == 12 and "left out 12 worked examples" in str(report)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"templats": {}}, "unknown key 'templats'; did you mean 'templates'"),
     ({"templates": {"a": {"promt": "x"}}}, "unknown key 'templates.a.promt'; did you mean 'prompt'"),
     ({"templates": {"a": {"held_out": True}}}, "templates.a.prompt is missing"),
     ({"templates": {"a": "{{ thing "}}, "line 1"),
     ({"templates": {"a": {"prompt": "x", "held_out": True}}}, "at least one that is not held out"),
     ({"templates": [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}]}, "the id 'a' is there twice"),
     ({"templates": {}}, "at least one"), ({"templates": "x"}, "templates is neither a mapping"),
     ({"completion": None}, "completion is missing"), ({"choices": ["a", "a"]}, "two or more different"),
     ({"choices": {"a": 1}}, "choices"), ({"name": None}, "name"), ({"train": "perhaps"}, "train"),
     ({"fields": {"x": "{% if %}"}}, "field 'x'"), ({"splits": {"train": []}}, "splits.train")],
)  # fmt: skip
def test_a_wrong_record_is_named_by_key(source, values, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_task(changed(source, **values))
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"templates": {"a": "{{ thang }}"}}, "names no field of the data: 'thang'; did you mean 'thing'"),
     ({"templates": {"a": "{{ thing.__class__ }}"}}, "forbidden in a template"),
     ({"fields": {"answer": "{{ nope }}"}}, "field 'answer' template .*'nope'"),
     ({"completion": "anwser"}, "no field 'anwser'; did you mean 'answer'"),
     ({"choices": "thing"}, "give no list but 'thing0'")],
)  # fmt: skip
def test_what_only_the_rows_show_is_an_error_too(source, values, message):
    with pytest.raises(UsageError, match=message):
        task = load_task(changed(source, **values))
        render_task(task, task.rows("train"))


def test_missing_splits_sources_and_names_are_errors(source, task, tmp_path):
    with pytest.raises(UsageError, match="colours: no split 'validation'; it has train, test"):
        task.rows("validation")
    with pytest.raises(UsageError, match="its source has no 'tran'; did you mean 'train'"):
        load_task(changed(source, splits={"train": "tran"})).rows("train")
    with pytest.raises(UsageError, match="no row of split 'train' has"):
        load_task(changed(source, where={"label": 9})).rows("train")
    with pytest.raises(UsageError, match="has no column 'lable'; did you mean 'label'"):
        load_task(changed(source, where={"lable": 1})).rows("train")
    with pytest.raises(UsageError, match="no task 'glue/rtr'; did you mean 'glue/rte'"):
        load_task("glue/rtr")
    with pytest.raises(UsageError, match="cannot be read"):
        load_task(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(Error, match=r"broken.yaml: broken YAML"):
        load_task(tmp_path / "broken.yaml")
    with pytest.raises(UsageError, match=r"generated:suport: nothing of this name .*did you mean 'support'"):
        load_task(changed("generated:suport"))
    unrooted = Task("x", "{root}/x.jsonl", (Template("a", "b", "c"),))
    with pytest.raises(UsageError, match=r"x: its data lie in {root}/x.jsonl; say where with `root` or JAXFT_DATA"):
        unrooted.rows("train")


def test_a_task_comes_from_yaml_a_mapping_python_or_a_name(source, tmp_path):
    import yaml

    (tmp_path / "t.yaml").write_text(yaml.safe_dump(changed(source), sort_keys=False))
    task = load_task(tmp_path / "t.yaml")
    assert task == load_task(changed(source)) == load_task(str(tmp_path / "t.yaml")) == load_task(task)
    made = Task("q", source, (Template("a", "{{ thing }}"),), completion="why")
    assert render_task(made, made.rows("test"))[0].references == ("because 0.",)
    assert load_task("support").name == "support"


def test_a_family_gives_a_task_per_value(tmp_path):
    rows = [{"kind": f"k{i % 3}", "x": str(i), "y": "z"} for i in range(9)]
    written(tmp_path / "train.jsonl", rows)
    written(tmp_path / "test.jsonl", rows[:1])
    written(tmp_path / "kinds.jsonl", [{"kind": "k0", "definition": "Do k0.", "licence": "MIT"}])
    record = {"name": "f/{kind}", "each": "kind", "also": "{root}/kinds.jsonl", "completion": "y",
              "licence": "{{ about.licence }}", "templates": {"a": "{{ about.definition }} {{ x }}"},
              "source": {"train": "{root}/train.jsonl", "test": "{root}/test.jsonl"}}  # fmt: skip
    tasks = {task.name: task for task in load_tasks([record], root=tmp_path)}
    assert list(tasks) == ["f/k0", "f/k1", "f/k2"] and tasks["f/k0"].licence == "MIT"
    assert list(tasks["f/k0"].splits) == ["train", "test"] and list(tasks["f/k1"].splits) == ["train"]
    rows = tasks["f/k0"].rows("train")
    assert [row["x"] for row in rows] == ["0", "3", "6"] and rows.id(1) == "train:3"
    assert render_task(tasks["f/k0"], rows)[1].prompt == "Do k0. 3"
    with pytest.raises(UsageError, match="is a family of 3 tasks; name one, such as f/k0"):
        load_task(record, root=tmp_path)
    with pytest.raises(UsageError, match="has no column 'kinds'; did you mean 'kind'"):
        load_tasks([record | {"each": "kinds"}], root=tmp_path)
    laid = record | {
        "name": "g/{each}",
        "each": {"one": {"version": 2}, "two": {"where": {"kind": "k2"}}},
        "also": None,
    }
    one, two = load_tasks([laid], root=tmp_path)
    assert (one.name, one.version, two.name, len(two.rows("train"))) == ("g/one", "2", "g/two", 3)


def test_shots_that_do_not_fit_are_left_out_from_the_end_and_counted(task):
    tokenizer = tiny_tokenizer("bos")
    sizes = {}
    for bound in (400, 90, 60, 34):
        examples, report = encode_task(task, "train", tokenizer, max_length=400, max_prompt=bound, shots=3)
        shots = [tokenizer.decode(e.prompt).count("\n\n") for e in examples]
        assert max(len(e.prompt) for e in examples) <= bound and report.truncated_prompts == 0
        assert report.dropped_shots == 3 * 40 - sum(shots)
        sizes[bound] = [tokenizer.decode(e.prompt) for e in examples]
    assert "worked examples" not in str(encode_task(task, "train", tokenizer, max_length=400, shots=3)[1])
    assert report.dropped_shots > 60 and f"left out {report.dropped_shots} worked examples that did" in str(report)
    for long, short in zip(sizes[400], sizes[90], strict=True):
        *first, asked = short.split("\n\n")
        assert long.split("\n\n")[: len(first)] == first and long.endswith(asked.removeprefix("<s>"))


def test_prompt_and_answer_are_kept_apart_without_a_chat_template(task):
    tokenizer = tiny_tokenizer("bos", eos="</s>")
    texts = [
        tokenizer.decode([*e.prompt, *e.completion]) for e in encode_task(task, "train", tokenizer, max_length=99)[0]
    ]
    colon = next(text for text in texts if ":" in text)
    assert colon.split(":")[1] in (" red</s>", " blue</s>")
    question = next(text for text in texts if "?" in text)
    assert question.split("?")[1] in ("\nred</s>", "\nblue</s>")
    chat = tiny_tokenizer(eos="<|im_end|>", chat_template=CHATML)
    examples, _ = encode_task(task, "train", chat, max_length=199, chat=True)
    assert {chat.decode(e.completion) for e in examples} <= {
        f"{a}{dot}<|im_end|>" for a in ("red", "blue") for dot in ("", ".")
    }
    both, _ = encode_task(task, "train", tiny_tokenizer("eos"), max_length=99, encoder_decoder=True)
    assert {tiny_tokenizer("eos").decode(e.completion) for e in both} <= {
        "red</s>",
        "blue</s>",
        "red.</s>",
        "blue.</s>",
    }
    assert all(e.task == "colours" and e.template and e.choices == ("red", "blue") for e in both)


# What is shipped.

GOLDEN_RTE = [("conclude", ("no",), ("yes", "no")), ("learnt", ("yes",), ("yes", "no"))]
GOLDEN_RTE_PROMPT = """Read the passage and decide whether the conclusion can be drawn from it.

Passage: No Weapons of Mass Destruction Found in Iraq Yet.
Conclusion: Weapons of Mass Destruction Found in Iraq.
Can it be drawn (yes/no)?"""
GOLDEN_SUPERNI = Rendered(
    "Definition: In this task, you are given a country name and you need to return the capital city of the given "
    "country\n\nExample\nInput: United States\nOutput: Washington\n\n"
    "Now complete the following.\nInput: Bulgaria\nOutput:",
    ("Sofia",),
    None,
    task="superni/task1146_country_capital",
    template="one_example",
)


def test_every_shipped_record_is_well_formed_and_has_its_phrasings():
    records = _library()
    assert len(records) >= 25
    for path, record in records.items():
        licensed = record.get("licence") or all(laid["licence"] for laid in record["each"].values())
        assert licensed and record["metrics"] and record["version"], path
        templates = record["templates"]
        if record["name"].startswith(("t0/", "probes/")):
            continue  # rows are phrasings already; what is asked before and after is asked in one way
        held_out = [one for one in templates.values() if isinstance(one, dict) and one.get("held_out")]
        assert len(templates) >= 8 and len(held_out) == 2, path
        assert len({str(one) for one in templates.values()}) == len(templates), path


def test_names_without_data_are_patterns(monkeypatch):
    monkeypatch.delenv("JAXFT_DATA", raising=False)
    names = task_names()
    assert {"glue/rte", "multi30k/en-de", "mmlu/{subject}", "superni/{task}", "support"} <= set(names)
    with pytest.raises(UsageError, match="say where they lie with `root` or JAXFT_DATA"):
        load_task("mmlu/anatomy")


@needs_data
def test_the_first_rows_of_every_shipped_task_render():
    counts = collections.Counter()
    for name in task_names(DATA):
        family = name.split("/")[0]
        counts[family] += 1
        # Of the large families the tasks differ in their rows alone.
        if family in ("t0", "superni", "mmlu", "bbh", "bigbench", "flan_cot") and counts[family] > 2:
            continue
        task = load_task(name, DATA)
        for split in task.splits:
            rows = task.rows(split, limit=20)
            for held_out in {template.held_out for template in task.templates}:
                render_task(task, rows, held_out=held_out)
            render_task(task, rows, rationale=True)
        assert task.splits, name
    assert counts["superni"] >= 60 and counts["t0"] >= 250 and counts["mmlu"] >= 40 and counts["bbh"] >= 15


@needs_data
def test_globs_name_several_tasks():
    assert [task.name for task in load_tasks(["glue/*", "support"], DATA)][-1] == "support"
    assert len(load_tasks(["superni/task1*", "flan_cot/*"], DATA)) > 20
    with pytest.raises(UsageError, match="'glue/rte' is asked for twice"):
        load_tasks(["glue/*", "glue/rte"], DATA)


@needs_data
def test_golden_rte():
    task = load_task("glue/rte", DATA)
    rendered = render_task(task, task.rows("train", limit=2), seed=0)
    assert [(r.template, r.references, r.choices) for r in rendered] == GOLDEN_RTE
    assert rendered[0].prompt == GOLDEN_RTE_PROMPT


@needs_data
def test_golden_superni():
    task = load_task("superni/task1146_country_capital", DATA)
    assert render_task(task, task.rows("train", limit=1), seed=0)[0] == GOLDEN_SUPERNI


@needs_data
def test_rows_for_evaluation_are_refused_in_training_and_mmlu_has_its_shots():
    for name in ("bbh/navigate", "mmlu/anatomy", "bigbench/implicatures", "instruct/user_oriented"):
        task = load_task(name, DATA)
        with pytest.raises(UsageError, match="for evaluation only"):
            task.rows("train")
    task = load_task("mmlu/anatomy", DATA)
    questions = {row["question"] for row in task.rows("shots")}
    prompt = render_task(task, task.rows("test", limit=1), shots=4)[0].prompt
    assert sum(question in prompt for question in questions) == 4


def test_the_library_is_in_the_package():
    from importlib.resources import files

    assert files("jaxft.data.tasks").joinpath("library/glue/rte.yaml").is_file()
    assert isinstance(Rows([]), Rows)
