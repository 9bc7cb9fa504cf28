"""HELM's seven: perturbations as laws, metrics against independent values, and the whole on tiny models.

Equality with crfm-helm itself is experiments/benchmarks/helm_parity.py (its own environment): 2026-11-22, crfm-helm
0.5.16, 100 outputs, all equal; `test_parity_with_crfm_helm` runs it where HELM_PYTHON names such an environment.
"""

import dataclasses
import io
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_run import recipe, write_model, write_rows

from jaxft.cli import main
from jaxft.data import Encoded, Rows
from jaxft.data.tasks import load_task
from jaxft.errors import Error, UsageError
from jaxft.evaluation.helm import (
    DEFAULT,
    PERTURBATIONS,
    SEVEN,
    load_scorer,
    load_words,
    perturb,
    perturbed_examples,
    seven,
    show_report,
    toxicity,
)
from jaxft.evaluation.helm.accuracy import per_example
from jaxft.evaluation.helm.bias import associations, representation, tokens
from jaxft.evaluation.helm.calibration import calibration
from jaxft.evaluation.helm.plugin.batching import Batcher
from jaxft.evaluation.helm.plugin.engine import Ask, Engine
from jaxft.evaluation.helm.plugin.registering import read_models
from jaxft.evaluation.helm.run import helm_report
from jaxft.evaluation.helm.versions import protected, written_fields
from jaxft.evaluation.helm.words import own_words
from jaxft.evaluation.helm.worst import NOTHING_CHANGED, worst_case
from jaxft.generation import generate, log_likelihood
from jaxft.methods import lora
from jaxft.methods.peft import save_adapter
from jaxft.pretrained import load
from jaxft.report import read, report_page

TEXT = "Yes: Emily and Brad say that he isn't here, because  it is late. My brother, Emily  would have thanked him. "


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_is_a_pure_function_of_text_seed_and_row(name):
    texts = [TEXT, "Emily said so."]
    assert perturb(name, texts, 3, "row 1") == perturb(name, texts, 3, "row 1")
    assert perturb(name, texts, 0, "row 1")[0] != TEXT
    others = {tuple(perturb(name, [TEXT * 5], seed, row)) for seed in (0, 1, 2) for row in ("a", "b")}
    drawn = name in ("typos", "space", "misspellings", "mild_mix", "dialect", "person_name")
    assert (len(others) > 1) == drawn
    assert perturb(name, [""], 0, "row 1") == [""]


def test_spacing_and_letter_case_are_idempotent():
    for name in ("space", "lowercase", "contraction", "expansion"):
        once = perturb(name, [TEXT], 5, "x")
        assert perturb(name, once, 5, "x") == once, name
    assert perturb("space", [TEXT], 5, "x")[0].split() == TEXT.split()
    assert perturb("extra_space", ["a b"], 0, "x") == ["a  b"]


def test_what_each_one_does():
    def one(name, text):
        return perturb(name, [text], 0, "x")[0]

    assert one("contraction", "It is late and I am sure he would not say") == "It's late and I'm sure he'd not say"
    assert one("expansion", "It's late, I'm sure; Can't we") == "It is late, I am sure; Cannot we"
    assert one("gender_pronouns", "Is he, HIM and His himself?") == "Is she, HER and Her herself?"
    assert one("gender_terms", "The man and his sons.") == "The woman and his daughters."
    assert one("dialect", "Ask them") == "Ask them"  # HELM: the first and the last word have nothing around them
    assert one("dialect", "Well, that is mine") == "Well, dat is mine"
    changed = one("typos", "The Quick brown fox jumps over it " * 9)
    pairs = [(a, b) for a, b in zip("The Quick brown fox jumps over it " * 9, changed, strict=True) if a != b]
    assert 10 < len(pairs) < 45 and all(a.isupper() == b.isupper() for a, b in pairs)
    assert all(b.lower() in own_words().keyboard[a.lower()] for a, b in pairs)


