"""Tasks scored by their own rules: choices as a plain loop ranks them, stops that end texts, scores that add up."""

import dataclasses
import importlib
import json

import jax
import numpy as np
import pytest
import tiny_run
from conftest import apply

from jaxft.data.dialogues import dialogues
from jaxft.data.tasks import encode_task, load_task
from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.choices import BY, chosen, rank
from jaxft.evaluation.metrics import calibration
from jaxft.evaluation.tasks import answer, cut_at, evaluate_examples
from jaxft.generation import generate, planning
from jaxft.pretrained import load

WORDS = ["yes", "no", "perhaps not", "it does"]


@pytest.fixture(scope="module", params=["decoder", "chat", "encoder-decoder"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_run.write_model(folder, scale=4, t5=request.param == "encoder-decoder")
    return load(folder), request.param == "chat"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "test.jsonl"
    made = [
        {"x": row["dialogue"][: 10 + 7 * i], "y": WORDS[i % 4], "s": row["summary"]}
        for i, row in enumerate(dialogues(seed=3, count=9))
    ]
    path.write_text("\n".join(map(json.dumps, made)) + "\n")
    return path


def examples_of(rows, place, name="choosing", **fields):
    model, chat = place
    record = {
        "name": name,
        "source": {"test": str(rows)},
        "templates": {"colon": "{{ x }}\nSo:", "question": "Is it so that {{ x }}?"},
        "completion": "y",
        **fields,
    }
    return encode_task(
        load_task(record),
        "test",
        model.tokenizer,
        max_length=160,
        chat=chat,
        encoder_decoder=hasattr(model.config, "decoder_start_token_id"),
        on_long="truncate",
        eos_token_ids=model.config.eos_token_ids,
    )[0]


def brute_force(model, example):
    """One sequence at a time, by the model's full forward pass."""
    sums = []
    for ids in example.choice_tokens:
        prompt, ids = example.prompt.tolist(), list(ids)
        if hasattr(model.config, "decoder_start_token_id"):
            tokens, first = [model.config.decoder_start_token_id, *ids[:-1]], 0
            batch = arrays(tokens) | {f"encoder_{name}": array for name, array in arrays(prompt).items()}
        else:
            batch, first = arrays([*prompt, *ids[:-1]]), len(prompt) - 1
        logits = np.asarray(apply(model, {"params": model.params}, batch))[0, first : first + len(ids)]
        log_p = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        log_p -= logits.max(1, keepdims=True)
        sums.append(log_p[np.arange(len(ids)), ids].sum())
    return sums


def arrays(tokens, size=192):
    count = np.arange(size, dtype=np.int32)[None]
    padded = np.array([[*tokens, *[0] * (size - len(tokens))]], np.int32)
    return {"tokens": padded, "positions": count, "segments": (count < len(tokens)).astype(np.int32)}


def test_ranking_is_that_of_a_plain_loop(rows, place):
    model, _ = place
    examples = examples_of(rows, place, choices=WORDS)[:4]
    expected = [brute_force(model, example) for example in examples]
    for by in BY:
        found = rank(model, {"params": model.params}, examples, by=by, batch_size=3)
        for one, sums, example in zip(found, expected, examples, strict=True):
            size = {"sum": 1, "token": np.array([len(ids) for ids in example.choice_tokens]),
                    "byte": np.array([len(text) for text in WORDS])}[by]  # fmt: skip
            weights = np.exp(np.array(sums) / size)
            np.testing.assert_allclose(one.probabilities, weights / weights.sum(), atol=1e-4)
            assert one.best == np.argmax(one.probabilities)


def test_choices_are_written_as_the_completion_is(rows, place):
    """The right choice's tokens are the completion's without its end: what is ranked is what training teaches."""
    model, _ = place
    for example in examples_of(rows, place, choices=WORDS):
        right = example.choice_tokens[example.choices.index(example.references[0])]
        end = len(example.completion) - len(right)
        assert example.completion[: len(right)].tolist() == list(right) and end >= 1
        assert model.tokenizer.decode(right).strip() == example.references[0]


def test_scores(rows, place):
    model, _ = place
    variables, settings = {"params": model.params}, {"max_new_tokens": 4, "batch_size": 4}
    choosing = examples_of(rows, place, choices=WORDS, metrics=["macro_f1"])
    telling = examples_of(rows, place, "telling", completion="s", metrics=["rouge1", "bleu"], stop=["e"])
    plain = examples_of(rows, place, "plain", completion="s")
    found = evaluate_examples(model, variables, [*choosing, *telling, *plain], metrics=["rouge1"], settings=settings)
    assert found.n == 27 and [row["id"] for row in found.rows] == [e.id for e in [*choosing, *telling, *plain]]
    assert set(found.tasks["choosing"]) == {"macro_f1", "accuracy", "ece", "brier", "nll"}
    assert set(found.tasks["telling"]) == {"rouge1", "bleu"} and set(found.tasks["plain"]) == {"rouge1"}
    assert set(found.scores) == {"macro_f1", "accuracy", "ece", "brier", "nll", "rouge1", "bleu"}

    right = [row["prediction"] == row["references"][0] for row in found.rows[:9]]
    assert found.scores["accuracy"].value == pytest.approx(np.mean(right)) and found.scores["accuracy"].n == 9
    probabilities = [row["probabilities"] for row in found.rows[:9]]
    labels = [WORDS.index(row["references"][0]) for row in found.rows[:9]]
    assert found.scores["brier"].value == calibration(probabilities, labels)["brier"].value
    # Two tasks of nine examples: the mean over all of them, and the mean of the phrasings by their sizes.
    two = [found.tasks[name]["rouge1"].value for name in ("telling", "plain")]
    assert found.scores["rouge1"].n == 18 and found.scores["rouge1"].value == pytest.approx(np.mean(two))
    phrasings = found.templates["choosing"]
    assert set(phrasings) == {"colon", "question"} and sum(one["accuracy"].n for one in phrasings.values()) == 9
    mean = sum(one["accuracy"].value * one["accuracy"].n for one in phrasings.values()) / 9
    assert mean == pytest.approx(found.scores["accuracy"].value)

    uncut = answer(model, variables, [dataclasses.replace(e, stop=()) for e in telling], settings)
    assert [row["prediction"] for row in found.rows[9:18]] == [cut_at(one.text, ["e"]) for one in uncut]
    assert not any("e" in row["prediction"] for row in found.rows[9:18])


def test_what_cannot_be_pooled_stands_task_by_task(rows, place):
    model, _ = place
    first = examples_of(rows, place, choices=WORDS, metrics=["macro_f1"])
    second = examples_of(rows, place, "other", choices=[*WORDS, "never"], metrics=["macro_f1"])
    found = evaluate_examples(model, {"params": model.params}, [*first, *second])
    assert "macro_f1" not in found.scores and "macro_f1" in found.tasks["choosing"] and found.scores["accuracy"].n == 18


def test_known_answers_are_not_computed_again(rows, place, tmp_path, monkeypatch):
    """Whatever part of the answers is there, the rest comes out the same, to the bit."""
    model, _ = place
    variables, key = {"params": model.params}, jax.random.key(1)
    examples = [*examples_of(rows, place, choices=WORDS), *examples_of(rows, place, "told", completion="s")]
    settings = {"max_new_tokens": 3, "batch_size": 4, "temperature": 1.0}
    with Answers(tmp_path / "whole", {}) as answers:
        expected = answer(model, variables, examples, settings, answers=answers, key=key)
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for kept in (1, 4, 7, len(lines) - 2):
        (tmp_path / "part").write_bytes(b"".join(lines[: kept + 1]))
        with Answers(tmp_path / "part", {}) as answers:
            assert answer(model, variables, examples, settings, answers=answers, key=key) == expected
    monkeypatch.setattr(importlib.import_module("jaxft.generation.generate"), "run", None)
    monkeypatch.setattr(importlib.import_module("jaxft.generation.likelihood"), "score", None)
    with Answers(tmp_path / "whole", {}) as answers:
        assert answer(model, variables, examples, settings, answers=answers, key=key) == expected


def test_every_example_is_reported_once(rows, place):
    model, _ = place
    examples = [*examples_of(rows, place, choices=WORDS), *examples_of(rows, place, "told", completion="s")]
    seen = []
    settings = {"max_new_tokens": 3, "batch_size": 4}
    answers = Answers(None, {})
    counts = []
    for _ in range(2):

        def done(places, tokens):
            seen.extend(places)
            counts.append(tokens)

        answer(model, {"params": model.params}, examples, settings, answers=answers, done=done)
        assert sorted(seen) == list(range(18))
        seen.clear()
    prompts = sum(len(example.prompt) for example in examples)
    assert prompts < sum(counts) < prompts + 9 * 3 + 9 * 4 * 20 and counts[-2:] == [0, 0]


def test_many_prompts_are_decoded_as_few(place, monkeypatch):
    """Of many prompts the batches have other shapes and numbers of rows, and the same texts."""
    model, _ = place
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 500, n).tolist() for n in [*random.integers(4, 15, 9), 50, 60]]
    options = {"max_new_tokens": 3, "batch_size": 2}
    few = generate(model, {"params": model.params}, prompts, **options)
    monkeypatch.setattr(planning, "MANY", 0)
    lengths = [len(prompt) for prompt in prompts]
    plan = planning.planned(lengths, 2, 32)
    assert sorted(i for batch in plan for i in batch.prompts) == list(range(11))
    assert {(batch.rows, batch.length) for batch in plan} == {(4, 16), (2, 64)}
    assert all(lengths[i] <= batch.length for batch in plan for i in batch.prompts)
    assert [batch.length for batch in plan] == sorted((batch.length for batch in plan), reverse=True)
    assert generate(model, {"params": model.params}, prompts, **options) == few


