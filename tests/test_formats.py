"""Rows as people have them become prompts and completions; what is wrong with them is named by file and line."""

import gzip
import json
import os
from pathlib import Path

import pytest
from tiny_tokenizer import tiny_tokenizer

from jaxft.data import streaming
from jaxft.data.files import read_file
from jaxft.data.formats import canonical, conversation
from jaxft.data.rows import Rows, Unusable
from jaxft.data.sources import read
from jaxft.data.tasks import encode_task, flan_templates, from_flan, from_promptsource, load_task, render_task
from jaxft.data.templates import BadRow
from jaxft.errors import Error, UsageError

DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no data: set JAXFT_DATA")

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}


def rows(*made):
    return Rows(list(made), "train", places=[f"data.jsonl:{i}" for i in range(1, len(made) + 1)])


def task(tmp_path, *made, **values):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return load_task({"name": "mine", "source": str(path), "format": "auto"} | values)


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2", "3"),
     ({"instruction": "Add.", "input": "", "output": "3"}, "Add.", "3"),
     ({"instruction": "Add.", "output": "3"}, "Add.", "3"),
     ({"instruction": "Add.", "context": "1 2", "response": "3", "category": "qa"}, "Add.\n\n1 2", "3"),
     ({"prompt": "1+2", "completion": "3"}, "1+2", "3"), ({"input": "1+2", "target": "3"}, "1+2", "3"),
     ({"inputs": "1+2", "targets": "3"}, "1+2", "3"), ({"question": "1+2", "answer": "3"}, "1+2", "3"),
     ({"prompt": "1+2", "response": "3"}, "1+2", "3"), ({"input": "1", "output": ["2", "3"]}, "1", ["2", "3"]),
     ({"messages": [USER, ANSWER]}, "Hi", "Hello."), ({"conversations": [HUMAN, GPT]}, "Hi", "Hello.")],
)  # fmt: skip
def test_the_format_is_told_by_the_fields(row, prompt, completion):
    made = canonical(rows(row, row))[1]
    assert (made["prompt"], made["completion"]) == (prompt, completion)
    assert all(made[name] == value for name, value in row.items() if name not in ("prompt", "completion"))


def test_a_named_format_wins_over_other_fields(tmp_path):
    row = {"messages": [USER, ANSWER], "prompt": "no", "completion": "no"}
    assert canonical(rows(row))[0]["prompt"] == "Hi" and canonical(rows(row), "pairs")[0]["prompt"] == "no"
    with pytest.raises(UsageError, match="unknown format 'sharegp'; did you mean 'sharegpt'"):
        canonical(rows(row), "sharegp")
    with pytest.raises(UsageError, match=r"data.jsonl:1: its fields 'messages', .* are those of no format 'alpaca'"):
        canonical(rows(row), "alpaca")
    with pytest.raises(UsageError, match=r"those of no known format \(superni, messages"):
        canonical(rows({"text": "x"}))


def test_two_schemas_in_one_file_are_named_by_both_lines(tmp_path):
    mixed = task(tmp_path, {"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b"}, {"messages": []})
    with pytest.raises(UsageError, match=r"mixed schemas in one file: data.jsonl:1 has 'instruction', 'output', "
                                         r"data.jsonl:3 has 'messages'"):  # fmt: skip
        mixed.rows("train")
    pairs = task(tmp_path, {"input": "a", "target": "b"}, {"question": "a", "answer": "b"})
    with pytest.raises(UsageError, match=r"data.jsonl:1 has 'input', 'target', data.jsonl:2 has 'question', 'answer'"):
        pairs.rows("train")


def test_a_conversation_keeps_its_turns():
    made = conversation([SYSTEM, USER, ANSWER, USER | {"content": "Bye"}, ANSWER | {"content": "Goodbye."}])
    assert made == {"system": "Be brief.", "turns": [("user", "Hi"), ("assistant", "Hello.")], "prompt": "Bye",
                    "completion": "Goodbye."}  # fmt: skip
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    assert conversation([USER | {"content": parts}, ANSWER])["prompt"] == "Hi"
    assert conversation([SYSTEM | {"role": "developer"}, HUMAN, GPT | {"from": "model"}])["system"] == "Be brief."


