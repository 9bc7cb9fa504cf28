"""Of a conversation every answer of the assistant is learnt, whatever the chat template does around it."""

import itertools

import numpy as np
import pytest
from tiny_tokenizer import CHATML, tiny_tokenizer

from jaxft.data.batches import collate
from jaxft.data.chat import chat_pieces, chat_texts, plain_pieces, plain_prompt
from jaxft.data.dialogues.support import CASES, support
from jaxft.data.encoding import Encoded
from jaxft.data.tasks import encode_task, load_task
from jaxft.data.templates import Rendered
from jaxft.data.tokens import encode_texts
from jaxft.errors import UsageError

TURNS = (("user", "Hi"), ("assistant", "Hello."), ("user", "2+2?"), ("assistant", "4"))
TALK = Rendered("And 3+3?", ("6",), "Be brief.", TURNS)

# SmolLM2-Instruct's own: it puts in a system's turn where there is none.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# As Gemma does: no system's turn, turns that have to alternate, the assistant under another name, trimmed text.
NO_SYSTEM = (
    "<s>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + "
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\\n' }}{% endif %}"
)
# As reasoning models do: an empty block of thoughts where the model begins, which finished turns do not have.
THINKING = CHATML.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think></think>' }}")
# Earlier answers lose what was said: what was learnt would never be seen again.
FORGETTING = CHATML.replace(
    "message['content']", "(message['content'] if loop.last or message.role == 'user' else '...')"
)


def tokenizer(template):
    return tiny_tokenizer(eos="<|im_end|>", chat_template=template)


def encoded(rendered, template, **options):
    return encode_texts([rendered], tokenizer(template), chat=True, every_turn=True, **options)[0]


def learnt(tokens, template):
    """The runs of counted tokens, decoded."""
    pairs = zip(tokens.completion, tokens.counted, strict=True)
    return [tokenizer(template).decode([token for token, _ in run])
            for counted, run in itertools.groupby(pairs, key=lambda pair: pair[1]) if counted]  # fmt: skip


def test_smollm2_by_hand():
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    rest = [("Hello.<|im_end|>", True), ("\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n", False),
            ("4<|im_end|>", True), ("\n<|im_start|>user\nAnd 3+3?<|im_end|>\n<|im_start|>assistant\n", False),
            ("6<|im_end|>", True)]  # fmt: skip
    ids = tokenizer(SMOLLM2)
    tokens = encoded(TALK, SMOLLM2)
    pieces = [(ids(text, add_special_tokens=False)["input_ids"], is_learnt) for text, is_learnt in rest]
    assert tokens.prompt == ids(head, add_special_tokens=False)["input_ids"]
    assert tokens.completion == [token for piece, _ in pieces for token in piece]
    assert tokens.counted == [is_learnt for piece, is_learnt in pieces for _ in piece]


def test_the_default_system_turn_of_the_template_stays():
    tokens = encoded(TALK._replace(system=None), SMOLLM2)
    assert (
        tokenizer(SMOLLM2).decode(tokens.prompt).startswith("<|im_start|>system\nYou are a helpful AI assistant named")
    )
    assert learnt(tokens, SMOLLM2) == ["Hello.<|im_end|>", "4<|im_end|>", "6<|im_end|>"]


@pytest.mark.parametrize("template", [CHATML, SMOLLM2, NO_SYSTEM, THINKING])
def test_every_answer_and_nothing_else_is_learnt_and_the_text_is_the_templates(template):
    tokens = encoded(TALK, template)
    assert learnt(tokens, template) == ["Hello.<|im_end|>", "4<|im_end|>", "6<|im_end|>"]
    before, answer = chat_texts(tokenizer(template), TALK.prompt, "6", TALK.system, (), TALK.turns)
    assert tokenizer(template).decode([*tokens.prompt, *tokens.completion]) == before + answer
    # What is asked of the model is, at each turn, what it is trained to go on from.
    assert tokens.prompt == tokenizer(template)(chat_prefix(template), add_special_tokens=False)["input_ids"]


def chat_prefix(template):
    before, _ = chat_texts(tokenizer(template), "Hi", "Hello.", "Be brief.")
    return before.removesuffix("<think></think>")


def test_a_template_without_a_system_role_has_the_text_in_the_first_turn():
    text = tokenizer(NO_SYSTEM).decode(encoded(TALK, NO_SYSTEM).prompt)
    assert text == "<s><|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>model\n"
    without = tokenizer(NO_SYSTEM).decode(encoded(TALK._replace(system=None), NO_SYSTEM).prompt)
    assert without == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>model\n"


def test_a_template_that_rewrites_earlier_turns_is_refused_and_its_last_answer_can_be_learnt():
    with pytest.raises(UsageError, match="rewrites earlier turns; learn the last answer alone"):
        chat_pieces(tokenizer(FORGETTING), TALK)
    last = encode_texts([TALK], tokenizer(FORGETTING), chat=True)[0]
    assert tokenizer(FORGETTING).decode(last.completion) == "6<|im_end|>" and last.counted is None