def test_a_name_becomes_the_same_one_everywhere_in_an_example_and_keeps_its_gender():
    names = own_words().names["black_american"]
    new, again = perturb("person_name", ["Emily and BRAD met emily.", "Brad knows Emily; Emily's is his."], 1, "x")
    first, male = new.split()[0], new.split()[2]
    assert first.lower() in names["female"] and male.lower() in names["male"] and male.isupper()
    assert new.split()[-1] == f"{first.lower()}." and again.split()[0] == male.capitalize()
    assert again.count(first) == 2


def test_unknown_perturbations_and_lists_are_named(tmp_path):
    with pytest.raises(UsageError, match="unknown perturbation 'typo'; did you mean 'typos'"):
        perturb("typo", ["a"], 0, "x")
    file = tmp_path / "words.json"
    for content, message in (
        ('{"dialects": {}}', "unknown list 'dialects'; did you mean 'dialect'"),
        ('{"gender_terms": [["a", "b"]]}', "gender_terms.0"),
        ('{"groups": {"race": {"one": ["x"]}}}', "one group alone"),
        ('{"targets": {"profession": []}}', "has no words"),
        ("[1]", "is a mapping of lists"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=message):
            load_words(file)
    file.write_text('{"dialect": {"late": ["lateish"]}}')
    words = load_words(file)
    assert perturb("dialect", ["It is late."], 0, "x", words) == ["It is lateish."]
    assert words.source("dialect") == "lists as given" and words.source("names", "dialect") == "own lists"


def test_calibration_against_a_computation_of_its_own():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.3, 1, 200)
    right = (draw.uniform(size=200) < confidence**2).astype(int)
    found = calibration(confidence, right, resamples=20)
    order = np.argsort(confidence)
    parts = np.array_split(order, 10)  # no two confidences are equal: the bins are these
    assert found["ece_10_bin"].value == pytest.approx(sum(abs((confidence - right)[p].sum()) for p in parts) / 200)
    assert found["ece_1_bin"].value == pytest.approx(abs(confidence.mean() - right.mean()))
    surest = right[order[::-1]]
    assert found["selective_acc@10"].value == pytest.approx(surest[:21].mean())
    assert found["selective_cov_acc_area"].value == pytest.approx(np.mean([surest[:k].mean() for k in range(1, 201)]))
    features = np.stack([np.log(confidence / (1 - confidence)), np.ones(200)], axis=1)
    weights = np.zeros(2)
    for _ in range(30):  # Newton's steps of the logistic regression
        chance = 1 / (1 + np.exp(-features @ weights))
        curvature = features.T @ (features * (chance * (1 - chance))[:, None])
        weights += np.linalg.solve(curvature, features.T @ (right - chance))
    assert [found[f"platt_{name}"].value for name in ("coef", "intercept")] == pytest.approx(weights, rel=1e-4)
    for one in found.values():
        assert one.n == 200 and one.interval[0] <= one.value <= one.interval[1]
    certain = calibration([0.5, 0.9], [1, 1], resamples=0)
    assert certain["platt_ece_10_bin"].value == 0 and "platt_coef" not in certain
    with pytest.raises(UsageError, match=r"0\.\.1"):
        calibration([1.5], [1])


def test_bias_counts():
    groups = {"female": ["she", "woman"], "male": ["he", "man", "his"]}
    texts = ["She said: the woman's a nurse.", "He is late! His nurse (a man) paints.", ""]
    assert tokens("It's he/she. He?") == ["it", "'s", "he/she", ".", "he", "?"]
    # 2 of 2 words and 3 of 3 words: rates 1 and 1
    assert representation(texts, groups, "").value == 0
    one = associations(texts, groups, ["nurse", "judge"], "", resamples=20)
    assert one.value == 0 and one.n == 2
    alone = associations(texts[:1], groups, ["nurse"], "")
    assert alone.value == 0.5  # one group alone: 1 - 1/2
    assert representation(["nobody"], groups, "") is None and associations(texts, groups, ["judge"], "") is None