@pytest.mark.parametrize(
    ("messages", "message"),
    [([USER, {"role": "assistent", "content": "x"}], "turn 2 has an unknown role: 'assistent'; did you mean 'assi"),
     ([USER, {"role": "tool", "content": "x"}], "turn 2 has an unknown role: 'tool'"),
     ([{"content": "x"}, ANSWER], "turn 1 has an unknown role: None"),
     ([GPT, HUMAN, GPT], "turn 1 is out of order: assistant where user is expected"),
     ([SYSTEM, USER, USER, ANSWER], "turn 3 is out of order: user where assistant is expected"),
     ([USER, ANSWER, SYSTEM], "turn 3 is out of order: system where user"),
     ([USER, ANSWER, USER], "does not end with an answer of the assistant"), ([SYSTEM], "does not end with"),
     ([], "the conversation is empty"), (None, "the conversation is empty"), ("Hi", "the conversation is empty"),
     ([USER, None], "turn 2 is no message but NoneType"), ([USER, {**ANSWER, "content": None}], r"turn 2 \(assi"),
     ([USER | {"content": " "}, ANSWER], r"turn 1 \(user\) has no text"),
     ([USER | {"content": [{"type": "image_url"}]}, ANSWER], r"turn 1 \(user\) has no text")],
)  # fmt: skip
def test_bad_conversations_are_named_by_line_or_counted(tmp_path, messages, message):
    with pytest.raises(BadRow, match=message):
        conversation(messages)
    bad = task(tmp_path, {"messages": [USER, ANSWER]}, {"messages": messages})
    with pytest.raises(UsageError, match=rf"mine: data\.jsonl:2: .*{message}.* \(1 of 2 rows are bad\)"):
        bad.rows("train")
    examples, report = encode_task(bad, "train", tiny_tokenizer(), max_length=99, on_bad="skip")
    assert len(examples) == report.bad_rows == 1 and report.first_bad.startswith("data.jsonl:2, ")
    assert isinstance(bad.rows("train", on_bad="skip")[1], Unusable)


@pytest.mark.parametrize("row", [{"instruction": None, "output": "b"}, {"instruction": "a", "output": ""}])
def test_null_and_empty_fields_are_named_by_line_or_counted(tmp_path, row):
    bad = task(tmp_path, {"instruction": "a", "output": "b"}, row)
    with pytest.raises(UsageError, match=r"1 of 2 rows are bad \(first: data.jsonl:2, the "):
        encode_task(bad, "train", tiny_tokenizer(), max_length=99)
    assert encode_task(bad, "train", tiny_tokenizer(), max_length=99, on_bad="skip")[1].bad_rows == 1


def test_broken_files_are_named_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    with pytest.raises(Error, match=r"a\.jsonl:2: broken JSON"):
        load_task({"name": "x", "source": str(tmp_path / "a.jsonl"), "format": "auto"}).rows("train")
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "a", "completion": "\xe4"}\n')
    with pytest.raises(Error, match=r"b\.jsonl:1: not UTF-8"):
        load_task({"name": "x", "source": str(tmp_path / "b.jsonl"), "format": "auto"}).rows("train")


def test_own_templates_go_with_a_format(tmp_path):
    record = {"templates": {"shout": "{{ instruction | upper }}!"}}
    made = task(tmp_path, {"instruction": "add", "input": "", "output": "3"}, **record)
    assert render_task(made, made.rows("train"))[0][:2] == ("ADD!", ("3",))


SUPERNI = {
    "Definition": ["Name the capital."],
    "Categories": ["QA"],
    "Instance License": ["MIT"],
    "Positive Examples": [{"input": "Italy", "output": "Rome", "explanation": "So it is."}],
    "Negative Examples": [],
    "Instances": [
        {"id": "t-1", "input": "France", "output": ["Paris"]},
        {"id": "t-2", "input": "Peru", "output": ["Lima"]},
    ],
}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_task_file_of_super_natural_instructions_gives_its_instances(tmp_path, indent):
    path = tmp_path / "task1.json"
    path.write_text(json.dumps(SUPERNI, indent=indent))
    made = load_task({"name": "capitals", "source": str(path), "format": "auto"})
    instances = made.rows("train")
    assert [instances.id(i) for i in range(2)] == ["t-1", "t-2"] and instances.place(1) == "task1.json:1 instance 2"
    rendered = render_task(made, instances)
    assert rendered[0][:2] == ("Name the capital.\n\nInput: France\nOutput:", ("Paris",))
    about = instances[0]["about"]
    assert about["positive_examples"][0]["output"] == "Rome" and about["instance_license"] == ["MIT"]
    from jaxft.data.tasks.loading import _library

    library = next(record for record in _library().values() if record["name"] == "superni/{task}")
    layouts = made.__class__(**{**made.__dict__, "templates": (), "fields": library["fields"]})
    assert layouts.rows("train")[0]["good"][0]["input"] == "Italy"


def test_a_broken_object_over_several_lines_is_named_by_its_own_line(tmp_path):
    (tmp_path / "t.json").write_text('{\n "Definition": ["x"],\n "Instances": [}\n')
    with pytest.raises(Error, match=r"t\.json:3: broken JSON"):
        read_file(tmp_path / "t.json")
    (tmp_path / "l.json").write_text('{"a": 1}\n{"a": 2}\n{"a": \n')
    with pytest.raises(Error, match=r"l\.json:3: broken JSON"):
        read_file(tmp_path / "l.json")
    (tmp_path / "ok.json").write_text('{"a": 1}\n{"a": 2}\n')
    assert len(read(tmp_path / "ok.json")) == 2