def test_the_last_turn_alone_has_all_before_it_as_its_prompt():
    tokens = encode_texts([TALK], tokenizer(CHATML), chat=True)[0]
    whole = tokenizer(CHATML).decode(tokens.prompt)
    assert whole.endswith("<|im_start|>user\nAnd 3+3?<|im_end|>\n<|im_start|>assistant\n") and "Hello." in whole


def test_without_a_chat_template_the_turns_are_named():
    text = "Be brief.\n\nUser: Hi\nAssistant: Hello.\nUser: 2+2?\nAssistant: 4\nUser: And 3+3?\nAssistant:"
    assert plain_prompt(TALK.prompt, TALK.system, TALK.turns) == text
    assert "".join(piece for piece, _ in plain_pieces(TALK)) == text + " 6"
    assert [piece for piece, is_learnt in plain_pieces(TALK) if is_learnt] == [" Hello.", " 4", " 6"]
    ids = tiny_tokenizer("bos")
    tokens = encode_texts([TALK], ids, every_turn=True)[0]
    assert ids.decode(tokens.prompt) == "<s>Be brief.\n\nUser: Hi\nAssistant:"
    counted = [token for token, is_learnt in zip(tokens.completion, tokens.counted, strict=True) if is_learnt]
    assert ids.decode(counted) == " Hello.</s> 4</s> 6</s>"  # each answer ends: generation has to


def test_an_encoder_decoder_reads_all_and_writes_the_last_answer():
    ids = tiny_tokenizer("eos")
    tokens = encode_texts([TALK], ids, encoder_decoder=True, every_turn=True)[0]
    assert ids.decode(tokens.prompt) == plain_prompt(TALK.prompt, TALK.system, TALK.turns) + "</s>"
    assert ids.decode(tokens.completion) == "6</s>" and tokens.counted is None


def test_a_batch_counts_what_is_counted():
    example = Encoded("a", np.array([1, 11], np.int32), np.array([21, 2, 31, 32, 22, 2], np.int32),
                      counted=np.array([True, True, False, False, True, True]))  # fmt: skip
    batch = collate([example], 1, (9,))
    assert batch["weights"].tolist() == [[0, 1, 1, 0, 0, 1, 1, 0, 0]]
    assert batch["targets"][0][batch["weights"][0] > 0].tolist() == [21, 2, 22, 2]
    unprompted = Encoded("b", np.array([], np.int32), example.completion, counted=example.counted)
    assert collate([unprompted], 1, (6,))["weights"].tolist() == [[1, 0, 0, 1, 1, 0]]


def test_examples_and_conversations_may_stand_in_one_list():
    one = Rendered("Hi", ("Hello.",), None)
    ids = tokenizer(CHATML)
    single, talk, again = encode_texts([one, TALK, one], ids, chat=True, every_turn=True)
    assert single == again == encode_texts([one], ids, chat=True)[0] and talk == encoded(TALK, CHATML)


def test_the_support_set_trains_on_every_turn_and_is_scored_on_the_last():
    task, ids = load_task("support"), tokenizer(CHATML)
    rows = task.rows("train", limit=30)
    examples, report = encode_task(task, "train", ids, max_length=4000, chat=True, limit=30)
    for example, row in zip(examples, rows, strict=True):
        said = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        counted = ids.decode(example.completion[example.counted])
        assert counted == "".join(f"{text}<|im_end|>" for text in said)
        assert row["facts"] in ids.decode(example.prompt)
    assert report.examples == 30
    tests, _ = encode_task(task, "test", ids, max_length=4000, chat=True, limit=5)
    assert all(e.counted is None and ids.decode(e.completion) == e.references[0] + "<|im_end|>" for e in tests)
    cut, report = encode_task(task, "train", ids, max_length=600, chat=True, limit=30, on_long="truncate")
    assert report.truncated_completions and all(len(e.counted) == len(e.completion) and e.counted.any() for e in cut)
    with pytest.raises(UsageError, match="conversations take no worked examples"):
        encode_task(task, "train", ids, max_length=4000, chat=True, limit=30, shots=1)


def test_support_is_deterministic_varied_and_in_order():
    made = support(0, 400)
    assert made[:5] == support(0, 5) and {row["case"] for row in made} == {case.__name__ for case in CASES}
    assert len({row["messages"][0]["content"] for row in made}) > 150
    assert not {str(row["messages"]) for row in made} & {str(row["messages"]) for row in support(1, 400)}
    for row in made:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) >= 4
        texts = [message["content"] for message in row["messages"]]
        assert all(text[0].isupper() or text[0].isdigit() for text in texts)
        assert not any(mark in text for text in [*texts, row["facts"]] for mark in ("{", "}", "  "))