def test_toxicity_wants_a_scorer_that_behaves(tmp_path, monkeypatch):
    found = toxicity(["bad", "good", ""], lambda texts: [0.9 if text == "bad" else 0.2 for text in texts])
    assert found["expected_max_toxicity"].value == pytest.approx(1.1 / 3) and found["toxic_frac"].value == 1 / 3
    with pytest.raises(Error, match="shape"):
        toxicity(["a", "b"], lambda texts: [0.5])
    with pytest.raises(Error, match=r"gave 1.5 for text 1"):
        toxicity(["a", "b"], lambda texts: [0.5, 1.5])
    with pytest.raises(Error, match="nan"):
        toxicity(["a"], lambda texts: [float("nan")])
    (tmp_path / "own_scorer.py").write_text("def score(texts):\n    return [len(t) / 100 for t in texts]\n")
    monkeypatch.chdir(tmp_path)
    assert load_scorer("own_scorer:score")(["ab"]) == [0.02]
    for name, message in (
        ("own_scorer:scored", "did you mean 'score'"),
        ("no_such:score", "cannot be imported"),
        ("own_scorer", "neither module:function"),
        (str(tmp_path), "no text classifier"),
    ):
        with pytest.raises(UsageError, match=message):
            load_scorer(name)


def test_a_classifier_directory_scores(tmp_path):
    import torch
    import transformers
    from tiny_tokenizer import tiny_tokenizer

    config = transformers.BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16, id2label={0: "fine", 1: "toxic"})  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    scores = load_scorer(str(tmp_path))(["one", "two three"])
    ids = torch.tensor([tiny_tokenizer()("one")["input_ids"]])
    assert scores[0] == pytest.approx(model(ids).logits.softmax(-1)[0, 1].item(), abs=1e-5)
    config.id2label = {0: "red", 1: "blue"}
    config.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="none of which is toxic"):
        load_scorer(str(tmp_path))


def test_worst_case():
    rows = {"typos": np.array([0.0, np.nan, 1]), "space": np.array([1, 0.5, np.nan]), "lowercase": np.full(3, np.nan)}
    about = dict.fromkeys(["", *rows], "x")
    found = worst_case(np.array([1.0, 1, 0]), rows, about)
    assert found["worst"].value == pytest.approx((0 + 0.5 + 0) / 3) and found["worst"].n == 3
    assert found["typos/perturbed"].value == 0.5 and found["typos/before"].value == 0.5 and found["typos/worst"].n == 2
    assert found["typos/worst"].value == 0 and found["lowercase"] == NOTHING_CHANGED


def test_accuracy_of_an_example():
    texts, references = ["The cat, a cat!", "", "no"], [["cat", "dogs"], ["x"], ["No."]]
    assert per_example("exact_match", texts, references).tolist() == [0, 0, 0]
    assert per_example("quasi_exact_match", texts, references).tolist() == [0, 0, 1]
    assert per_example("f1_score", texts, references).tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match="did you mean 'rouge_l'"):
        per_example("rouge_L", texts, references)
    with pytest.raises(UsageError, match="empty reference"):
        per_example("f1_score", ["a"], [[]])


def test_what_of_a_prompt_is_perturbed():
    assert written_fields("text") == ("text",)
    assert written_fields("{% if a == 'x' %}{{ a }}{% endif %}{{ b|upper }} {{ c[0] }}{{ d ~ e }}{{ f }}") == ("b", "f")
    lower = lambda texts: [text.lower() for text in texts]  # noqa: E731
    assert protected(["Which?\nA. Red\nB) Blue (C) By A. Lee"], lower) == ["which?\nA. red\nB) blue (C) by a. lee"]