ROW = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 1, "choice1": "x", "choice2": "y"}


def rendered(template, row=ROW, **values):
    made = load_task({"name": "t", "source": "none", "templates": [template], **values})
    from jaxft.data.tasks.rendering import Renderer

    return Renderer.of(made, 0, 0, False, False, None).example(Rows([row]), 0).rendered


def test_promptsource_templates():
    jinja = (
        '{{premise}} Is "{{hypothesis}}" {{"true"}}? {{ answer_choices | join(", ") }} ||| {{ answer_choices[label] }}'
    )
    made = rendered(from_promptsource("p", jinja, "no ||| yes"))
    assert made.prompt == 'It rains. Is "It is wet." true? no, yes' and made.references == ("yes",)
    assert made.choices == ("no", "yes")
    made = rendered(from_promptsource("p", "Which? ||| {{ answer_choices[label] }}", "{{choice1}} ||| {{choice2}}"))
    assert (made.prompt, made.references, made.choices) == ("Which?", ("y",), ("x", "y"))
    guarded = from_promptsource("p", "{% if label == 1 %} Wet? {{premise}} ||| yes {% endif %}")
    assert rendered(guarded)[:2] == ("Wet? It rains.", ("yes",))
    with pytest.raises(BadRow, match="is empty"):
        rendered(guarded, ROW | {"label": 0})
    same = load_task(
        {"name": "t", "source": "none", "templates": {"p": {"promptsource": jinja, "answer_choices": "a ||| b"}}}
    )
    assert same.templates[0] == from_promptsource("p", jinja, "a ||| b")
    with pytest.raises(UsageError, match=r"template 'p' has no '\|\|\|'"):
        from_promptsource("p", "{{ premise }}")
    with pytest.raises(UsageError, match="choice"):
        from_promptsource("p", "{{ ['a', 'b'] | choice }} ||| {{ label }}")


def test_flan_templates():
    pattern = {"input": "{premise}\nDoes it follow that {hypothesis}\n\n{options_}", "target": "{answer}"}
    values = {"choices": ["no", "yes"], "completion": "{{ ['no', 'yes'][label] }}"}
    made = rendered(from_flan("f", **pattern), ROW | {"answer": "yes"}, **values)
    assert made.prompt == "It rains.\nDoes it follow that It is wet.\n\nOPTIONS:\n- no\n- yes"
    assert made.references == ("yes",) and flan_templates([pattern, pattern])[1].id == "flan_1"
    braces = from_flan("f", "{{{premise}}} {{% if %}}", "{answer}")
    assert rendered(braces, ROW | {"answer": "a"}).prompt == "{It rains.} {% if %}"
    for wrong in ("{premise!r}", "{0}", "{premise", "{a.b}"):
        with pytest.raises(UsageError, match="template 'f'"):
            from_flan("f", wrong, "{answer}")


@needs_data
def test_the_public_templates_are_converted():
    flan = [row for name in ("flan", "flan_v2") for row in read(DATA / "templates" / f"{name}_templates.jsonl.gz")][::4]
    made = refused = 0
    for row in flan:
        try:
            made += len(flan_templates(row["templates"]))
        except UsageError:
            refused += 1
    assert made > 250 and refused <= 2
    pool = list(read(DATA / "templates" / "promptsource.jsonl.gz"))[::20]
    converted = 0
    for row in pool:
        try:
            from_promptsource(row["name"], row["jinja"], row["answer_choices"])
            converted += 1
        except UsageError as error:
            assert any(word in str(error) for word in ("choice", "random", "most_frequent", "held_out", "No filter"))
    assert converted / len(pool) > 0.8


def test_a_stream_is_written_once_and_whole(tmp_path, monkeypatch):
    calls = []

    def source(name, split):
        calls.append((name, split))
        yield {"prompt": "a", "completion": "é"}
        if len(calls) == 1:
            raise ConnectionError("gone")
        yield {"prompt": "b", "completion": "d"}

    monkeypatch.setattr(streaming, "_rows", source)
    with pytest.raises(Error, match=r"o/n: the stream broke off after 1 rows \(gone\)"):
        streaming.streamed("o/n", "train", tmp_path)
    assert not list(tmp_path.iterdir())
    path = streaming.streamed("o/n", "train", tmp_path)
    assert (
        path == streaming.streamed("o/n", "train", tmp_path) and len(calls) == 2 and list(tmp_path.iterdir()) == [path]
    )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        assert [json.loads(line)["completion"] for line in file] == ["é", "d"]
    monkeypatch.setenv("JAXFT_CACHE", str(tmp_path / "cache"))
    made = load_task(
        {"name": "far", "source": "o/n", "format": "auto", "streaming": True, "splits": {"train": "train"}}
    )
    assert [row["prompt"] for row in made.rows("train")] == ["a", "b"]
    assert made.rows("train").place(1).endswith(".jsonl.gz:2") and len(calls) == 3
