"""lm-eval sees the same numbers as through its own Hugging Face model, and benchmarks run from the command line."""

import functools
import json

import jax
import lm_eval
import numpy as np
import pytest
import tiny_torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_run import write_model
from tiny_tokenizer import CHATML, tiny_tokenizer

import jaxft
from jaxft.cli import main
from jaxft.errors import UsageError
from jaxft.evaluation.harness import run
from jaxft.evaluation.harness.mirrors import make_mirrors
from jaxft.evaluation.harness.model import HarnessModel
from jaxft.evaluation.harness.run import Settings, evaluate_tasks
from jaxft.generation import likelihood
from jaxft.pretrained import load

TEXTS = ("The cat", " sat on the mat. ", "It rained.\n\nQ: why", "Nobody knows, ", "x")
PAIRS = [
    ("The cat sat", " on the mat"),
    ("The cat sat", " down"),
    ("The cat sat", " d"),
    ("The cat sat ", "on"),  # a space at the end belongs to the continuation
    ("", "No context at all"),
    ("", "x"),
    ("<s>The beginning is there already", " yes"),
    *((header + question, answer) for header in ("Few. Shots. " * 5, "Others " * 8)
      for question in ("one", "two", "three") for answer in (" A", " B", " and more")),
    ("long " * 40, " cut"),  # beyond the context
    ("long " * 40, " at the front, and this by a lot"),
]  # fmt: skip


def requests(kind, args):
    return [Instance(kind, {}, one, i, ("tiny", i, 1)) for i, one in enumerate(args)]


