"""Templates say exactly what is written, run in a sandbox, and name what they miss."""

import pytest

from jaxft.data.templates import AbsentField, BadRow, Format, render, render_prompt
from jaxft.errors import UsageError

ROW = {
    "dialogue": "A: Hi\nB: Ho",
    "summary": "They greet.",
    "n": 3,
    "blank": None,
    "list": ["x", "y"],
    "deep": {"k": 1},
}


def prompt(template, row=ROW):
    return render_prompt(Format(template, "summary"), row)[0]


def completions(template, row=ROW):
    return render(Format("dialogue", template), row).references


def test_text_is_exactly_what_is_written():
    assert prompt(" {{ dialogue }}\n\n") == " A: Hi\nB: Ho\n\n"
    assert prompt("{{ n }} & <b> {{ deep.k }}") == "3 & <b> 1"
    assert prompt("dialogue") == ROW["dialogue"] and prompt("n") == "3"
    assert prompt("{% for x in list %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}") == "x, y"


def test_system_is_a_template_too_and_needs_chat():
    format = Format("dialogue", "summary", chat=True, system="Speak {{ n }} words.")
    assert render(format, ROW).system == "Speak 3 words."
    assert render(Format("dialogue", "summary"), ROW).system is None
    with pytest.raises(UsageError, match="needs `chat: true`"):
        Format("dialogue", "summary", system="Be brief.")


def test_a_list_gives_several_references():
    assert completions("list") == completions("{{ list }}") == ("x", "y")
    assert completions("TL;DR {{ list }} ({{ n }})") == ("TL;DR x (3)", "TL;DR y (3)")
    assert completions("{{ list[1] }}") == ("y",) and completions("{{ list | join('+') }}") == ("x+y",)
    with pytest.raises(BadRow, match="differ in length"):
        completions("{{ list }} {{ other }}", ROW | {"other": ["z"]})


def test_an_absent_field_is_named_with_the_nearest():
    with pytest.raises(
        AbsentField, match=r"prompt template .* names no field of the data: 'dialog'; did you mean 'dial"
    ):
        prompt("Read: {{ dialog }}")
    with pytest.raises(AbsentField, match="completion: no field 'summry'; did you mean 'summary'"):
        completions("summry")
    with pytest.raises(UsageError, match="has no attribute 'z'"):
        prompt("{{ deep.z }}")
    assert prompt("{% if dialog is defined %}{{ dialog }}{% else %}none{% endif %}") == "none"


FORBIDDEN = [
    "{{ dialogue.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ deep.update({'k': 2}) }}",
    "{{ list.append('z') }}",
    "{{ range(10**9) | list | length }}",
    "{{ render.__globals__ }}",
    "{% include 'secret' %}",
    "{{ lipsum() }}",
    "{{ list | random }}",
]


@pytest.mark.parametrize("template", FORBIDDEN)
def test_the_sandbox_refuses(template):
    with pytest.raises(UsageError):
        prompt(template)
    assert ROW["deep"] == {"k": 1} and ROW["list"] == ["x", "y"]


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ dialogue ", "line 1"), ("{% if n %}", "line 1"), ("{{ 1 / 0 }}", "division by zero"),
     ("{{ n + 'a' }}", "unsupported operand"), ("{{ dialogue | nofilter }}", "nofilter"),
     ("{{ list }}", "writes a list; pick an element"), ("{{ deep }}", "writes a list"), ("list", "is not text")],
)  # fmt: skip
def test_a_template_that_cannot_work_is_a_usage_error(template, message):
    with pytest.raises(UsageError, match=message) as caught:
        prompt(template)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["blank", "{{ blank }}", "a {{ blank }} b"])
def test_null_is_a_bad_row_that_names_the_field(template):
    with pytest.raises(BadRow, match="the field 'blank' is null"):
        prompt(template)
    with pytest.raises(BadRow, match="the field 'blank' is null"):
        completions(template)


@pytest.mark.parametrize("value", ["", "  \n", []])
def test_an_empty_completion_is_a_bad_row(value):
    with pytest.raises(BadRow, match="the completion is empty"):
        completions("summary", ROW | {"summary": value})


def test_an_empty_prompt_or_a_null_among_references_is_a_bad_row():
    with pytest.raises(BadRow, match="the prompt is empty"):
        prompt("dialogue", {"dialogue": " "})
    with pytest.raises(BadRow):
        completions("list", ROW | {"list": ["x", None]})
    with pytest.raises(BadRow):
        completions("list", ROW | {"list": ["x", ""]})