def written(rows, change=None):
    """Encode rows by their bytes: what `encode` does, without a tokenizer."""
    return [
        Encoded(rows.id(i), np.frombuffer(f"{row['kind']}: {row['text']}|{row['choice']}".encode(), np.uint8),
                np.zeros(1, np.int32), references=(row["label"],), choices=tuple(row.get("choices", ())))
        for i, row in enumerate(rows)
    ]  # fmt: skip


def test_labels_choices_and_tested_fields_stay():
    row = {"kind": "Kind", "text": "Emily  is Here\n(A) Yes", "choice": "Here It Is", "label": "Here It Is"}
    prompt = "{% if kind == 'Kind' %}{{ kind }}{% endif %}: {{ text }}|{{ choice }}"
    rows = Rows([row | {"choices": ["Here It Is", "No"]}, row | {"label": "Emily", "text": "1"}], "test")
    examples = written(rows)
    found = perturbed_examples(rows, examples, written, prompt, DEFAULT)
    first = found["lowercase"][0]
    assert bytes(first.prompt.astype(np.uint8)).decode() == "Kind: emily  is here\n(A) yes|Here It Is"
    assert first.choices == examples[0].choices and first.references == examples[0].references
    assert found["person_name"][0].references == ("Here It Is",)
    assert found["person_name"][1] is None  # no field that the prompt writes has a name
    assert all(one is None or one.id == examples[i].id for made in found.values() for i, one in enumerate(made))


def test_references_of_texts_follow_names():
    rows = Rows([{"kind": "", "text": "Emily met Brad.", "choice": "", "label": "Brad met Emily."}], "test")
    examples = written(rows)
    version = perturbed_examples(rows, examples, written, "{{ text }}", ["person_name"])["person_name"][0]
    text = bytes(version.prompt.astype(np.uint8)).decode().removeprefix(": ").removesuffix(".|")
    assert version.references == (" ".join(reversed(text.split())) + ".",) and "Emily" not in text
    lowered = perturbed_examples(rows, examples, written, "{{ text }}", ["lowercase"])["lowercase"][0]
    assert lowered.references == ("Brad met Emily.",) and lowered.prompt.tolist() != examples[0].prompt.tolist()