@pytest.fixture(scope="module", params=["llama", "t5"])
def pair(request, tmp_path_factory):
    """Our model and lm-eval's, of the same weights and tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny_tokenizer("bos" if request.param == "llama" else "eos", chat_template=CHATML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_torch, "VOCABULARY", len(tokenizer) + 3)
        theirs = getattr(tiny_torch, request.param)(folder)
    backend = "causal" if request.param == "llama" else "seq2seq"
    head = theirs.get_output_embeddings().weight
    hf = HFLM(theirs, backend=backend, tokenizer=tokenizer, batch_size=5, max_length=128)
    # It ties the head of every T5, and transformers makes a cache for as many layers as the encoder has.
    theirs.get_output_embeddings().weight = head
    theirs.config.num_layers = 3
    model = load(folder, tokenizer=tokenizer)
    return HarnessModel(model, batch_size=8, max_length=128), hf


def test_log_likelihoods_are_lm_evals(pair):
    ours, theirs = (one.loglikelihood(requests("loglikelihood", PAIRS)) for one in pair)
    np.testing.assert_allclose([total for total, _ in ours], [total for total, _ in theirs], rtol=1e-5, atol=1e-4)
    assert [same for _, same in ours] == [same for _, same in theirs]


def test_sharing_changes_nothing(pair):
    model = pair[0].jax_model
    alone = HarnessModel(model, batch_size=8, max_length=128, share=False)
    ours, theirs = (one.loglikelihood(requests("loglikelihood", PAIRS)) for one in (pair[0], alone))
    np.testing.assert_allclose([total for total, _ in ours], [total for total, _ in theirs], atol=1e-5, rtol=1e-5)


def test_rolling_log_likelihoods_are_lm_evals(pair):
    texts = [("Some words, and then some. " * n,) for n in (1, 3, 12)]  # the last in three windows
    ours, theirs = (one.loglikelihood_rolling(requests("loglikelihood_rolling", texts)) for one in pair)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


def test_generated_texts_are_lm_evals(pair):
    stops = [chr(c) for c in range(97, 105)]
    asked = [(text, {"until": stops, "max_gen_toks": 20, "do_sample": False}) for text in TEXTS]
    asked += [("long " * 40, {"until": ["zz"], "max_gen_toks": 9})]
    ours, theirs = (one.generate_until(requests("generate_until", asked)) for one in pair)
    if pair[0].backend == "seq2seq":  # theirs may go on by as many tokens as the context has
        theirs = [text[: len(own)] for text, own in zip(theirs, ours, strict=True)]
    assert ours == theirs
    assert any(ours)


def test_a_stop_of_several_tokens_ends_a_text(pair, monkeypatch):
    from jaxft.evaluation.harness import until

    monkeypatch.setattr(until, "PIECE", 8)
    free, settings = "", {"max_gen_toks": 24, "until": ["\0\0\0"]}
    for text in TEXTS:
        free = max(free, pair[0].generate_until(requests("generate_until", [(text, settings)]))[0], key=len)
        if free and len(free) > 12:
            break
    stop = free[5:8]
    cut = pair[0].generate_until(requests("generate_until", [(text, {**settings, "until": [stop]})]))[0]
    assert cut == free.split(stop)[0]


def test_chat_templates_are_lm_evals(pair):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    for one in ("apply_chat_template", "chat_template"):
        argument = turns if one == "apply_chat_template" else True
        assert getattr(pair[0], one)(argument) == getattr(pair[1], one)(argument)
    begun = [*turns, {"role": "assistant", "content": "So"}]
    assert pair[0].apply_chat_template(begun, False) == pair[1].apply_chat_template(begun, False)


@pytest.mark.parametrize("pair", ["llama"], indirect=True)
def test_an_adapter_stays_unmerged_and_a_mesh_changes_nothing(pair):
    model = pair[0].jax_model
    method = jaxft.lora(rank=2, targets="all")
    trainable, frozen = method.init(jax.random.key(0), {"params": model.params})
    moved = jax.tree.map(lambda x: x + 0.05, trainable)
    bound = method.bind(moved, frozen)
    asked = requests("loglikelihood", PAIRS[:6])
    base, tuned, merged, spread = (
        [total for total, _ in HarnessModel(model, variables, batch_size=6, mesh=mesh).loglikelihood(asked)]
        for variables, mesh in (
            (None, None),
            (bound, None),
            ({"params": jaxft.merge(bound)}, None),
            (bound, jaxft.make_mesh(data=2, fsdp=2)),
        )
    )
    assert np.abs(np.subtract(base, tuned)).max() > 0.01
    np.testing.assert_allclose(tuned, merged, rtol=1e-4)
    np.testing.assert_allclose(tuned, spread, rtol=1e-4)


TASK = {
    "dataset_path": "acme/colours",
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "What colour is {{thing}}?",
    "doc_to_choice": ["red", "green", "dark blue"],
    "doc_to_target": "colour",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 3.0},
}
TEXT = {
    "output_type": "generate_until",
    "doc_to_target": "{{thing}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
TASKS = {
    "colours": TASK,
    "texts": {**{k: v for k, v in TASK.items() if k != "doc_to_choice"}, **TEXT},
    "absent": {**TASK, "dataset_path": "acme/absent"},
    "raising": {**TASK, "doc_to_target": "{{ 1 / (thing != 'thing 2') | int }}"},
    "odd": {**{k: v for k, v in TASK.items() if k != "doc_to_choice"}, **TEXT,
            "generation_kwargs": {"until": ["x"], "mirostat": 2}},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, a data root, and a folder of tasks; lm-eval's own are left out, for they take long to list."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "model", scale=3)
    data = folder / "root" / "acme" / "colours"
    data.mkdir(parents=True)
    for split, rows in (("train", 6), ("test", 9)):
        lines = (json.dumps({"thing": f"thing {i}", "colour": i % 3}) for i in range(rows))
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tasks").mkdir()
    for name, task in TASKS.items():
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}))
    group = {"group": "both", "task": ["colours", "absent"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "tasks" / "both.yaml").write_text(yaml.safe_dump(group))
    with pytest.MonkeyPatch.context() as patch:
        import datasets
        import lm_eval.tasks

        manager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
        patch.setattr(lm_eval.tasks, "TaskManager", manager)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        patch.setattr(run, "_mesh", lambda: None)
        yield folder


def command(place, tasks, *options):
    return main(["evaluate", str(place / "model"), "--tasks", tasks, "--data-root", str(place / "root"),
                 "--include-path", str(place / "tasks"), *options])  # fmt: skip


def test_benchmarks_from_the_command_line(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(place, "colours,texts", "--out", str(out), "--num-fewshot", "2", "--chat", "--limit", "6") == 0
    shown = capsys.readouterr().out
    assert "colours" in shown and "exact_match" in shown and "95 % interval" in shown
    found = json.loads((out / "results.json").read_text())
    assert found["version"] == 1 and found["failed"] == {} and found["compilations"] >= 0
    assert found["n-samples"]["colours"] == {"original": 9, "effective": 6}
    assert found["n-shot"] == {"colours": 2, "texts": 2} and found["versions"]["colours"] == 3.0
    low, high = found["intervals"]["colours"]["acc,none"]
    assert low <= found["results"]["colours"]["acc,none"] <= high
    samples = [json.loads(line) for line in (out / "samples/colours.jsonl").read_text().splitlines()]
    assert len(samples) == 6 and samples[0]["arguments"][0][0].count("<|start|>user") == 3
    assert len((out / "answers.jsonl").read_text().splitlines()) == 1 + 6 * 3 + 6


def test_scores_are_those_of_lm_eval(place):
    """simple_evaluate on the same requests gives the same numbers."""
    found = evaluate_tasks(str(place / "model"), ["colours"], data_root=place / "root", include_path=place / "tasks")
    lm = HarnessModel(load(place / "model"), batch_size=4)
    from jaxft.evaluation.harness.loading import load_tasks, quiet

    task = load_tasks(["colours"], place / "root", place / "tasks").tasks["colours"]
    with quiet():
        theirs = lm_eval.simple_evaluate(lm, tasks=[task], bootstrap_iters=10)
    assert found["results"]["colours"]["acc,none"] == theirs["results"]["colours"]["acc,none"]
    assert found["results"]["colours"]["acc_stderr,none"] == theirs["results"]["colours"]["acc_stderr,none"]


def test_a_failing_task_does_not_lose_the_others(place, tmp_path, capsys):
    assert command(place, "both,texts,raising,odd", "--out", str(tmp_path)) == 1
    told = capsys.readouterr()
    assert "3 of the tasks failed" in told.err and "absent: acme/absent is not in --data-root" in told.err
    assert "'mirostat' is not supported" in told.err and "raising: " in told.err
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["failed"]) == {"absent", "raising", "odd"}
    assert found["missing"] == {"both": ["absent"]} and "both (without 1)" in told.out
    assert found["results"]["both"]["acc,none"] == found["results"]["colours"]["acc,none"]
    assert "texts" in found["results"]


@pytest.mark.parametrize(
    ("tasks", "options", "code", "message"),
    [
        ("colors", [], 2, "unknown task 'colors'; did you mean 'colours'"),
        ("absent", [], 1, "acme/absent is not in --data-root"),
        ("colours", ["--data-root", "nowhere"], 2, "nowhere is no folder"),
        ("colours", ["--limit", "0"], 2, "--limit: 0 is out of range"),
        ("", [], 2, "--tasks: name at least one"),
        ("colours", ["--helm"], 2, "leave out the recipe and --helm"),
        ("colours", ["--train.steps=3"], 2, "takes no such flag"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(place, tasks, options, code, message, monkeypatch, capsys):
    monkeypatch.setattr(run, "_load", lambda *_: pytest.fail("a model was loaded"))
    assert command(place, tasks, *options) == code
    assert message in capsys.readouterr().err


def test_no_network_and_no_data_root(place, monkeypatch, capsys):
    monkeypatch.setattr(run, "_load", lambda *_: pytest.fail("a model was loaded"))
    arguments = ["evaluate", str(place / "model"), "--tasks", "colours", "--include-path", str(place / "tasks")]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "there is no --data-root with acme/colours" in message and "the hub cannot be reached" in message


def test_a_killed_evaluation_goes_on(place, tmp_path, monkeypatch):
    options = {"data_root": place / "root", "include_path": place / "tasks", "settings": Settings(batch_size=2)}
    whole = evaluate_tasks(str(place / "model"), ["colours"], **options)
    stream = likelihood.stream

    def killed(*arguments, **settings):
        for number, scored in enumerate(stream(*arguments, **settings)):
            if number == 2:
                raise KeyboardInterrupt
            yield scored

    monkeypatch.setattr(likelihood, "stream", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(str(place / "model"), ["colours"], out=tmp_path, **options)
    monkeypatch.undo()
    monkeypatch.setattr(run, "_mesh", lambda: None)
    again = evaluate_tasks(str(place / "model"), ["colours"], out=tmp_path, **options)
    assert 0 < again["answered_before"] < 27 and again["answers"] == 27
    assert again["results"] == whole["results"]
    write_model(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="its answers are of another model"):
        evaluate_tasks(str(tmp_path / "other"), ["colours"], out=tmp_path, **options)


def test_mirrors_recover_the_fields(tmp_path):
    rows = {
        "superglue/boolq/dev": {"text": "question: is it\npassage: A -- b.\nc", "label": "True"},
        "superglue/wic/dev": {"text": "word: carry\nShe carried it.\nTo carry on.", "label": "False"},
        "superglue/copa/dev": {
            "text": 'Which sentence is the cause of "It rained."? Choose one between A and B.\nA: Wet.\nB: Clouds.',
            "label": "B",
        },
        "glue/rte/dev": {"sentence1": "One.", "sentence2": "Two.", "label": "not_entailment"},
        "mmlu/test": {"subject": "anatomy", "question": "?", "choices": ["a", "b", "c", "d"], "answer": 1, "id": "x"},
        "bigbench/test": {"task": "navigate", "input": "Go.", "target_scores": {"True": 0, "False": 1}},
    }
    for name, row in rows.items():
        path = tmp_path / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(row) + "\n")
    counts = make_mirrors(tmp_path / "data", tmp_path / "out")
    assert counts["aps/super_glue"] == {"validation": 4} and counts["cais/mmlu"] == {"test": 1}

    def made(name):
        return json.loads((tmp_path / "out" / f"{name}.jsonl").read_text())

    assert made("aps/super_glue/boolq/validation") == {"question": "is it", "passage": "A -- b.\nc", "label": 1}
    word = made("aps/super_glue/wic/validation")
    assert word["sentence1"][word["start1"] : word["end1"]] == "carried"
    choice = {"question": "cause", "premise": "It rained.", "choice1": "Wet.", "choice2": "Clouds.", "label": 1}
    assert made("aps/super_glue/copa/validation") == choice
    assert made("nyu-mll/glue/rte/validation")["label"] == made("aps/super_glue/rte/validation")["label"] == 1
    assert made("hails/bigbench/navigate_zero_shot/default")["inputs"].endswith("choice: True\n  choice: False\nA:")
    with pytest.raises(UsageError, match="holds something else"):
        make_mirrors(tmp_path / "data", tmp_path / "data")
    with pytest.raises(UsageError, match="has none of"):
        make_mirrors(tmp_path, tmp_path / "other")


def test_similarities_are_correlated():
    from jaxft.evaluation.harness.tasks.stsb import similarity

    items = [similarity.written({"label": label}, [text])["pearson"]
             for label, text in ((1.0, "1.2"), (4.0, "so 3.8"), (5.0, "9"), (2.0, "none"))]  # fmt: skip
    assert items == [(1.2, 1.0), (3.8, 4.0), (5.0, 5.0), (2.5, 2.0)]
    assert similarity.pearson(items) == pytest.approx(np.corrcoef(*np.array(items).T)[0, 1])
    flat = similarity.ranked({"label": 3.0}, [(-2.0, False)] * 6)
    assert flat["spearman"] == (pytest.approx(2.5), 3.0) and similarity.spearman([flat["spearman"]] * 3) == 0