def test_lengths_that_are_divided_by():
    log_p = np.log([0.2, 0.1])
    assert chosen(log_p, ["no", "certainly"], [1, 3]).best == 0
    assert chosen(log_p, ["no", "certainly"], [1, 3], "token").best == 1
    assert chosen(log_p, ["no", "certainly"], [3, 1], "byte").best == 1
    np.testing.assert_allclose(chosen(log_p, ["a", "b"], [1, 1]).probabilities, [2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [(["acuracy"], "unknown metric 'acuracy'; did you mean 'accuracy'"), (["f1"], "choosing: f1 is about")],
)
def test_metrics_that_do_not_fit(rows, place, metrics, message):
    model, _ = place
    with pytest.raises(UsageError, match=message):
        evaluate_examples(model, {}, examples_of(rows, place, choices=WORDS, metrics=metrics))
    with pytest.raises(UsageError, match=f"told: .*{message.split(': ')[-1]}"):
        evaluate_examples(model, {}, examples_of(rows, place, "told"), metrics=metrics)


def test_bad_input(place):
    model, _ = place
    with pytest.raises(UsageError, match="no examples"):
        evaluate_examples(model, {}, [])
    with pytest.raises(UsageError, match="not by 'tokens'; did you mean 'token'"):
        rank(model, {}, [], by="tokens")