TASK = {
    "name": "tiny/late",
    "source": "",
    "splits": {"test": "test"},
    "fields": {"answer": "{{ 'yes' if late else 'no' }}", "lines": "Q: {{ question }}"},
    "completion": "answer",
    "choices": ["yes", "no"],
    "metrics": ["accuracy"],
    "templates": {"asked": "{{ lines }}\nIs it so?"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("helm")
    write_model(place / "model", scale=1)
    write_rows(place / "data", train=4, validation=2, test=4)
    rows = [{"question": f"Is Emily there at {i}? It is late.", "late": i % 2} for i in range(6)]
    (place / "late").mkdir()
    (place / "late" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def test_seven_of_texts(folder):
    one = recipe(folder / "model", folder / "data", folder / "run")
    one = dataclasses.replace(one, data=dataclasses.replace(one.data, max_length=480, on_long="truncate"))
    settings = {"perturbations": ["typos", "lowercase", "person_name"], "requests": 1, "resamples": 20}
    found = helm_report(one, **settings, answers=str(folder / "answers.jsonl"))
    assert list(found)[-7:] == list(SEVEN) and found["n"] == 4 and found["metric"] == "rouge_1"
    assert found["toxicity"]["all"]["value"] is None and "no scorer" in found["toxicity"]["all"]["not_measured"]
    assert found["calibration"]["all"]["value"] is None
    worst = found["robustness"]["worst"]
    assert 0 <= worst["low"] <= worst["value"] <= worst["high"] <= 1 and worst["n"] == 4
    assert worst["value"] <= found["accuracy"]["rouge_1"]["value"] + 1e-9
    assert "own lists" in found["robustness"]["typos/worst"]["definition"]
    assert found["efficiency"]["latency_p50"]["value"] > 0
    again = helm_report(one, **settings | {"requests": 0}, answers=str(folder / "answers.jsonl"))
    assert {k: v for k, v in again.items() if k != "efficiency"} == {
        k: v for k, v in found.items() if k != "efficiency"
    }
    console = Console(file=io.StringIO(), width=120)
    show_report(found, console)
    assert "not measured" in console.file.getvalue() and "person_name" in console.file.getvalue()
    with pytest.raises(UsageError, match="did you mean 'typos'"):
        helm_report(one, perturbations=["typoz"])
    with pytest.raises(UsageError, match="did you mean 'test'"):
        helm_report(one, split="tests")


def test_seven_refuses_answers_of_an_adapter_that_was_trained_anew(folder):
    one = recipe(folder / "model", folder / "data", folder / "run")
    one = dataclasses.replace(one, data=dataclasses.replace(one.data, max_length=480, on_long="truncate"))
    model, kept = load(folder / "model"), str(folder / "tuned.jsonl")
    settings = {"perturbations": ["lowercase"], "requests": 0, "resamples": 5, "answers": kept}
    for seed in (0, 1):
        method = lora(rank=2)
        trainable, frozen = method.init(jax.random.key(seed), {"params": model.params})
        save_adapter(folder / "adapter", method, trainable, frozen, model)
        if seed == 0:
            helm_report(one, str(folder / "adapter"), **settings)
    with pytest.raises(UsageError, match="of another adapter"):
        helm_report(one, str(folder / "adapter"), **settings)


def test_seven_of_choices(folder):
    record = folder / "late.yaml"
    record.write_text(json.dumps(TASK | {"source": str(folder / "late")}))
    one = recipe(folder / "model", folder / "data", folder / "run")
    data = dataclasses.replace(one.data, source=None, prompt=None, completion=None, tasks=[str(record)])
    found = helm_report(dataclasses.replace(one, data=data), perturbations=["lowercase", "person_name"], requests=0,
                        toxicity=None, resamples=20, out=folder / "seven")  # fmt: skip
    assert json.loads((folder / "seven" / "helm.json").read_text()) == found
    assert "accuracy" in report_page([folder / "seven"]) and not read(folder / "seven").notes
    assert found["metric"] == "exact_match" and found["n"] == 6
    assert found["calibration"]["ece_1_bin"]["n"] == 6
    # Two tokens, chosen by their own probability: HELM's separate_original.
    assert "by token" in found["accuracy"]["exact_match"]["definition"]
    assert found["robustness"]["lowercase/worst"]["n"] == 6 and found["fairness"]["person_name/worst"]["n"] == 6
    assert "choices" in found["bias"]["all"]["not_measured"]


def test_seven_refuses(folder):
    task = load_task(TASK)
    assert task.name == "tiny/late"
    example = Encoded("a", np.ones(1, np.int32), np.ones(1, np.int32), references=("x",))
    for examples, options, message in (
        ([], {}, "no examples"),
        ([dataclasses.replace(example, references=())], {}, "empty reference"),
        ([example, dataclasses.replace(example, choices=("x", "y"))], {}, "measure the two apart"),
        ([example], {"metrics": ["rouge_x"]}, "unknown metric"),
        ([example], {"versions": {"typo": [None]}}, "did you mean 'typos'"),
        ([example], {"versions": {"typos": []}}, "give None for one alike"),
    ):
        with pytest.raises(UsageError, match=message):
            seven(None, None, examples, **options)


@pytest.mark.slow
@pytest.mark.skipif("HELM_PYTHON" not in os.environ, reason="HELM_PYTHON names no Python with crfm-helm")
def test_parity_with_crfm_helm():
    # 2026-11-22: crfm-helm 0.5.16, all of 73 comparisons equal, 60 s.
    script = Path(__file__).parents[1] / "experiments/benchmarks/helm_parity.py"
    subprocess.run([sys.executable, script, "--helm-python", os.environ["HELM_PYTHON"]], check=True)


def test_draws_are_those_of_helm():
    """HELM seeds Python's Random with the instance's id, or its seed before the id."""
    draw = random.Random("id7")
    expected = "".join(word + " " * draw.randint(1, 3) for word in "abcdefgh")
    assert perturb("space", ["a b c d e f g h "], 0, "id7") == [expected]
    assert perturb("space", ["a b " * 20], 3, "id7") == perturb("space", ["a b " * 20], 0, "3id7")


def test_requests_of_many_threads_share_batches_and_fail_alone():
    sizes = []

    def work(numbers):
        sizes.append(len(numbers))
        if 3 in numbers:
            raise ValueError("three")
        return [2 * number for number in numbers]

    batcher = Batcher(work, size=8, wait=0.2)

    def ask(number):
        try:
            return batcher(number).value
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [0, 2, 4, "three", 8, 10, 12, 14]
    assert max(sizes) > 1 and sizes.count(1) >= 8  # together, then one by one
    assert batcher(21) == (42, 1, pytest.approx(0, abs=5))


@pytest.fixture(scope="module")
def answering(folder):
    return Engine(str(folder / "model"), batch_size=4)


def test_the_engine_gives_log_probabilities_of_prompts_and_texts(answering):
    text = "Paula will borrow a guitar"
    ids = answering.tokenize(text)
    (echoed,), (greedy,) = answering([Ask(text, max_tokens=0, echo=True), Ask(text, max_tokens=5)])
    assert echoed.text == text and len(echoed.tokens) == len(ids) and echoed.tokens[0][1] == 0
    sums, _ = log_likelihood(answering.model, answering.variables, [ids[:3]], [ids[3:]])
    assert sum(value for _, value in echoed.tokens[3:]) == pytest.approx(float(sums[0]), abs=1e-4)
    assert greedy.text == generate(answering.model, answering.variables, [text], max_new_tokens=5)[0]
    assert 0 < len(greedy.tokens) <= 5 and all(value < 0 for _, value in greedy.tokens)


def test_what_the_engine_draws_depends_on_the_request_alone(answering):
    one = Ask("Paula", max_tokens=4, temperature=1.0, samples=2, random="a")
    alone = answering([one])[0]
    beside = answering([Ask("Somebody else", max_tokens=4), one, one._replace(random="b")])
    assert beside[1] == alone and len(alone) == 2 and beside[2] != alone
    (chatted,) = answering([Ask("", messages=({"role": "user", "content": "Paula"},), max_tokens=2)])[0]
    assert len(chatted.tokens) <= 2
    with pytest.raises(UsageError, match="context"):
        answering([Ask("Paula " * 600, max_tokens=4)])


def test_a_file_of_models_for_crfm_helm(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text("small: {source: folder, chat: true}\n")
    assert read_models(file) == {"small": {"source": "folder", "chat": True}}
    for content, message in (
        ("small: {sources: x}", "did you mean 'source'"),
        ("small: {chat: true}", "has no source"),
        ("a/b: {source: x}", "no slash"),
        ("- x", "give each model's name"),
        ("a: [", "broken YAML"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=message):
            read_models(file)


def test_the_command_line_refuses_before_a_model_is_loaded(folder, capsys):
    model = str(folder / "no_such_model")
    fields = [f"--data.source={folder / 'data'}", "--data.prompt=dialogue", "--data.completion=summary"]
    for flags, message in (
        (["--perturbations", "typoz"], "did you mean 'typos'"),
        (["--toxicity", "json:dump"], "toxicity scorer"),
        (["--words", str(folder / "none.yaml")], "cannot be read"),
        (["--split", "tests"], "did you mean 'test'"),
        (["--out", str(folder / "data" / "test.jsonl")], "cannot be made"),
    ):
        assert main(["evaluate", model, *fields, "--helm", *flags]) in (1, 2)
        assert message in capsys.readouterr().err
