"""What the model has to write in a conversation is found whatever the chat template does around it."""

import pytest
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.chat import chat_prompt, chat_texts
from jaxft.errors import UsageError

MARKED = CHATML.replace(
    "{{ '<|im_start|>assistant\\n' }}", "{% generation %}{% endgeneration %}{{ '<|im_start|>assistant\\n' }}"
)
# As Llama 3 does: start token, trimmed content.
TRIMMED = "<s>" + CHATML.replace("message['content']", "message['content'] | trim")
# As some reasoning models do: an empty block of thoughts in the generation prompt alone.
THINKING = CHATML.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think></think>' }}")
# No end-of-turn token; the text is rewritten; the system's turn is refused.
BARE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SHOUTING = "{% for m in messages %}{{ m.content | upper }}{% endfor %}{% if add_generation_prompt %}?{% endif %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
IGNORING = CHATML.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}")

HEAD = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def texts(template, completion="Hello.", system=None, eos="<|im_end|>"):
    return chat_texts(tiny_tokenizer(eos=eos, chat_template=template), "Hi", completion, system)


def test_the_completion_ends_with_the_end_of_turn_token_and_nothing_after_it():
    assert texts(CHATML) == (HEAD, "Hello.<|im_end|>")
    assert texts(TRIMMED, " Hello. ") == ("<s>" + HEAD, "Hello.<|im_end|>")
    assert texts(THINKING) == (HEAD + "<think></think>", "Hello.<|im_end|>")


def test_generation_markers_change_nothing():
    assert texts(MARKED) == texts(CHATML)


def test_the_system_turn_comes_first():
    before, after = texts(CHATML, system="Be brief.")
    assert before == "<|im_start|>system\nBe brief.<|im_end|>\n" + HEAD and after == "Hello.<|im_end|>"


def test_an_end_token_quoted_in_the_completion_does_not_cut_it():
    assert texts(CHATML, "Say <|im_end|> twice.")[1] == "Say <|im_end|> twice.<|im_end|>"


def test_the_first_of_several_end_tokens_counts():
    tokenizer = tiny_tokenizer(eos="</s>", chat_template=CHATML)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert chat_texts(tokenizer, "Hi", "Hello.", eos_token_ids=ends)[1] == "Hello.<|im_end|>"


def test_without_an_end_token_trailing_space_goes():
    assert texts(BARE, eos="</s>") == ("user: Hi\nassistant: ", "Hello.")


def test_the_prompt_alone_is_the_prompt_of_training():
    assert chat_prompt(tiny_tokenizer(eos="<|im_end|>", chat_template=CHATML), "Hi") == texts(CHATML)[0]


def test_templates_that_cannot_be_used_are_refused():
    with pytest.raises(UsageError, match="the tokenizer has no chat template"):
        texts(None)
    with pytest.raises(UsageError, match="rewrites the assistant's turn"):
        texts(SHOUTING)
    with pytest.raises(UsageError, match=r"refuses the conversation .*no users"):
        texts("{{ raise_exception('no users') }}", system="Be brief.")


@pytest.mark.parametrize("template", [REFUSING, IGNORING])
def test_a_system_text_that_the_template_has_no_place_for_goes_before_the_users(template):
    expected = HEAD.replace("Hi", "Be brief.\n\nHi")
    assert texts(template, system="Be brief.") == (expected, "Hello.<|im_end|>")
    assert texts(template) == texts(CHATML)
